"""Box arithmetic on ``(N, 4)`` arrays of ``x_min, y_min, x_max, y_max`` in px."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autolabel.types import Float


def clip_boxes(boxes_xyxy: Float, size_wh: tuple[int, int]) -> Float:
    """Clip ``(N, 4)`` px boxes into an image of ``size_wh`` px."""
    width, height = size_wh
    limits = np.array([width, height, width, height], np.float32)
    clipped: Float = np.clip(boxes_xyxy, 0.0, limits).astype(np.float32)
    return clipped


def box_areas(boxes_xyxy: Float) -> Float:
    """Areas ``(N,)`` in px²; an inverted box has area 0."""
    sides = np.clip(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0.0, None)
    areas: Float = sides[:, 0] * sides[:, 1]
    return areas


def intersections(a_xyxy: Float, b_xyxy: Float) -> Float:
    """Pairwise intersection areas ``(N, M)`` in px²."""
    top_left = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    bottom_right = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    sides = np.clip(bottom_right - top_left, 0.0, None)
    areas: Float = sides[..., 0] * sides[..., 1]
    return areas


def box_iou(a_xyxy: Float, b_xyxy: Float) -> Float:
    """Pairwise intersection over union ``(N, M)``; 0 where both boxes are empty."""
    inter = intersections(a_xyxy, b_xyxy)
    union = box_areas(a_xyxy)[:, None] + box_areas(b_xyxy)[None, :] - inter
    iou: Float = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return iou


def suppress(scores: Float, conflicts: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Greedy suppression: go through ``(N,)`` scores from the best, drop what conflicts with a kept one.

    ``conflicts`` is a symmetric ``(N, N)`` matrix. Returns the places kept, best first; equal scores keep their order.
    """
    alive = np.ones(len(scores), dtype=np.bool_)
    kept: list[int] = []
    for place in np.argsort(-scores, kind="stable"):
        if alive[place]:
            kept.append(int(place))
            alive &= ~conflicts[place]
    return np.array(kept, dtype=np.int64)
