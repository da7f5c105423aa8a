"""Labels that contradict each other: one region with two labels, the same thing twice, a box inside a box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autolabel.geometry import box_areas
from autolabel.quality.material import Labels
from autolabel.quality.ragged import Flags, Ints, Reals, overlapping, pair_intersections

SAME_REGION = 0.8
INSIDE = 0.95
_LEAST_SHARE = 0.25
"""An inner box smaller than this share of the outer is more likely a part, or something standing before it."""


@dataclass(frozen=True, slots=True)
class Conflicts:
    """P pairs of labels ``first < second``, with quality in [0, 1], a flag, and what is wrong."""

    first: Ints
    second: Ints
    quality: Reals
    flagged: Flags
    reasons: tuple[str, ...]


def find_conflicts(labels: Labels, images: int, names: tuple[str, ...]) -> Conflicts:
    """Compare all labels of an image with each other; crowds are left out."""
    starts = labels.starts(images)
    boxes = labels.shown_xyxy
    a, b, iou = overlapping(boxes, starts, boxes, starts, floor=_LEAST_SHARE * INSIDE)
    judged = (a < b) & ~labels.crowd[a] & ~labels.crowd[b] & ~(labels.human[a] & labels.human[b])
    a, b, iou = a[judged], b[judged], iou[judged]
    areas = box_areas(boxes)
    smaller, larger = np.minimum(areas[a], areas[b]), np.maximum(areas[a], areas[b])
    inside = pair_intersections(boxes[a], boxes[b]) / np.maximum(smaller, 1e-9)
    same = labels.label[a] == labels.label[b]
    region = iou >= SAME_REGION
    nested = ~region & same & (inside >= INSIDE) & (smaller >= _LEAST_SHARE * larger)
    found = region | nested
    a, b, iou, same, region = a[found], b[found], iou[found], same[found], region[found]
    share = (smaller / np.maximum(larger, 1e-9))[found]
    value = np.where(region, iou, share)
    reasons = tuple(
        _reason(names, labels, (int(a[i]), int(b[i])), bool(region[i]), float(value[i])) for i in range(len(a))
    )
    quality = np.where(region, 1 - iou, 1 - share * 0.8).astype(np.float32)
    return Conflicts(a, b, quality, region | (share >= 0.5), reasons)


def _reason(names: tuple[str, ...], labels: Labels, pair: tuple[int, int], region: bool, value: float) -> str:
    first, second = (names[labels.label[row]] for row in pair)
    if region and first == second:
        return f"{first} is labelled twice in one place (IoU {value:.2f})"
    if region:
        return f"one region is both {first} and {second} (IoU {value:.2f})"
    return f"a {first} box lies inside another, {value:.0%} of its size"
