"""A run judged by the opinions that did not decide: no detector score in what judges the detector's boxes.

The detector's threshold divides proposals into annotations and rejects. What the classifier and the segmenter say of
both is compared: an annotation that looks like the rejects is spurious, a reject that looks like the annotations was
overlooked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autolabel.quality.calibrate import Reliability, cross_fit, folds_of, logit, reliability, sigmoid
from autolabel.quality.classes import class_judge
from autolabel.quality.detection import mixture_share, saturated
from autolabel.quality.from_run import CLASSIFIER, DETECTOR, RunEvidence
from autolabel.quality.material import Evidence, Labels, Pictures
from autolabel.quality.opinions import MATCH_IOU
from autolabel.quality.ragged import Flags, Ints, Reals, best_of, best_place, overlapping

FEWEST = 30
"""Fewer annotations, or fewer rejects, teach nothing."""


@dataclass(frozen=True, slots=True)
class OwnScores:
    """Probability ``(N,)`` that a label is spurious (None: too few to say), and that a reject was overlooked."""

    spurious: Reals | None
    rows: Ints
    overlooked: Reals
    curve: Reliability | None


def own_proposal(labels: Labels, evidence: Evidence, images: int) -> Ints:
    """Row of each label's own proposal ``(N,)``, -1 where it has none (a person's box)."""
    rows, e, iou = overlapping(
        labels.boxes_xyxy, labels.starts(images), evidence.boxes_xyxy, evidence.starts(images), floor=0.99
    )
    place = best_place(rows, iou, len(labels))
    return np.where(place >= 0, e[place], -1) if len(e) else np.full(len(labels), -1, np.int64)


def independent(evidence: Evidence, assign: str) -> Evidence:
    """Leave of the proposals only what did not assign the labels; ``fused`` leaves both, each against their product."""
    from dataclasses import replace

    if assign == "fused":
        return replace(evidence, embeddings=None)
    other = DETECTOR if assign == "classifier" else CLASSIFIER
    opinions = tuple((name, values) for name, values in evidence.opinions if name == other)
    return replace(evidence, opinions=opinions, embeddings=evidence.embeddings if other == CLASSIFIER else None)


def class_probabilities(labels: Labels, evidence: Evidence, own: Ints, classes: int) -> Reals | None:
    """Class probabilities ``(M, K)`` of proposals by a probe on independent opinions; None without opinions."""
    label_of = np.full(len(evidence), -1, np.int64)
    known = own >= 0
    label_of[own[known]] = labels.label[known]
    judged = class_judge(evidence, label_of, folds_of(evidence.image), classes)
    return None if judged is None else np.minimum(judged + 1e-4, 1) / np.minimum(judged + 1e-4, 1).sum(1, keepdims=True)


def score_own(
    labels: Labels, source: RunEvidence, own: Ints, pictures: Pictures, *, classes: int, assign: str
) -> OwnScores:
    """Compare annotations and rejects by what the classifier and the segmenter say of them."""
    evidence, images = source.evidence, len(pictures)
    kept = np.zeros(len(evidence), np.bool_)
    kept[own[(own >= 0) & ~labels.human]] = True
    _, e, iou = overlapping(labels.boxes_xyxy, labels.starts(images), evidence.boxes_xyxy, evidence.starts(images))
    explained = best_of(e, iou, len(evidence)) >= MATCH_IOU
    rejected = ~kept & ~explained
    x = _features(source, pictures, classes, assign)
    if x is None or min(kept.sum(), rejected.sum()) < FEWEST:
        return OwnScores(None, np.zeros(0, np.int64), np.zeros(0), None)
    taught = kept | rejected
    z = cross_fit(
        x, kept, folds_of(evidence.image), classes=_named(source, classes, assign), count=classes, train=taught
    )
    prior = np.log(kept.sum() / rejected.sum())
    ratio = z - prior
    like_rejects = saturated(np.exp(np.clip(-ratio, -20, 20)) * mixture_share(-ratio[kept], -ratio[rejected]))
    like_kept = saturated(np.exp(np.clip(ratio, -20, 20)) * mixture_share(ratio[rejected], ratio[kept]))
    spurious = np.zeros(len(labels))
    mine = own >= 0
    spurious[mine] = like_rejects[own[mine]]
    rows = np.flatnonzero(rejected & ~_shadowed(evidence, rejected, like_kept, images))
    return OwnScores(spurious, rows, like_kept[rows], reliability(sigmoid(z[taught]), kept[taught]))


def _features(source: RunEvidence, pictures: Pictures, classes: int, assign: str) -> Reals | None:
    evidence = source.evidence
    columns: list[Reals] = []
    for name, values in evidence.opinions:
        if name != CLASSIFIER or (classes < 2 and not source.negative.any()):
            continue
        ranked = np.sort(values.astype(np.float64), axis=1)[:, ::-1]
        columns += [logit(ranked[:, 0]), logit(source.negative)]
        if classes > 1:
            columns.append(logit(ranked[:, 1]))
    if evidence.mask_score is not None:
        columns.append(np.nan_to_num(evidence.mask_score.astype(np.float64)))
    if not columns:
        return None
    if evidence.embeddings is not None:
        columns += list(_components(evidence.embeddings).T)
    sides = np.clip(evidence.boxes_xyxy[:, 2:] - evidence.boxes_xyxy[:, :2], 1, None)
    columns.append(np.log(np.sqrt(sides.prod(1) / pictures.sizes_wh.prod(1)[evidence.image])).astype(np.float64))
    return np.column_stack(columns)


def _components(embeddings: Reals, most: int = 16) -> Reals:
    """Principal components of embeddings ``(M, 16)``: how the region looks, whatever it is called."""
    sample = embeddings[:: max(len(embeddings) // 5000, 1)].astype(np.float64)
    mean = sample.mean(0)
    _, _, axes = np.linalg.svd(sample - mean, full_matrices=False)
    return np.asarray((embeddings.astype(np.float32) - mean.astype(np.float32)) @ axes[:most].T.astype(np.float32))


def _named(source: RunEvidence, classes: int, assign: str) -> Ints:
    for name, values in source.evidence.opinions:
        if name == (CLASSIFIER if assign == "classifier" else DETECTOR):
            return np.asarray(values.argmax(1), np.int64)
    return source.evidence.label


def _shadowed(evidence: Evidence, chosen: Flags, error: Reals, images: int) -> Flags:
    starts = evidence.starts(images)
    a, b, _ = overlapping(evidence.boxes_xyxy, starts, evidence.boxes_xyxy, starts, floor=MATCH_IOU)
    better = chosen[b] & ((error[b] > error[a]) | ((error[b] == error[a]) & (b < a)))
    return best_of(a[better], np.ones(int(better.sum()), np.float32), len(evidence)) > 0
