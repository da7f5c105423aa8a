"""Box arithmetic on ``(N, 4)`` arrays of ``x_min, y_min, x_max, y_max`` in px."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autolabel.types import Float, Mask


def clip_boxes(boxes_xyxy: Float, size_wh: tuple[int, int]) -> Float:
    """Clip ``(N, 4)`` px boxes into an image of ``size_wh`` px."""
    width, height = size_wh
    limits = np.array([width, height, width, height], np.float32)
    clipped: Float = np.clip(boxes_xyxy, 0.0, limits).astype(np.float32)
    return clipped


def mask_boxes(masks: Sequence[Mask | None]) -> Float:
    """Smallest boxes around masks ``(N, 4)`` px, NaN where there is none or an empty one.

    Edges of pixels, not their middles: a mask of the one pixel (3, 5) has the box 3, 5, 4, 6.
    """
    from pycocotools import mask as coco_mask

    boxes = np.full((len(masks), 4), np.nan, np.float32)
    there = [place for place, mask in enumerate(masks) if mask is not None]
    if there:
        around = coco_mask.toBbox([mask.to_coco() for mask in masks if mask is not None])
        around[:, 2:] += around[:, :2]
        around[(around[:, 2:] <= around[:, :2]).any(axis=1)] = np.nan
        boxes[there] = around
    return boxes


def box_areas(boxes_xyxy: Float) -> Float:
    """Areas ``(..., N)`` in px²; an inverted box has area 0."""
    sides = np.clip(boxes_xyxy[..., 2:] - boxes_xyxy[..., :2], 0.0, None)
    areas: Float = sides[..., 0] * sides[..., 1]
    return areas


def intersections(a_xyxy: Float, b_xyxy: Float) -> Float:
    """Pairwise intersection areas ``(..., N, M)`` in px², within each of any leading dimensions."""
    low = np.maximum(a_xyxy[..., :, None, 0], b_xyxy[..., None, :, 0])
    widths = np.clip(np.minimum(a_xyxy[..., :, None, 2], b_xyxy[..., None, :, 2]) - low, 0.0, None)
    low = np.maximum(a_xyxy[..., :, None, 1], b_xyxy[..., None, :, 1])
    heights = np.clip(np.minimum(a_xyxy[..., :, None, 3], b_xyxy[..., None, :, 3]) - low, 0.0, None)
    areas: Float = widths * heights
    return areas


def box_iou(a_xyxy: Float, b_xyxy: Float) -> Float:
    """Pairwise intersection over union ``(..., N, M)``; 0 where both boxes are empty."""
    inter = intersections(a_xyxy, b_xyxy)
    union = box_areas(a_xyxy)[..., :, None] + box_areas(b_xyxy)[..., None, :] - inter
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


def suppress_ranked(conflicts: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Greedy suppression in B groups at once, the members of each ranked from the best.

    ``conflicts`` is ``(B, M, M)`` and symmetric. Returns ``(B, M)``: kept or not; as `suppress` does in each group.
    """
    kept = np.ones(conflicts.shape[:2], np.bool_)
    for rank in range(conflicts.shape[1] - 1):
        kept[:, rank + 1 :] &= ~(conflicts[:, rank, rank + 1 :] & kept[:, rank, None])
    return kept
