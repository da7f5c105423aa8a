"""Pictures at natural sizes (300 to 2,000 px), as files: what validation, test and the sample data look like."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from training.dataset import WORK
from training.generator import TRAINED, Edition, generate
from training.generator.editions import EDITIONS
from training.processes import process_pool
from training.seeds import SPLITS

ASPECTS: Final = ((4, 3), (4, 3), (3, 2), (1, 1), (3, 4), (16, 9))


@dataclass(frozen=True, slots=True)
class Labelled:
    """One picture file with ground truth: boxes ``(N, 4)`` px xyxy, class indices ``(N,)``, ids ``(H, W)`` of masks."""

    path: Path
    surface: str
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    ids_path: Path

    def image(self) -> NDArray[np.uint8]:
        """Read the RGB picture, ``(H, W, 3)``."""
        return np.ascontiguousarray(np.asarray(cv2.imread(str(self.path)), dtype=np.uint8)[..., ::-1])

    def ids(self) -> NDArray[np.uint8]:
        """0 background, i + 1 the i-th instance."""
        return np.asarray(cv2.imread(str(self.ids_path), cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


def natural_size(seed: int) -> tuple[int, int]:
    """Width and height px for a seed: the longer edge log-uniform in 300..2,000, six aspect ratios."""
    rng = np.random.default_rng([seed, 77])
    longest = float(np.exp(rng.uniform(np.log(300), np.log(2000))))
    across, down = ASPECTS[int(rng.integers(len(ASPECTS)))]
    scale = longest / max(across, down)
    return round(across * scale), round(down * scale)


def _make(job: tuple[str, int, str]) -> None:
    folder, seed, edition = Path(job[0]), job[1], EDITIONS[job[2]]
    cv2.setNumThreads(1)
    scene = generate(seed, natural_size(seed), edition=edition)
    ids = np.zeros(scene.image.shape[:2], np.uint8)
    for i, instance in enumerate(scene.instances):
        ids[instance.mask] = i + 1
    cv2.imwrite(str(folder / f"{seed}.jpg"), scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    cv2.imwrite(str(folder / f"{seed}.ids.png"), ids)
    record = {
        "surface": scene.surface,
        "boxes": [instance.box_xyxy() for instance in scene.instances],
        "labels": [edition.classes.index(instance.label) for instance in scene.instances],
    }
    (folder / f"{seed}.json").write_text(json.dumps(record))


def natural_set(split: str, count: int, workers: int = 2, edition: Edition = TRAINED) -> list[Labelled]:
    """Return the first ``count`` pictures of a split, generated into the work folder where they are missing."""
    folder = WORK / f"natural-{edition.name}" / split
    folder.mkdir(parents=True, exist_ok=True)
    seeds = [SPLITS[split].start + i for i in range(count)]
    missing = [(str(folder), seed, edition.name) for seed in seeds if not (folder / f"{seed}.json").exists()]
    if missing:
        with process_pool(workers) as pool:
            list(pool.map(_make, missing))
    found = []
    for seed in seeds:
        record = json.loads((folder / f"{seed}.json").read_text())
        boxes = np.asarray(record["boxes"], np.float32).reshape(-1, 4)
        labels = np.asarray(record["labels"], np.int64)
        path = folder / f"{seed}.jpg"
        found.append(Labelled(path, record["surface"], boxes, labels, folder / f"{seed}.ids.png"))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Generate pictures of natural sizes (resumable).")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    natural_set(arguments.split, arguments.pictures, arguments.workers)


if __name__ == "__main__":
    main()
