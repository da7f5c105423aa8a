"""Measure the product as a user sees it: ``autolabel run`` and ``autolabel eval`` on generated pictures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from pycocotools import mask as coco_mask

from autolabel.dataset import Run
from autolabel.evaluate import compare
from training.generator import Edition
from training.intervals import ROUNDS, Precisions, mean_of
from training.natural import Labelled

TIMEOUT_S: Final = 7200
MODELS: Final = ("detector", "segmenter", "classifier")


@dataclass(frozen=True, slots=True)
class Product:
    """The command line with one set of weights; ``None`` are the bundled ones. Runs and truths lie in ``folder``."""

    folder: Path
    weights: Path | None = None
    threads: int = 1

    def run(self, name: str, images: Path, prompts: Sequence[str], *options: str) -> tuple[Run, dict[str, Any]]:
        """Run ``autolabel run`` from nothing; returns the run and what the command printed."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        models = [] if self.weights is None else [o for m in MODELS for o in (f"--{m}", str(self.weights / m))]
        spoken = self._call(
            "run", str(images), "--prompt", ". ".join(prompts) + ".", "--run", str(path),
            "--offline", "--no-report", "--json", *models, *options,
        )  # fmt: skip
        return Run.open(path), spoken

    def evaluate(self, name: str, truth: Path, ranked: str) -> dict[str, Any]:
        """Run ``autolabel eval`` on the run ``name``."""
        return self._call("eval", str(self.folder / name), "--against", str(truth), "--ranked", ranked, "--json")

    def _call(self, *arguments: str) -> dict[str, Any]:
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "HF_HUB_OFFLINE": "1"}
        answer = subprocess.run(
            [sys.executable, "-m", "autolabel.cli", *arguments],
            env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
        )  # fmt: skip
        if answer.returncode:
            raise RuntimeError(
                f"autolabel {' '.join(arguments)} ended with {answer.returncode}: {answer.stderr[-2000:]}"
            )
        spoken: dict[str, Any] = json.loads(answer.stdout)
        return spoken


def write_images(pictures: Sequence[Labelled], folder: Path) -> Path:
    """Link or copy the picture files, and no others, into an empty ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for picture in pictures:
        try:
            os.link(picture.path, folder / picture.path.name)
        except OSError:
            shutil.copy(picture.path, folder)
    return folder


def write_truth(pictures: Sequence[Labelled], names: Sequence[str], path: Path) -> Path:
    """Write COCO ground truth with masks; ``names`` are what the categories are called, by class index."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures, 1):
        ids = picture.ids()
        height, width = ids.shape
        images.append({"id": number, "file_name": picture.path.name, "width": width, "height": height})
        for i, (box, label) in enumerate(zip(picture.boxes.tolist(), picture.labels.tolist(), strict=True)):
            mask = np.asfortranarray(ids == i + 1, dtype=np.uint8)
            rle = coco_mask.encode(mask)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "area": int(mask.sum()),
                    "segmentation": {"size": [height, width], "counts": rle["counts"].decode("ascii")},
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def precisions(run: Run, truth: Path, kinds: Sequence[str] = ("bbox", "segm"), rounds: int = ROUNDS) -> dict[str, Any]:
    """AP and AP50 of boxes and masks with intervals, over all that the detector proposed."""
    both = compare(run, truth, ranked="proposals")
    result = {}
    for kind in kinds:
        figures = Precisions(kind, both.images, both.labels, both.truths, both.ranked).figures(rounds)
        result["box" if kind == "bbox" else "mask"] = {name: value.to_json() for name, value in figures.items()}
    return result


def on_clean(run: Run, truth: Path) -> dict[str, Any]:
    """Boxes an image on pictures without defects, at the default thresholds; every one is false."""
    both = compare(run, truth)
    counts = Counter(record["image_id"] for record in both.annotations)
    figure = mean_of([[float(counts[number])] for number in sorted(both.clean)])
    return {"images": len(both.clean), "boxes_per_image": figure.to_json()}


def end_to_end(
    product: Product, pictures: Sequence[Labelled], edition: Edition, rounds: int = ROUNDS
) -> dict[str, Any]:
    """All figures of one pass with the class names as the prompt, on all pictures and on those of unseen surfaces."""
    images = write_images(pictures, product.folder / "images")
    names = edition.classes
    run, spoken = product.run("names", images, names)
    truth = write_truth(pictures, names, product.folder / "truth.json")
    unseen = [picture for picture in pictures if picture.surface in edition.held_out]
    result: dict[str, Any] = {
        "prompt": ". ".join(names) + ".",
        "pictures": len(pictures),
        "seconds_per_picture": spoken["timings_s"],
        "proposals": _summary(product.evaluate("names", truth, "proposals")),
        "annotations": _summary(product.evaluate("names", truth, "annotations")),
        "intervals": precisions(run, truth, rounds=rounds),
        "clean": on_clean(run, truth),
    }
    result["seconds_per_picture"] = {k: v / len(pictures) for k, v in spoken["timings_s"].items() if k != "load"}
    if unseen:
        truth = write_truth(unseen, names, product.folder / "unseen.json")
        result["unseen_surfaces"] = {
            "surfaces": list(edition.held_out),
            "pictures": len(unseen),
            "intervals": precisions(run, truth, rounds=rounds),
            "clean": on_clean(run, truth),
        }
    return result


def _summary(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of an answer of ``autolabel eval`` what a reader compares."""
    kept: dict[str, Any] = {key: answer[key] for key in ("truths", "annotations", "box", "mask")}
    kept["classes"] = {
        row["name"]: {
            "truths": row["truths"],
            "precision": row["precision"],
            "recall": row["recall"],
            "box_ap50": (row["box"] or {}).get("ap50"),
            "mask_ap50": (row["mask"] or {}).get("ap50"),
        }
        for row in answer["classes"]
    }
    return kept


def known_to(pictures: Sequence[Labelled], classes: Collection[int]) -> list[Labelled]:
    """Keep the pictures all of whose defects are of ``classes``; weights that know no others are measured on them."""
    return [replace(p) for p in pictures if set(p.labels.tolist()) <= set(classes)]
