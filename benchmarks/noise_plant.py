"""Planted label errors for the benchmark: its own, not those that the noise pass calibrates itself with.

A tenth of the labels each gets another class (any, evenly), is dropped, or is moved by a quarter to a half of its sides
along both axes; as many boxes of sizes that occur are put where no label is.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

RATE = 0.1


@dataclass(frozen=True, slots=True)
class Noisy:
    """A COCO dictionary with errors: ``kind`` of each changed annotation id, and the dropped annotations."""

    coco: dict[str, Any]
    kind: dict[int, str]
    missing: list[dict[str, Any]]


def plant(coco: dict[str, Any], seed: int, rate: float = RATE) -> Noisy:
    """Plant errors; crowd regions stay as they are."""
    rng = np.random.default_rng(seed)
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    categories = [category["id"] for category in coco["categories"]]
    order = rng.permutation([i for i, one in enumerate(coco["annotations"]) if not one.get("iscrowd")])
    share = round(rate * len(order))
    swapped, missing, shifted = order[:share], set(order[share : 2 * share].tolist()), order[2 * share : 3 * share]
    annotations = copy.deepcopy(coco["annotations"])
    kind: dict[int, str] = {}
    for place in swapped:
        one = annotations[place]
        one["category_id"] = int(rng.choice([key for key in categories if key != one["category_id"]]))
        kind[one["id"]] = "swap"
    for place in shifted:
        one = annotations[place]
        one["bbox"] = _moved(one["bbox"], sizes[one["image_id"]], rng)
        kind[one["id"]] = "location"
    kept = [one for place, one in enumerate(annotations) if place not in missing]
    next_id = max(one["id"] for one in annotations) + 1
    for number in range(share):
        made = _invented(annotations, sizes, categories, rng)
        kept.append({"id": next_id + number, "iscrowd": 0, **made})
        kind[next_id + number] = "spurious"
    for one in kept:
        # A mask would give the shifted box away.
        one.pop("segmentation", None)
    lost = [coco["annotations"][place] for place in sorted(missing)]
    return Noisy({**coco, "annotations": kept}, kind, lost)


def _moved(box: list[float], size_wh: tuple[int, int], rng: np.random.Generator) -> list[float]:
    x, y, w, h = box
    for _ in range(100):
        dx, dy = rng.uniform(0.25, 0.5, 2) * rng.choice([-1, 1], 2) * [w, h]
        x0, y0 = max(x + dx, 0), max(y + dy, 0)
        x1, y1 = min(x + dx + w, size_wh[0]), min(y + dy + h, size_wh[1])
        if x1 - x0 > w / 2 and y1 - y0 > h / 2:
            break
    return [float(x0), float(y0), float(max(x1 - x0, 1)), float(max(y1 - y0, 1))]


def _invented(
    annotations: list[dict[str, Any]],
    sizes: dict[int, tuple[int, int]],
    categories: list[int],
    rng: np.random.Generator,
) -> dict[str, Any]:
    images = list(sizes)
    by_image: dict[int, list[list[float]]] = {}
    for one in annotations:
        by_image.setdefault(one["image_id"], []).append(one["bbox"])
    while True:
        image = images[int(rng.integers(len(images)))]
        width, height = sizes[image]
        _, _, w, h = annotations[int(rng.integers(len(annotations)))]["bbox"]
        w, h = min(w, 0.9 * width), min(h, 0.9 * height)
        x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
        if all(_iou([x, y, w, h], other) <= 0.1 for other in by_image.get(image, [])):
            category = int(rng.choice(categories))
            return {"image_id": image, "category_id": category, "bbox": [float(v) for v in (x, y, w, h)]}


def _iou(a: list[float], b: list[float]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    return inter / max(a[2] * a[3] + b[2] * b[3] - inter, 1e-9)
