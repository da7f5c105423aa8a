"""One flag for each place: of several boxes round one object that has no label, the likeliest speaks for all."""

from __future__ import annotations

import numpy as np

from autolabel.geometry import box_areas
from autolabel.quality.material import Evidence
from autolabel.quality.ragged import Flags, Ints, Reals, overlapping, pair_intersections, starts_of

_SAME_PLACE = 0.3
_PART = 0.7
"""Share of the smaller of two boxes of one class inside the larger, from which on they are one object or its part."""


def one_a_place(evidence: Evidence, rows: Ints, label: Ints, error: Reals, images: int) -> Flags:
    """Tell which of ``rows`` ``(C,)`` of the evidence, in order of images, have no likelier one at their place.

    ``label`` and ``error`` ``(C,)`` are their classes and how likely each is. A box that a likelier one silences
    silences no other: of a chain along a scratch every second one may remain.
    """
    boxes = evidence.boxes_xyxy[rows]
    starts = starts_of(evidence.image[rows], images)
    a, b, iou = overlapping(boxes, starts, boxes, starts)
    areas = box_areas(boxes)
    shared = pair_intersections(boxes[a], boxes[b]) / np.maximum(np.minimum(areas[a], areas[b]), 1e-9)
    close = (a != b) & ((iou >= _SAME_PLACE) | ((shared >= _PART) & (label[a] == label[b])))
    rivals: dict[int, list[int]] = {}
    for first, second in zip(a[close].tolist(), b[close].tolist(), strict=True):
        rivals.setdefault(first, []).append(second)
    kept = np.ones(len(rows), np.bool_)
    for row in np.argsort(-error, kind="stable").tolist():
        if kept[row]:
            kept[rivals.get(row, [])] = False
    return kept
