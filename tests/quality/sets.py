"""Invented sets of labels and evidence, as arrays and as files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from autolabel.quality.material import Evidence, Labels, Pictures

NAMES = ("scratch", "dent", "rust")
SIDE = 400


def labels_of(image, boxes, label, *, human=None, crowd=None) -> Labels:
    count = len(image)
    none = np.zeros(count, np.bool_)
    return Labels(
        np.asarray(image, np.int64),
        np.asarray(boxes, np.float32).reshape(-1, 4),
        np.asarray(label, np.int64),
        [str(n) for n in range(count)],
        none if human is None else np.asarray(human, np.bool_),
        none if crowd is None else np.asarray(crowd, np.bool_),
    )


def evidence_of(image, boxes, label, score) -> Evidence:
    return Evidence(
        np.asarray(image, np.int64),
        np.asarray(boxes, np.float32).reshape(-1, 4),
        np.asarray(label, np.int64),
        np.asarray(score, np.float32),
        np.zeros(len(image), np.int64),
        ("other",),
    )


def pictures(count: int) -> Pictures:
    sizes = np.full((count, 2), SIDE, np.float32)
    return Pictures(tuple(f"{n:03d}.png" for n in range(count)), ("",) * count, sizes)


def grid(images: int, seed: int = 0) -> tuple[Labels, Evidence, Pictures]:
    """Four objects an image in four quarters, and a detector that sees nine of ten of them, with a little noise."""
    rng = np.random.default_rng(seed)
    corner = np.tile(np.array([[20, 20], [220, 20], [20, 220], [220, 220]], np.float32), (images, 1))
    corner += rng.uniform(0, 60, corner.shape)
    boxes = np.concatenate([corner, corner + rng.uniform(50, 90, corner.shape)], 1).astype(np.float32)
    image = np.repeat(np.arange(images), 4)
    label = rng.integers(0, len(NAMES), len(image))
    seen = rng.random(len(image)) < 0.9
    jitter = rng.normal(0, 3, boxes.shape).astype(np.float32)
    found = np.where(rng.random(len(image)) < 0.05, rng.integers(0, len(NAMES), len(image)), label)
    evidence = evidence_of(image[seen], (boxes + jitter)[seen], found[seen], rng.uniform(0.4, 0.95, len(image))[seen])
    return labels_of(image, boxes, label), evidence, pictures(images)


def write_coco(path: Path, labels: Labels, count: int) -> Path:
    """Write labels as COCO instances; ids of images and categories count from 1."""
    rows = [
        {"id": int(key), "image_id": int(i) + 1, "category_id": int(k) + 1, "bbox": _xywh(box), "iscrowd": int(crowd)}
        for key, i, k, box, crowd in zip(
            labels.ids, labels.image, labels.label, labels.boxes_xyxy, labels.crowd, strict=True
        )
    ]
    images = [{"id": n + 1, "file_name": f"{n:03d}.png", "width": SIDE, "height": SIDE} for n in range(count)]
    categories = [{"id": n + 1, "name": name} for n, name in enumerate(NAMES)]
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return path


def write_results(path: Path, evidence: Evidence) -> Path:
    """Write evidence as COCO results."""
    rows = [
        {"image_id": int(i) + 1, "category_id": int(k) + 1, "bbox": _xywh(box), "score": float(score)}
        for i, k, box, score in zip(evidence.image, evidence.label, evidence.boxes_xyxy, evidence.score, strict=True)
    ]
    path.write_text(json.dumps(rows))
    return path


def _xywh(box) -> list[float]:
    x0, y0, x1, y1 = (float(v) for v in box)
    return [x0, y0, x1 - x0, y1 - y0]
