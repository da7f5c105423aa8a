"""Box metrics: IoU, average precision at IoU 0.5, and the score threshold with the best F1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Found:
    """Detections of one picture: boxes ``(N, 4)`` px xyxy, scores ``(N, K)`` in 0..1 per class."""

    boxes: Floats
    scores: Floats


@dataclass(frozen=True, slots=True)
class Report:
    """AP50 and recall per class, their means, and the threshold on scores with the best F1 over all classes."""

    ap50: dict[str, float]
    recall: dict[str, float]
    mean_ap50: float
    best_f1: float
    best_threshold: float


def box_iou(first: Floats, second: Floats) -> Floats:
    """IoU of every pair, ``(N, M)``."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [np.prod(np.clip(b[:, 2:] - b[:, :2], 0, None), axis=-1) for b in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - overlap
    return np.asarray(overlap / np.maximum(union, 1e-9), dtype=np.float32)


def suppress(boxes: Floats, scores: Floats, iou: float = 0.7) -> NDArray[np.int64]:
    """Return the indices kept by greedy non-maximum suppression, best first."""
    order = np.argsort(-scores)
    overlap = box_iou(boxes, boxes)
    kept: list[int] = []
    for index in order:
        if all(overlap[index, k] <= iou for k in kept):
            kept.append(int(index))
    return np.asarray(kept, np.int64)


def evaluate(found: list[Found], truth: list[tuple[Floats, NDArray[np.int64]]], names: tuple[str, ...]) -> Report:
    """Compare detections with ground truth ``(boxes, labels)``; each detection counts for its best class, after NMS."""
    rows: dict[int, list[tuple[float, bool]]] = {k: [] for k in range(len(names))}
    totals = dict.fromkeys(range(len(names)), 0)
    for detections, (boxes, labels) in zip(found, truth, strict=True):
        best = detections.scores.argmax(axis=1) if len(detections.scores) else np.zeros(0, np.int64)
        for k in range(len(names)):
            wanted = boxes[labels == k]
            totals[k] += len(wanted)
            mine = np.flatnonzero(best == k)
            mine = mine[suppress(detections.boxes[mine], detections.scores[mine, k])] if len(mine) else mine
            overlap = box_iou(detections.boxes[mine], wanted)
            free = np.ones(len(wanted), bool)
            for row, index in enumerate(mine):
                gains = np.where(free, overlap[row], 0.0)
                hit = bool(len(wanted) and gains.max() >= 0.5)
                if hit:
                    free[int(gains.argmax())] = False
                rows[k].append((float(detections.scores[index, k]), hit))
    ap50 = {names[k]: _average_precision(rows[k], totals[k]) for k in rows}
    recall = {names[k]: sum(hit for _, hit in rows[k]) / max(1, totals[k]) for k in rows}
    best_f1, threshold = _best_f1([pair for k in rows for pair in rows[k]], sum(totals.values()))
    return Report(ap50, recall, float(np.mean(list(ap50.values()))), best_f1, threshold)


def _curve(pairs: list[tuple[float, bool]]) -> tuple[Floats, Floats]:
    ordered = sorted(pairs, key=lambda pair: -pair[0])
    hits = np.array([hit for _, hit in ordered], np.float32)
    return np.asarray(np.cumsum(hits), np.float32), np.asarray([score for score, _ in ordered], np.float32)


def _average_precision(pairs: list[tuple[float, bool]], total: int) -> float:
    if not pairs or total == 0:
        return 0.0
    hits, _ = _curve(pairs)
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    recall = np.concatenate([[0.0], hits / total])
    return float(np.sum((recall[1:] - recall[:-1]) * envelope))


def _best_f1(pairs: list[tuple[float, bool]], total: int) -> tuple[float, float]:
    if not pairs or total == 0:
        return 0.0, 0.5
    hits, scores = _curve(pairs)
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + total)
    index = int(f1.argmax())
    return float(f1[index]), float(scores[index])
