"""Box arithmetic on ``(N, 4)`` arrays of ``x_min, y_min, x_max, y_max`` in px."""

from __future__ import annotations

import numpy as np

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


def nms(boxes_xyxy: Float, scores: Float, iou_threshold: float) -> list[int]:
    """Greedy non-maximum suppression: indices kept, best score first; equal scores keep their order.

    A box is dropped when its IoU with a kept box is strictly above ``iou_threshold``.
    """
    order = np.argsort(-scores, kind="stable")
    iou = box_iou(boxes_xyxy, boxes_xyxy)
    alive = np.ones(len(order), dtype=np.bool_)
    kept: list[int] = []
    for index in order:
        if not alive[index]:
            continue
        kept.append(int(index))
        alive &= iou[index] <= iou_threshold
        alive[index] = False
    return kept
