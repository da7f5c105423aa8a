"""Errors of boxes: overlooked, location, swap, spurious.

Quality is one minus the posterior probability of the error. The comparison that yields it is fitted to errors planted
in the labels of other images (`plant`), with the share of errors estimated from the labels at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autolabel.quality.calibrate import Curve, Doubles, folds_of, logit
from autolabel.quality.material import Labels, Pictures
from autolabel.quality.opinions import MATCH_IOU, Opinions, unexplained
from autolabel.quality.plant import INVENTED, RATE, SHIFTED, SWAPPED, Planted, plant
from autolabel.quality.ragged import Flags, Ints, best_of, overlapping
from autolabel.quality.support import Support, support_of

KINDS = {"swap": SWAPPED, "location": SHIFTED, "spurious": INVENTED}
_PLANTED_ROWS = 4_000
_MOST_ROUNDS = 8
_MOST_TAUGHT = 6_000
_RECALLS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


@dataclass(frozen=True, slots=True)
class BoxScores:
    """Posterior probability ``(N,)`` of each kind of error, the share of it in these labels, and the evidence used."""

    error: dict[str, Doubles]
    share: dict[str, float]
    support: Support


@dataclass(frozen=True, slots=True)
class Overlooked:
    """Evidence rows ``(C,)`` with no label, and the probability that an object was overlooked there."""

    rows: Ints
    error: Doubles
    share: float


def score_boxes(labels: Labels, opinions: Opinions, pictures: Pictures, seed: int = 0) -> tuple[BoxScores, Overlooked]:
    """Judge every label and every piece of evidence without one."""
    support = support_of(labels, opinions, pictures)
    free_rows, free_x = candidates(labels, opinions, pictures)
    rounds = list(_rounds(labels, pictures, opinions, seed))
    folds = folds_of(labels.image)
    ratio = {kind: np.zeros(len(labels)) for kind in KINDS}
    planted_ratio: dict[str, list[Doubles]] = {kind: [] for kind in (*KINDS, "overlooked")}
    free_folds = folds_of(opinions.evidence.image[free_rows])
    free_ratio = np.zeros(len(free_rows))
    x, kind_of, row_folds, classes = (np.concatenate([r[i] for r in rounds]) for i in range(4))
    ox, lost, lost_folds, lost_class = (np.concatenate([r[i] for r in rounds]) for i in range(4, 8))
    free_class = opinions.evidence.label[free_rows]
    for fold in range(int(max(folds.max(initial=0), row_folds.max(initial=0), free_folds.max(initial=0))) + 1):
        mine, here = folds == fold, row_folds == fold
        for kind, code in KINDS.items():
            chosen = (~here) & ((kind_of == code) | (kind_of == 0))
            curve, prior = _fit(x[chosen], kind_of[chosen] == code, classes[chosen], opinions.classes)
            ratio[kind][mine] = curve.log_odds(support.features[mine], labels.label[mine]) - prior
            held = here & (kind_of == code)
            planted_ratio[kind].append(curve.log_odds(x[held], classes[held]) - prior)
        others, mine = lost_folds != fold, free_folds == fold
        curve, prior = _fit(ox[others], lost[others], lost_class[others], opinions.classes)
        free_ratio[mine] = curve.log_odds(free_x[mine], free_class[mine]) - prior
        held = (lost_folds == fold) & lost
        planted_ratio["overlooked"].append(curve.log_odds(ox[held], lost_class[held]) - prior)
    share = {kind: mixture_share(ratio[kind], np.concatenate(planted_ratio[kind])) for kind in KINDS}
    # The labels that the planted errors are compared with hold real errors too: share · ratio is their posterior.
    raw = {kind: np.exp(np.clip(ratio[kind], -20, 20)) * share[kind] for kind in KINDS}
    room = np.asarray(sum(raw.values())) / saturated(sum(raw.values()))
    error = {kind: values / room for kind, values in raw.items()}
    base = mixture_share(free_ratio, np.concatenate(planted_ratio["overlooked"]))
    lost_error = saturated(np.exp(np.clip(free_ratio, -20, 20)) * base)
    return BoxScores(error, share, support), Overlooked(free_rows, lost_error, base)


def raw_scores(labels: Labels, opinions: Opinions, pictures: Pictures) -> tuple[BoxScores, Overlooked]:
    """Judge by the evidence's own scores, where there are too few labels to learn from."""
    support = support_of(labels, opinions, pictures)
    place, iou, count = support.place, support.iou, len(labels)
    found = place >= 0
    there = np.where(found, opinions.object[place], 0.0) if len(opinions.evidence) else np.zeros(count)
    mine = np.where(found, opinions.of_class(place, labels.label), 0.0) if len(opinions.evidence) else np.zeros(count)
    swap = np.where(iou >= MATCH_IOU, there * (1 - mine), 0.0)
    location = np.where((iou >= 0.2) & (iou < MATCH_IOU), there * mine, 0.0)
    # Evidence that saw nothing is weak evidence: detectors miss things.
    spurious = np.where(iou < 0.2, 0.6, 0.0) if len(opinions.evidence) else np.zeros(count)
    rows, _ = candidates(labels, opinions, pictures)
    error = {"swap": swap, "location": location, "spurious": spurious}
    return BoxScores(error, {}, support), Overlooked(rows, opinions.object[rows].astype(np.float64), RATE)


def candidates(labels: Labels, opinions: Opinions, pictures: Pictures) -> tuple[Ints, Doubles]:
    """Evidence rows without a label, the best of each spot, and what is known of them ``(C, F)``."""
    evidence, images = opinions.evidence, len(pictures)
    free, any_iou, same_iou = unexplained(evidence, labels, images)
    kept = free & ~_shadowed(opinions, images)
    rows = np.flatnonzero(kept)
    z = logit(opinions.object[rows], 0.001)
    size = np.log(
        np.maximum(_sides(evidence.boxes_xyxy[rows]), 1) / np.sqrt(pictures.sizes_wh.prod(1))[evidence.image[rows]]
    )
    x = np.column_stack(
        [z, z * z, any_iou[rows], same_iou[rows], same_iou[rows] > 0.1, logit(opinions.certain[rows]), size]
    )
    return rows, x.astype(np.float64)


def _shadowed(opinions: Opinions, images: int) -> Flags:
    """Evidence that a likelier box of the same spot speaks for."""
    evidence = opinions.evidence
    starts = evidence.starts(images)
    a, b, _ = overlapping(evidence.boxes_xyxy, starts, evidence.boxes_xyxy, starts, floor=MATCH_IOU)
    better = (opinions.object[b] > opinions.object[a]) | ((opinions.object[b] == opinions.object[a]) & (b < a))
    return best_of(a[better], np.ones(int(better.sum()), np.float32), len(evidence)) > 0


def _rounds(labels: Labels, pictures: Pictures, opinions: Opinions, seed: int):
    count = int(np.clip(np.ceil(_PLANTED_ROWS / max(len(labels) * RATE * 3, 1)), 1, _MOST_ROUNDS))
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        planted = plant(labels, pictures, opinions.classes, rng)
        made = planted.labels
        support = support_of(made, opinions, pictures)
        rows, x = candidates(made, opinions, pictures)
        lost = _lost(planted, labels, opinions, rows, len(pictures))
        taught = ~made.crowd
        yield (
            support.features[taught],
            planted.kind[taught],
            folds_of(made.image[taught]),
            made.label[taught],
            x,
            lost,
            folds_of(opinions.evidence.image[rows]),
            opinions.evidence.label[rows],
        )


def _lost(planted: Planted, labels: Labels, opinions: Opinions, rows: Ints, images: int) -> Flags:
    """Tell which candidates lie where a label was dropped."""
    gone = planted.dropped
    dropped = labels.boxes_and_classes(labels.image[gone], labels.boxes_xyxy[gone], labels.label[gone])
    evidence = opinions.evidence
    free = evidence.take(rows)
    _, e, iou = overlapping(dropped.boxes_xyxy, dropped.starts(images), free.boxes_xyxy, free.starts(images))
    return best_of(e, iou, len(rows)) >= MATCH_IOU


def _fit(x: Doubles, y: Flags, classes: Ints, count: int) -> tuple[Curve, float]:
    """Fit a comparison; return it with the log odds of its training rows, to be taken off."""
    prior = float(np.log((y.sum() + 0.5) / ((~y).sum() + 0.5)))
    return Curve.fit(x, y, classes, count), prior


def saturated(values: Doubles) -> Doubles:
    """Bend estimates of a probability ``(N,)`` that come out over 1 below it, so that their order stays."""
    x = np.maximum(np.asarray(values, np.float64), 1e-12)
    return np.asarray((1 + x**-3.0) ** (-1 / 3))


def mixture_share(ratios: Doubles, planted: Doubles) -> float:
    """Share of errors in the labels at hand, from the log likelihood ratios of labels and of planted errors.

    If a share s of the labels were errors like the planted ones, then at least s times the planted errors' rate would
    lie over any threshold; the smallest share that some threshold allows is taken (Blanchard, Lee and Scott 2010).
    """
    if not len(planted) or not len(ratios):
        return RATE
    recalls = np.array(_RECALLS)
    over = np.array([(ratios >= t).sum() + 1 for t in np.quantile(planted, 1 - recalls)])
    return float(np.clip((over / len(ratios) / recalls).min(), 0.002, 0.5))


def _sides(boxes_xyxy):
    sides = np.clip(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0, None)
    return np.sqrt(sides[:, 0] * sides[:, 1])
