"""Errors of boxes: overlooked, location, swap, spurious.

Quality is one minus the posterior probability of the error. The comparison that yields it is fitted to errors planted
in the labels of other images (`lessons`), with the share of errors estimated from the labels at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autolabel.quality.calibrate import FOLDS, Curve, folds_of
from autolabel.quality.lessons import candidates, lessons_of
from autolabel.quality.material import Labels, Pictures
from autolabel.quality.opinions import MATCH_IOU, Opinions
from autolabel.quality.plant import INVENTED, RATE, SHIFTED, SWAPPED
from autolabel.quality.ragged import Flags, Ints, Reals
from autolabel.quality.support import Support, support_of

KINDS = {"swap": SWAPPED, "location": SHIFTED, "spurious": INVENTED}
_MOST_SHARE = 0.25
_RECALLS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


@dataclass(frozen=True, slots=True)
class BoxScores:
    """Posterior probability ``(N,)`` of each kind of error, the share of it in these labels, and the evidence used."""

    error: dict[str, Reals]
    share: dict[str, float]
    support: Support


@dataclass(frozen=True, slots=True)
class Overlooked:
    """Evidence rows ``(C,)`` with no label, and the probability that an object was overlooked there."""

    rows: Ints
    error: Reals
    share: float


def score_boxes(labels: Labels, opinions: Opinions, pictures: Pictures, seed: int = 0) -> tuple[BoxScores, Overlooked]:
    """Judge every label and every piece of evidence without one, by comparisons fitted to other images."""
    support = support_of(labels, opinions, pictures)
    rows, free = candidates(labels, opinions, pictures)
    lessons = lessons_of(labels, opinions, pictures, seed)
    fold, free_fold = folds_of(labels.image), folds_of(opinions.evidence.image[rows])
    free_label = opinions.evidence.label[rows]
    ratio: dict[str, Reals] = {}
    share: dict[str, float] = {}
    for kind, code in KINDS.items():
        compared = (lessons.kind == code) | (lessons.kind == 0)
        lesson = _Lesson(
            lessons.features[compared],
            lessons.kind[compared] == code,
            lessons.fold[compared],
            lessons.label[compared],
        )
        ratio[kind], planted = _compare(lesson, support.features, fold, labels.label, opinions.classes)
        share[kind] = mixture_share(ratio[kind], planted)
    lesson = _Lesson(lessons.free_features, lessons.lost, lessons.free_fold, lessons.free_label)
    lost, planted = _compare(lesson, free, free_fold, free_label, opinions.classes)
    lost_share = mixture_share(lost, planted)
    # The labels that the planted errors are compared with hold real errors too: share · ratio is their posterior.
    raw = {kind: np.exp(np.clip(ratio[kind], -20, 20)) * share[kind] for kind in KINDS}
    total = np.sum(list(raw.values()), axis=0)
    room = np.maximum(total, 1e-12) / saturated(total)
    error = {kind: values / room for kind, values in raw.items()}
    found = Overlooked(rows, saturated(np.exp(np.clip(lost, -20, 20)) * lost_share), lost_share)
    return BoxScores(error, share, support), found


def raw_scores(labels: Labels, opinions: Opinions, pictures: Pictures) -> tuple[BoxScores, Overlooked]:
    """Judge by the evidence's own scores, where there are too few labels to learn from."""
    support = support_of(labels, opinions, pictures)
    place, iou = support.place, support.iou
    there, mine = np.zeros(len(labels)), np.zeros(len(labels))
    rows = np.flatnonzero(place >= 0)
    there[rows] = opinions.object[place[rows]]
    mine[rows] = opinions.of_class(place[rows], labels.label[rows])
    error: dict[str, Reals] = {
        "swap": np.where(iou >= MATCH_IOU, there * (1 - mine), 0.0),
        "location": np.where((iou >= 0.2) & (iou < MATCH_IOU), there * mine, 0.0),
        # Nothing seen is weak evidence: detectors miss things.
        "spurious": np.where(iou < 0.2, 0.6, 0.0),
    }
    free, _ = candidates(labels, opinions, pictures)
    return BoxScores(error, {}, support), Overlooked(free, opinions.object[free], RATE)


@dataclass(frozen=True, slots=True)
class _Lesson:
    """Rows of planted errors and of labels as they are: features, which is which, fold and class."""

    x: Reals
    error: Flags
    fold: Ints
    label: Ints


def _compare(lesson: _Lesson, x: Reals, fold: Ints, label: Ints, classes: int) -> tuple[Reals, Reals]:
    """Log likelihood ratios of rows ``(N,)`` and of the planted errors, each from a fit on the other folds."""
    ratio, planted = np.zeros(len(x)), [np.zeros(0)]
    for number in range(FOLDS):
        mine, here = fold == number, lesson.fold == number
        if not mine.any() and not here.any():
            continue
        taught = ~here if (~here).any() else here
        curve = Curve.fit(lesson.x[taught], lesson.error[taught], lesson.label[taught], classes)
        errors = int(lesson.error[taught].sum())
        prior = np.log((errors + 0.5) / (int(taught.sum()) - errors + 0.5))
        ratio[mine] = curve.log_odds(x[mine], label[mine]) - prior
        held = here & lesson.error
        planted.append(curve.log_odds(lesson.x[held], lesson.label[held]) - prior)
    return ratio, np.concatenate(planted)


def saturated(values: Reals) -> Reals:
    """Bend estimates of a probability ``(N,)`` that come out over 1 below it, so that their order stays."""
    x = np.maximum(np.asarray(values, np.float64), 1e-12)
    return np.asarray((1 + x**-3.0) ** (-1 / 3))


def mixture_share(ratios: Reals, planted: Reals) -> float:
    """Share of errors in the labels at hand, from the log likelihood ratios of labels and of planted errors.

    If a share s of the labels were errors like the planted ones, then at least s times the planted errors' rate would
    lie over any threshold; the smallest share that some threshold allows is taken (Blanchard, Lee and Scott 2010).
    """
    if not len(planted) or not len(ratios):
        return RATE
    recalls = np.array(_RECALLS)
    over = np.array([(ratios >= t).sum() + 1 for t in np.quantile(planted, 1 - recalls)])
    return float(np.clip((over / len(ratios) / recalls).min(), 0.002, _MOST_SHARE))
