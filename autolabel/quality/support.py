"""What the evidence says about each label: features ``(N, F)`` from every overlapping pair of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autolabel.quality.calibrate import Doubles, logit
from autolabel.quality.material import Labels, Pictures
from autolabel.quality.opinions import MATCH_IOU, Opinions
from autolabel.quality.ragged import Flags, Ints, best_of, best_place, overlapping
from autolabel.types import Float

_NEAR = 0.05
_SOME = 0.2


@dataclass(frozen=True, slots=True)
class Support:
    """Features of N labels, and for each the evidence box that fits best (-1: none), its IoU, and the likeliest other class."""

    features: Doubles
    place: Ints
    other: Ints
    iou: Float


def support_of(labels: Labels, opinions: Opinions, pictures: Pictures) -> Support:
    """Gather the evidence about each label."""
    evidence, images, count = opinions.evidence, len(pictures), len(labels)
    starts = labels.starts(images)
    rows, e, iou = overlapping(labels.boxes_xyxy, starts, evidence.boxes_xyxy, evidence.starts(images), floor=_NEAR)
    k = labels.label[rows]
    there = opinions.object[e]
    same = there * opinions.of_class(e, k)
    another, other_class = opinions.of_another(e, k)
    another = there * another
    # Evidence that fits another label better is that label's.
    best = best_of(e, iou, len(evidence))
    owned = iou >= best[e] - 1e-6
    half, three_quarters, some = iou >= MATCH_IOU, iou >= 0.75, iou >= _SOME

    def most(values: Float, chosen: Flags) -> Float:
        return best_of(rows[chosen], values[chosen], count)

    place = best_place(rows, there * np.sqrt(iou) * np.where(owned, 1.0, 0.3), count)
    found = place >= 0
    at = np.maximum(place, 0)
    if len(rows) == 0:
        rows_iou = star = star_same = star_other = np.zeros(count, np.float32)
        suggestion = np.full(count, -1, np.int64)
        middle = np.zeros(count, np.float32)
    else:
        rows_iou = np.where(found, iou[at], 0)
        star = np.where(found, there[at], 0)
        star_same, star_other = np.where(found, same[at], 0), np.where(found, another[at], 0)
        suggestion = np.where(found, other_class[at], -1)
        middle = _consensus(labels, evidence.boxes_xyxy[e], rows, (there**2) * owned * some, count)
    size = np.log(np.sqrt(np.maximum(_areas(labels.boxes_xyxy), 1)) / np.sqrt(pictures.sizes_wh.prod(1))[labels.image])
    among, among_same = _among_labels(labels, starts)
    columns = [
        logit(most(same, half)),
        logit(most(there, half)),
        logit(most(another, half)),
        logit(most(same, some & owned)),
        logit(most(another, some & owned)),
        logit(most(there, three_quarters)),
        logit(most(same, three_quarters)),
        logit(most(there, owned & ~half)),
        logit(most(same, owned & ~half)),
        logit(star),
        logit(star_other) - logit(star_same),
        rows_iou,
        rows_iou * star,
        np.maximum(rows_iou - 0.6, 0),
        np.maximum(rows_iou - 0.8, 0),
        middle,
        middle * star,
        most(iou * same, some),
        most(iou * there, some),
        most(iou, some),
        size,
        size * rows_iou,
        among,
        among_same,
    ]
    features = np.column_stack([np.asarray(column, np.float64) for column in columns])
    return Support(features, np.where(found, e[at] if len(e) else -1, -1), suggestion, rows_iou)


def _consensus(labels: Labels, boxes_xyxy: Float, rows: Ints, weights: Float, count: int) -> Float:
    """IoU ``(N,)`` of each label with the weighted mean of the boxes that speak of it; 0 where none does."""
    from autolabel.quality.ragged import pair_iou

    total = np.bincount(rows, weights, count)
    mean = np.stack([np.bincount(rows, weights * boxes_xyxy[:, i], count) for i in range(4)], axis=1)
    mean /= np.maximum(total, 1e-9)[:, None]
    return np.where(total > 1e-9, pair_iou(labels.boxes_xyxy, mean.astype(np.float32)), 0).astype(np.float32)


def _among_labels(labels: Labels, starts: Ints) -> tuple[Float, Float]:
    a, b, iou = overlapping(labels.boxes_xyxy, starts, labels.boxes_xyxy, starts, floor=_SOME)
    other = a != b
    a, b, iou = a[other], b[other], iou[other]
    same = labels.label[a] == labels.label[b]
    return best_of(a, iou, len(labels)), best_of(a[same], iou[same], len(labels))


def _areas(boxes_xyxy: Float) -> Float:
    sides = np.clip(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0, None)
    areas: Float = sides[:, 0] * sides[:, 1]
    return areas
