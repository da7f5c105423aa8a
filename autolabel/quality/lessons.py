"""What the box judgements learn from: features of planted errors beside those of the labels as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from autolabel.geometry import box_areas
from autolabel.quality.calibrate import folds_of, logit
from autolabel.quality.material import Labels, Pictures
from autolabel.quality.opinions import MATCH_IOU, Opinions, surroundings
from autolabel.quality.plant import RATE, Planted, plant
from autolabel.quality.ragged import Flags, Ints, Reals, best_of, overlapping
from autolabel.quality.support import support_of

_ENOUGH_PLANTED = 4_000
_MOST_ROUNDS = 12
_MOST_LABELS = 30_000
_SAME_SPOT = 0.7


@dataclass(frozen=True, slots=True)
class Lessons:
    """Rows to learn from: of labels (features, planted kind, fold, class) and of evidence without one.

    ``lost`` says which of the latter lie where a label was dropped, ``free_image`` in which image of which round.
    Of each image of each round ``(R · I,)``: how many labels it has left, and whether any was dropped.
    """

    features: Reals
    kind: Ints
    fold: Ints
    label: Ints
    free_features: Reals
    lost: Flags
    free_fold: Ints
    free_label: Ints
    free_image: Ints
    image_labels: Ints
    image_lacks: Flags
    image_fold: Ints
    rounds: int


def lessons_of(labels: Labels, opinions: Opinions, pictures: Pictures, seed: int) -> Lessons:
    """Plant errors in several copies of a small set, or in one of a part of a large one."""
    if len(labels) > _MOST_LABELS:
        labels, opinions = _part(labels, opinions, pictures, seed)
    rounds = int(np.clip(np.ceil(_ENOUGH_PLANTED / max(len(labels) * RATE * 3, 1)), 1, _MOST_ROUNDS))
    shadowed = shadowed_of(opinions, len(pictures))
    taught = [
        _round(labels, opinions, pictures, np.random.default_rng([seed, number]), shadowed) for number in range(rounds)
    ]
    columns: list[Any] = [np.concatenate([one[column] for one in taught]) for column in range(12)]
    columns[8] = np.concatenate([one[8] + number * len(pictures) for number, one in enumerate(taught)])
    return Lessons(*[*columns, rounds])


def candidates(
    labels: Labels, opinions: Opinions, pictures: Pictures, shadowed: Flags | None = None
) -> tuple[Ints, Reals]:
    """Evidence rows without a label, the best of each spot, and what is known of them ``(C, F)``.

    ``shadowed`` ``(M,)`` is what `shadowed_of` says of the evidence, where that is known.
    """
    evidence, images = opinions.evidence, len(pictures)
    near = surroundings(evidence, labels, images)
    shadowed = shadowed_of(opinions, images) if shadowed is None else shadowed
    rows = np.flatnonzero(near.free & ~shadowed)
    z = logit(opinions.object[rows], 0.001)
    scale = np.sqrt(pictures.sizes_wh.prod(1))[evidence.image[rows]]
    columns = [
        z,
        z * z,
        near.any_iou[rows],
        near.same_iou[rows],
        near.same_iou[rows] > 0.1,
        near.inside_same[rows],
        near.inside_any[rows],
        near.around_same[rows],
        logit(opinions.certain[rows]),
        np.log(np.sqrt(np.maximum(box_areas(evidence.boxes_xyxy[rows]), 1)) / scale),
        *_counted(labels, opinions, np.flatnonzero(~shadowed), rows),
    ]
    return rows, np.column_stack([np.asarray(column, np.float64) for column in columns])


def _counted(labels: Labels, opinions: Opinions, one_each: Ints, rows: Ints) -> list[Reals]:
    """Count labels and expected objects round candidates ``(C,)``: in the image, and of the class in it.

    Where ten are expected and six are labelled, a candidate is more likely to be a lost label than a false alarm.
    ``one_each`` are evidence rows, one for each spot.
    """
    evidence, classes = opinions.evidence, opinions.classes
    real = np.flatnonzero(~labels.crowd & (labels.label >= 0))
    columns = []
    for of_label, of_evidence in (
        (labels.image, evidence.image),
        (labels.image * classes + labels.label, evidence.image * classes + evidence.label),
    ):
        groups, place = np.unique(np.concatenate([of_label[real], of_evidence]), return_inverse=True)
        given = np.bincount(place[: len(real)], minlength=len(groups))
        place = place[len(real) :]
        expected = np.bincount(place[one_each], opinions.object[one_each], len(groups))
        given, expected = np.log1p(given[place[rows]]), np.log1p(expected[place[rows]])
        columns += [given, expected, expected - given]
    return [*columns, columns[3] == 0]


def _round(
    labels: Labels, opinions: Opinions, pictures: Pictures, rng: np.random.Generator, shadowed: Flags
) -> tuple[Any, ...]:
    planted = plant(labels, pictures, opinions.classes, rng)
    made = planted.labels
    taught = ~made.crowd
    rows, free = candidates(made, opinions, pictures, shadowed)
    evidence = opinions.evidence
    return (
        support_of(made, opinions, pictures).features[taught],
        planted.kind[taught],
        folds_of(made.image[taught]),
        made.label[taught],
        free,
        _lost(planted, labels, opinions, rows, len(pictures)),
        folds_of(evidence.image[rows]),
        evidence.label[rows],
        evidence.image[rows],
        labels_left(made, len(pictures)),
        np.bincount(labels.image[planted.dropped], minlength=len(pictures)) > 0,
        folds_of(np.arange(len(pictures))),
    )


def labels_left(labels: Labels, images: int) -> Ints:
    """Count each image's labels ``(I,)``; crowds are none."""
    return np.asarray(np.bincount(labels.image[~labels.crowd], minlength=images), np.int64)


def _lost(planted: Planted, labels: Labels, opinions: Opinions, rows: Ints, images: int) -> Flags:
    """Tell which candidates ``(C,)`` lie where a label was dropped."""
    gone = planted.dropped
    dropped = labels.with_boxes(labels.image[gone], labels.boxes_xyxy[gone], labels.label[gone])
    free = opinions.evidence.take(rows)
    _, e, iou = overlapping(dropped.boxes_xyxy, dropped.starts(images), free.boxes_xyxy, free.starts(images))
    return best_of(e, iou, len(rows)) >= MATCH_IOU


def shadowed_of(opinions: Opinions, images: int) -> Flags:
    """Tell for which evidence ``(M,)`` a likelier box of the same spot speaks."""
    evidence = opinions.evidence
    starts = evidence.starts(images)
    a, b, _ = overlapping(evidence.boxes_xyxy, starts, evidence.boxes_xyxy, starts, floor=_SAME_SPOT)
    better = (opinions.object[b] > opinions.object[a]) | ((opinions.object[b] == opinions.object[a]) & (b < a))
    return best_of(a[better], np.ones(int(better.sum()), np.float32), len(evidence)) > 0


def _part(labels: Labels, opinions: Opinions, pictures: Pictures, seed: int) -> tuple[Labels, Opinions]:
    """Take whole images at random until there are labels enough."""
    order = np.random.default_rng(seed).permutation(len(pictures))
    counts = np.bincount(labels.image, minlength=len(pictures))[order]
    chosen = np.zeros(len(pictures), np.bool_)
    chosen[order[: int(np.searchsorted(np.cumsum(counts), _MOST_LABELS)) + 1]] = True
    mine = chosen[labels.image]
    part = labels.with_boxes(labels.image[mine], labels.boxes_xyxy[mine], labels.label[mine], labels.crowd[mine])
    return part, opinions.take(np.flatnonzero(chosen[opinions.evidence.image]))
