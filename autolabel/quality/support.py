"""What the evidence says about each label: features ``(N, F)`` from every overlapping pair of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autolabel.geometry import box_areas
from autolabel.quality.calibrate import logit
from autolabel.quality.material import Labels, Pictures
from autolabel.quality.opinions import MATCH_IOU, Opinions
from autolabel.quality.ragged import Flags, Ints, Reals, best_of, best_place, overlapping
from autolabel.types import Float

_NEAR = 0.05
_SOME = 0.2


@dataclass(frozen=True, slots=True)
class Support:
    """Features of N labels; for each the evidence that fits best (-1: none), its IoU, and the likeliest other class."""

    features: Reals
    place: Ints
    other: Ints
    iou: Reals


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

    def most(values: Reals, chosen: Flags) -> Reals:
        return best_of(rows[chosen], values[chosen], count)

    place = best_place(rows, there * np.sqrt(iou) * np.where(owned, 1.0, 0.3), count)
    found = place >= 0
    rows_iou, star = _at(iou, place), _at(there, place)
    star_same, star_other = _at(same, place), _at(another, place)
    suggestion = np.full(count, -1, np.int64)
    suggestion[found] = other_class[place[found]]
    best_rows = np.full(count, -1, np.int64)
    best_rows[found] = e[place[found]]
    middle = _consensus(labels, evidence.boxes_xyxy[e], rows, (there**2) * owned * some, count)
    size = np.log(
        np.sqrt(np.maximum(box_areas(labels.boxes_xyxy), 1)) / np.sqrt(pictures.sizes_wh.prod(1))[labels.image]
    )
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
    return Support(features, best_rows, suggestion, rows_iou)


def _at(values: Reals, place: Ints) -> Reals:
    """Return values ``(P,)`` at places ``(N,)``, 0 at place -1."""
    result = np.zeros(len(place), np.float32)
    result[place >= 0] = values[place[place >= 0]]
    return result


def _consensus(labels: Labels, boxes_xyxy: Float, rows: Ints, weights: Reals, count: int) -> Reals:
    """IoU ``(N,)`` of each label with the weighted mean of the boxes that speak of it; 0 where none does."""
    from autolabel.quality.ragged import pair_iou

    total = np.bincount(rows, weights, count)
    mean = np.stack([np.bincount(rows, weights * boxes_xyxy[:, i], count) for i in range(4)], axis=1)
    mean = mean / np.maximum(total, 1e-9)[:, None]
    return np.where(total > 1e-9, pair_iou(labels.boxes_xyxy, mean.astype(np.float32)), 0).astype(np.float32)


def _among_labels(labels: Labels, starts: Ints) -> tuple[Reals, Reals]:
    a, b, iou = overlapping(labels.boxes_xyxy, starts, labels.boxes_xyxy, starts, floor=_SOME)
    other = a != b
    a, b, iou = a[other], b[other], iou[other]
    same = labels.label[a] == labels.label[b]
    return best_of(a, iou, len(labels)), best_of(a[same], iou[same], len(labels))
