"""Boxes of many images at once: flat arrays with an image index, and every pair of boxes that share an image.

cleanlab's detection scores loop over pairs in Python; here a pair is a row of an array.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autolabel.geometry import box_areas
from autolabel.types import Float

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Reals = NDArray[np.floating[Any]]
CELLS = 200_000
"""Most cells of a table of pairs held at once; an image with more is taken alone."""


def starts_of(images: Ints, count: int) -> Ints:
    """Where each image's rows begin in ``images`` ``(N,)``, which is sorted; ``(count + 1,)``."""
    return np.searchsorted(images, np.arange(count + 1)).astype(np.int64)


def pair_iou(a_xyxy: Float, b_xyxy: Float) -> Reals:
    """Row by row intersection over union ``(P,)`` of two ``(P, 4)`` px arrays; 0 where both boxes are empty."""
    inter = pair_intersections(a_xyxy, b_xyxy)
    union = box_areas(a_xyxy) + box_areas(b_xyxy) - inter
    iou: Float = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return iou


def pair_intersections(a_xyxy: Float, b_xyxy: Float) -> Reals:
    """Row by row intersection areas ``(P,)`` px² of two ``(P, 4)`` px arrays."""
    width = np.minimum(a_xyxy[:, 2], b_xyxy[:, 2]) - np.maximum(a_xyxy[:, 0], b_xyxy[:, 0])
    height = np.minimum(a_xyxy[:, 3], b_xyxy[:, 3]) - np.maximum(a_xyxy[:, 1], b_xyxy[:, 1])
    inter: Float = np.clip(width, 0, None) * np.clip(height, 0, None)
    return inter


def overlapping(
    a_xyxy: Float, a_starts: Ints, b_xyxy: Float, b_starts: Ints, floor: float = 0.0
) -> tuple[Ints, Ints, Reals]:
    """Rows of all pairs that share an image and have an IoU over ``floor``, with the IoU; ordered by a, then b.

    Several images at once are padded to one table of boxes by boxes; only pairs that touch are looked at further.
    """
    a_areas, b_areas = box_areas(a_xyxy), box_areas(b_xyxy)
    rows: list[tuple[Ints, Ints, Reals]] = []
    for first, last in _tables(np.diff(a_starts), np.diff(b_starts)):
        a_rows, a = _padded(a_xyxy, a_starts[first : last + 1])
        b_rows, b = _padded(b_xyxy, b_starts[first : last + 1])
        low, high = np.maximum(a[0][:, :, None], b[0][:, None, :]), np.minimum(a[2][:, :, None], b[2][:, None, :])
        touch = high > low
        np.maximum(a[1][:, :, None], b[1][:, None, :], out=low)
        np.minimum(a[3][:, :, None], b[3][:, None, :], out=high)
        touch &= high > low
        image, cell = np.divmod(np.flatnonzero(touch), touch.shape[1] * touch.shape[2])
        i, j = np.divmod(cell, touch.shape[2])
        a_row, b_row = a_rows[image, i], b_rows[image, j]
        inter = pair_intersections(a_xyxy[a_row], b_xyxy[b_row])
        iou = inter / np.maximum(a_areas[a_row] + b_areas[b_row] - inter, 1e-12)
        near = iou > floor
        rows.append((a_row[near], b_row[near], iou[near].astype(np.float32)))
    if not rows:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    found_a, found_b, ious = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    return found_a, found_b, ious


def _tables(a_counts: Ints, b_counts: Ints) -> Iterator[tuple[int, int]]:
    """Split images into runs whose padded tables hold at most `CELLS`; images without pairs pad nothing."""
    first, most_a, most_b = 0, 0, 0
    for number, (a, b) in enumerate(zip(a_counts.tolist(), b_counts.tolist(), strict=True)):
        wider_a, wider_b = max(most_a, a), max(most_b, b)
        if number > first and (number + 1 - first) * wider_a * wider_b > CELLS:
            if most_a and most_b:
                yield first, number
            first, wider_a, wider_b = number, a, b
        most_a, most_b = wider_a, wider_b
    if most_a and most_b:
        yield first, len(a_counts)


def _padded(boxes_xyxy: Float, starts: Ints) -> tuple[Ints, NDArray[np.float32]]:
    """Rows ``(I, n)`` and coordinates ``(4, I, n)`` of images' boxes; what is missing touches nothing."""
    counts = np.diff(starts)
    places = np.arange(int(counts.max()))
    rows = starts[:-1, None] + places
    missing = places >= counts[:, None]
    rows[missing] = 0
    boxes = np.ascontiguousarray(np.moveaxis(boxes_xyxy[rows].astype(np.float32, copy=False), 2, 0))
    boxes[:, missing] = np.array([np.inf, np.inf, -np.inf, -np.inf], np.float32)[:, None]
    return rows, boxes


def best_of(rows: Ints, values: Reals, count: int, default: float = 0.0) -> Reals:
    """Return the largest of ``values`` ``(P,)`` for each of ``count`` rows; ``default`` where there is none."""
    best = np.full(count, default, np.float32)
    np.maximum.at(best, rows, values)
    return best


def best_place(rows: Ints, values: Reals, count: int) -> Ints:
    """Place in ``values`` of each row's largest one, ``(count,)``; -1 where a row has none. Ties go to the first."""
    order = np.lexsort((-np.arange(len(rows)), values, rows))
    place = np.full(count, -1, np.int64)
    place[rows[order]] = order  # the last write wins: the largest
    return place
