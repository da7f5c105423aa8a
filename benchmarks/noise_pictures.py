"""Procedural pictures with exact labels for the noise benchmark, and a run of the starter pack over them.

``python -m benchmarks.noise_pictures --split test --count 300 --out FOLDER`` writes ``FOLDER/images``,
``FOLDER/coco.json`` and ``FOLDER/run``. The bundled weights know both editions: the first has six classes, the second
ten. The seeds are those of the training's own split, so no picture of the test split was seen by a model or by whoever
chose a threshold.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def _make(job: tuple[str, int, str]) -> dict[str, Any]:
    """Write one picture; return its size and its labels with masks as COCO RLE."""
    import cv2
    from pycocotools import mask as coco_mask

    from training.generator import generate
    from training.generator.editions import EDITIONS
    from training.natural import natural_size

    folder, seed = Path(job[0]), job[1]
    cv2.setNumThreads(1)
    scene = generate(seed, natural_size(seed), edition=EDITIONS[job[2]])
    cv2.imwrite(str(folder / f"{seed}.jpg"), scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    height, width = scene.image.shape[:2]
    found = []
    for instance in scene.instances:
        rle = coco_mask.encode(instance.mask.astype("uint8", order="F"))
        x0, y0, x1, y1 = map(float, instance.box_xyxy())
        found.append(
            {
                "label": instance.label,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": int(instance.mask.sum()),
                "segmentation": {"size": [height, width], "counts": rle["counts"].decode("ascii")},
            }
        )
    return {"file_name": f"{seed}.jpg", "width": width, "height": height, "surface": scene.surface, "found": found}


def make_pictures(
    split: str, count: int, out: Path, workers: int, *, first: int = 0, edition: str | None = None
) -> Path:
    """Write ``count`` pictures of a split, from its ``first`` on, and their COCO labels; returns the labels' file."""
    from training.generator.editions import EDITIONS, SAMPLES
    from training.processes import process_pool
    from training.seeds import SPLITS

    chosen = EDITIONS[edition] if edition else SAMPLES

    folder = out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(str(folder), SPLITS[split].start + first + i, chosen.name) for i in range(count)]
    with process_pool(workers) as pool:
        pictures = list(pool.map(_make, jobs, chunksize=4))
    images, annotations = [], []
    for number, picture in enumerate(pictures, 1):
        found = picture.pop("found")
        images.append({"id": number, **picture})
        for one in found:
            category = chosen.classes.index(one.pop("label")) + 1
            key = len(annotations) + 1
            annotations.append({"id": key, "image_id": number, "category_id": category, "iscrowd": 0, **one})
    categories = [{"id": i, "name": name} for i, name in enumerate(chosen.classes, 1)]
    path = out / "coco.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=["train", "validation", "test"], default="test")
    parser.add_argument("--first", type=int, default=0, help="skip so many seeds of the split")
    parser.add_argument("--edition", choices=["first", "second"], help="default: that of the sample pictures")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    coco = make_pictures(
        arguments.split,
        arguments.count,
        arguments.out,
        arguments.workers,
        first=arguments.first,
        edition=arguments.edition,
    )
    import autolabel

    names = [category["name"] for category in json.loads(coco.read_text())["categories"]]
    autolabel.run(str(arguments.out / "images"), prompt=". ".join(names) + ".", path=str(arguments.out / "run"))


if __name__ == "__main__":
    main()
