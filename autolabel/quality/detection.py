"""Errors of boxes: overlooked, location, swap, spurious.

Quality is one minus the posterior probability of the error. The comparison that yields it is fitted to errors planted
in the labels of other images (`lessons`), with the share of errors estimated from the labels at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autolabel.quality.calibrate import FOLDS, Curve, Logistic, folds_of, logit, one_thread, sigmoid
from autolabel.quality.lessons import Lessons, candidates, labels_left, lessons_of
from autolabel.quality.material import Labels, Pictures
from autolabel.quality.opinions import Opinions
from autolabel.quality.plant import INVENTED, RATE, SHIFTED, SWAPPED
from autolabel.quality.ragged import Flags, Ints, Reals, best_of
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
    """Evidence rows ``(C,)`` with no label, and the probability that an object was overlooked there.

    ``lacking`` ``(I,)`` is the probability that an image lacks any label, also where no evidence shows what; None where
    that was not learnt.
    """

    rows: Ints
    error: Reals
    share: float
    lacking: Reals | None = None


def score_boxes(labels: Labels, opinions: Opinions, pictures: Pictures, seed: int = 0) -> tuple[BoxScores, Overlooked]:
    """Judge every label and every piece of evidence without one, by comparisons fitted to other images."""
    with one_thread():
        return _scored(labels, opinions, pictures, seed)


def _scored(labels: Labels, opinions: Opinions, pictures: Pictures, seed: int) -> tuple[BoxScores, Overlooked]:
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
            lessons.rounds,
        )
        ratio[kind], held = _compare(lesson, support.features, fold, labels.label, opinions.classes)
        share[kind] = mixture_share(ratio[kind], held[lesson.error], rank=1)
    lesson = _Lesson(lessons.free_features, lessons.lost, lessons.free_fold, lessons.free_label, lessons.rounds)
    lost, held = _compare(lesson, free, free_fold, free_label, opinions.classes)
    lost_share = mixture_share(lost, held[lesson.error])
    # The labels that the planted errors are compared with hold real errors too: share · ratio is their posterior.
    raw = {kind: np.exp(np.clip(ratio[kind], -20, 20)) * share[kind] for kind in KINDS}
    total = np.sum(list(raw.values()), axis=0)
    room = np.maximum(total, 1e-12) / saturated(total)
    error = {kind: values / room for kind, values in raw.items()}
    missed, taught = (saturated(np.exp(np.clip(values, -20, 20)) * lost_share) for values in (lost, held))
    worst = best_of(opinions.evidence.image[rows], missed, len(pictures))
    lacking = _lacking(lessons, taught, worst, labels_left(labels, len(pictures)), lost_share)
    found = Overlooked(rows, missed, lost_share, lacking)
    return BoxScores(error, share, support), found


def _lacking(lessons: Lessons, taught: Reals, worst: Reals, given: Ints, share: float) -> Reals:
    """Probability ``(I,)`` that an image lacks a label, from its ``worst`` doubt and how many labels it has ``given``.

    Evidence does not show all that is missing, and where many objects are, more are forgotten.
    """
    then = best_of(lessons.free_image, taught, len(lessons.image_labels))
    x = np.column_stack([logit(then, 0.001), np.log1p(lessons.image_labels)])
    now = np.column_stack([logit(worst, 0.001), np.log1p(given)])
    fold, odds = folds_of(np.arange(len(worst))), np.zeros(len(worst))
    for number in range(FOLDS):
        other = lessons.image_fold != number
        if (fold == number).any() and other.any():
            model = Logistic.fit(x[other], lessons.image_lacks[other], ridge=float(lessons.rounds))
            odds[fold == number] = model.log_odds(now[fold == number])
    planted = max(float(lessons.lost.mean()), 1e-4) if len(lessons.lost) else RATE
    return sigmoid(odds + np.log(share / planted))


@dataclass(frozen=True, slots=True)
class _Lesson:
    """Rows of planted errors and of labels as they are: features, which is which, fold and class."""

    x: Reals
    error: Flags
    fold: Ints
    label: Ints
    rounds: int


def _compare(lesson: _Lesson, x: Reals, fold: Ints, label: Ints, classes: int) -> tuple[Reals, Reals]:
    """Log likelihood ratios of rows ``(N,)`` and of the lesson's own, each from a fit on the other folds."""
    ratio, held = np.zeros(len(x)), np.zeros(len(lesson.x))
    for number in range(FOLDS):
        mine, here = fold == number, lesson.fold == number
        if not mine.any() and not here.any():
            continue
        taught = ~here if (~here).any() else here
        curve = Curve.fit(lesson.x[taught], lesson.error[taught], lesson.label[taught], classes, lesson.rounds)
        errors = int(lesson.error[taught].sum())
        prior = np.log((errors + 0.5) / (int(taught.sum()) - errors + 0.5))
        ratio[mine] = curve.log_odds(x[mine], label[mine]) - prior
        held[here] = curve.log_odds(lesson.x[here], lesson.label[here]) - prior
    return ratio, held


def saturated(values: Reals) -> Reals:
    """Bend estimates of a probability ``(N,)`` that come out over 1 below it, so that their order stays."""
    x = np.maximum(np.asarray(values, np.float64), 1e-12)
    return np.asarray((1 + x**-3.0) ** (-1 / 3))


def mixture_share(ratios: Reals, planted: Reals, rank: int = 0) -> float:
    """Share of errors in the labels at hand, from the log likelihood ratios of labels and of planted errors.

    If a share s of the labels were errors like the planted ones, then at least s times the planted errors' rate would
    lie over any threshold; the smallest share that some threshold allows is taken (Blanchard, Lee and Scott 2010). The
    smallest of several counts errs low: ``rank`` 1 takes the next.
    """
    if not len(planted) or not len(ratios):
        return RATE
    recalls = np.array(_RECALLS)
    over = np.array([(ratios >= t).sum() + 1 for t in np.quantile(planted, 1 - recalls)])
    return float(np.clip(np.sort(over / len(ratios) / recalls)[rank], 0.002, _MOST_SHARE))
