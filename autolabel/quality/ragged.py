"""Boxes of many images at once: flat arrays with an image index, and every pair of boxes that share an image.

cleanlab's detection scores loop over pairs in Python; here a pair is a row of an array.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from autolabel.types import Float

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
PAIRS = 2_000_000
"""Most pairs held at once; an image with more is taken alone."""


def starts_of(images: Ints, count: int) -> Ints:
    """Where each image's rows begin in ``images`` ``(N,)``, which is sorted; ``(count + 1,)``."""
    return np.searchsorted(images, np.arange(count + 1)).astype(np.int64)


def pairs(a_starts: Ints, b_starts: Ints, limit: int = PAIRS) -> Iterator[tuple[Ints, Ints]]:
    """Yield rows ``(P,)``, ``(P,)`` of all pairs that share an image, of as many whole images as ``limit`` holds.

    Pairs are ordered by the row of ``a``, then of ``b``.
    """
    a_counts, b_counts = np.diff(a_starts), np.diff(b_starts)
    ends = np.cumsum(a_counts * b_counts)
    first = 0
    while first < len(ends):
        base = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, base + limit, side="right")), first + 1)
        rows = np.arange(a_starts[first], a_starts[last])
        image = np.repeat(np.arange(first, last), a_counts[first:last])
        width = b_counts[image]
        a = np.repeat(rows, width)
        offsets = np.arange(len(a)) - np.repeat(np.cumsum(width) - width, width)
        yield a, np.repeat(b_starts[image], width) + offsets
        first = last


def pair_iou(a_xyxy: Float, b_xyxy: Float) -> Float:
    """Row by row intersection over union ``(P,)`` of two ``(P, 4)`` px arrays; 0 where both boxes are empty."""
    inter = pair_intersections(a_xyxy, b_xyxy)
    union = _areas(a_xyxy) + _areas(b_xyxy) - inter
    iou: Float = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return iou


def pair_intersections(a_xyxy: Float, b_xyxy: Float) -> Float:
    """Row by row intersection areas ``(P,)`` px² of two ``(P, 4)`` px arrays."""
    width = np.minimum(a_xyxy[:, 2], b_xyxy[:, 2]) - np.maximum(a_xyxy[:, 0], b_xyxy[:, 0])
    height = np.minimum(a_xyxy[:, 3], b_xyxy[:, 3]) - np.maximum(a_xyxy[:, 1], b_xyxy[:, 1])
    inter: Float = np.clip(width, 0, None) * np.clip(height, 0, None)
    return inter


def overlapping(
    a_xyxy: Float, a_starts: Ints, b_xyxy: Float, b_starts: Ints, floor: float = 0.0
) -> tuple[Ints, Ints, Float]:
    """Rows of all pairs that share an image and have an IoU over ``floor``, with the IoU; ordered by a, then b."""
    found: list[tuple[Ints, Ints, Float]] = []
    for a, b in pairs(a_starts, b_starts):
        iou = pair_iou(a_xyxy[a], b_xyxy[b])
        near = iou > floor
        found.append((a[near], b[near], iou[near]))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    a_rows, b_rows, ious = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return a_rows, b_rows, ious.astype(np.float32)


def best_of(rows: Ints, values: Float, count: int, default: float = 0.0) -> Float:
    """Return the largest of ``values`` ``(P,)`` for each of ``count`` rows; ``default`` where there is none."""
    best = np.full(count, default, np.float32)
    np.maximum.at(best, rows, values)
    return best


def best_place(rows: Ints, values: Float, count: int) -> Ints:
    """Place in ``values`` of each row's largest one, ``(count,)``; -1 where a row has none. Ties go to the first."""
    order = np.lexsort((-np.arange(len(rows)), values, rows))
    place = np.full(count, -1, np.int64)
    place[rows[order]] = order  # the last write wins: the largest
    return place


def _areas(boxes_xyxy: Float) -> Float:
    sides = np.clip(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0, None)
    areas: Float = sides[:, 0] * sides[:, 1]
    return areas
