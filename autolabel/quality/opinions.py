"""What the evidence says in probabilities: is there an object (of any class), and of which class.

Labels and evidence are two opinions. Where they agree is what calibrates the evidence: the share of evidence boxes
with a label under them, by score and class, cross-fitted by image. Most labels are right, so it is close to the truth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from autolabel.geometry import box_areas
from autolabel.quality.calibrate import Reliability, cross_fit, folds_of, logit, reliability, sigmoid
from autolabel.quality.classes import class_judge
from autolabel.quality.material import Evidence, Labels, Pictures
from autolabel.quality.ragged import Flags, Ints, Reals, best_of, best_place, overlapping, pair_intersections

MATCH_IOU = 0.5
_DELETED_IOU = 0.3


@dataclass(frozen=True, slots=True)
class Opinions:
    """Calibrated evidence: P(object) ``(M,)`` and class probabilities; ``judged`` is ``(M, K)`` or None.

    Without ``judged``, ``certain`` ``(M,)`` is the probability that the evidence's own class is the object's, and the
    rest is spread over the others.
    """

    evidence: Evidence
    object: Reals
    certain: Reals
    judged: Reals | None
    classes: int
    curve: Reliability | None

    def take(self, rows: Ints) -> Opinions:
        """Return chosen rows."""
        judged = None if self.judged is None else self.judged[rows]
        return replace(
            self,
            evidence=self.evidence.take(rows),
            object=self.object[rows],
            certain=self.certain[rows],
            judged=judged,
        )

    def of_class(self, rows: Ints, classes: Ints) -> Reals:
        """P(class | object) ``(P,)`` of evidence rows for a class each."""
        if self.judged is not None:
            return np.asarray(self.judged[rows, np.maximum(classes, 0)])
        rest = (1 - self.certain[rows]) / max(self.classes - 1, 1)
        return np.where(self.evidence.label[rows] == classes, self.certain[rows], rest).astype(np.float32)

    def of_another(self, rows: Ints, classes: Ints) -> tuple[Reals, Ints]:
        """P of the likeliest class other than the given one ``(P,)``, and that class."""
        if self.judged is not None:
            order = np.argsort(-self.judged, axis=1)[:, :2]
            first, second = order[rows, 0], order[rows, -1]
            other = np.where(first == classes, second, first)
            return np.where(other == classes, 0.0, self.judged[rows, other]).astype(np.float32), other
        own = self.evidence.label[rows]
        rest = (1 - self.certain[rows]) / max(self.classes - 1, 1)
        return np.where(own == classes, rest, self.certain[rows]).astype(np.float32), np.where(own == classes, -1, own)

    def distribution(self, rows: Ints) -> Reals:
        """Class probabilities ``(P, K)`` of evidence rows."""
        if self.judged is not None:
            return self.judged[rows]
        values = np.repeat(((1 - self.certain[rows]) / max(self.classes - 1, 1))[:, None], self.classes, axis=1)
        values[np.arange(len(rows)), self.evidence.label[rows]] = self.certain[rows]
        return np.asarray(values / values.sum(1, keepdims=True), np.float32)

    def likeliest(self, rows: Ints) -> Ints:
        """Class ``(P,)`` that evidence rows most likely show."""
        if self.judged is None:
            return self.evidence.label[rows]
        return np.asarray(self.judged[rows].argmax(1), np.int64)


def opinions_of(evidence: Evidence, labels: Labels, pictures: Pictures, classes: int) -> Opinions:
    """Calibrate evidence against the labels of other images' folds."""
    images = len(pictures)
    folds = folds_of(evidence.image)
    l_rows, e_rows, iou = overlapping(
        labels.boxes_xyxy, labels.starts(images), evidence.boxes_xyxy, evidence.starts(images), floor=MATCH_IOU
    )
    real = ~labels.crowd[l_rows]
    l_rows, e_rows, iou = l_rows[real], e_rows[real], iou[real]
    place = best_place(e_rows, iou, len(evidence))
    matched = place >= 0
    label_of = np.where(matched, labels.label[l_rows[place]] if len(l_rows) else -1, -1)
    x = evidence_features(evidence, pictures)
    z = cross_fit(x, matched, folds, classes=evidence.label, count=classes)
    same = label_of == evidence.label
    certain = sigmoid(cross_fit(x, same, folds, classes=evidence.label, count=classes, train=matched))
    judged = class_judge(evidence, label_of, folds, classes)
    probability = sigmoid(z)
    return Opinions(
        evidence,
        probability.astype(np.float32),
        certain.astype(np.float32),
        judged,
        classes,
        reliability(probability, matched) if len(evidence) else None,
    )


def evidence_features(evidence: Evidence, pictures: Pictures) -> Reals:
    """Return ``(M, F)``: what is known of a box without looking at labels."""
    images = len(pictures)
    starts = evidence.starts(images)
    a, b, iou = overlapping(evidence.boxes_xyxy, starts, evidence.boxes_xyxy, starts, floor=0.3)
    better = (evidence.score[b] > evidence.score[a]) & (evidence.source[b] == evidence.source[a])
    same = evidence.label[a] == evidence.label[b]
    shadowed = best_of(a[better & same], iou[better & same], len(evidence))
    rivalled = best_of(a[better & ~same], iou[better & ~same], len(evidence))
    size = np.sqrt(np.maximum(box_areas(evidence.boxes_xyxy), 1.0))
    scale = np.sqrt(pictures.sizes_wh.prod(1))[evidence.image]
    columns = [logit(evidence.score), shadowed, shadowed > MATCH_IOU, rivalled, np.log(size / scale), np.log(size)]
    for _, values in evidence.opinions:
        ranked = np.sort(values.astype(np.float32), axis=1)
        columns.append(logit(ranked[:, -1]))
        if values.shape[1] > 1:
            columns.append(logit(ranked[:, -2]))
    if evidence.mask_score is not None:
        columns.append(np.nan_to_num(evidence.mask_score))
    for number in range(len(evidence.names) - 1):
        mine = evidence.source == number
        columns += [mine, mine * columns[0]]
    if len(evidence.names) > 1:
        # Two sources that saw the same thing are worth more than one.
        other = evidence.source[a] != evidence.source[b]
        columns.append(best_of(a[other], iou[other] * evidence.score[b[other]], len(evidence)))
    return np.column_stack([np.asarray(column, np.float64) for column in columns])


@dataclass(frozen=True, slots=True)
class Surroundings:
    """How evidence boxes ``(M,)`` lie among labels: ``free`` has no label on it.

    Best IoU with any label and with one of the box's class; largest share of the box inside a label of its class and of
    any, and of such a label inside the box.
    """

    free: Flags
    any_iou: Reals
    same_iou: Reals
    inside_same: Reals
    inside_any: Reals
    around_same: Reals


def surroundings(evidence: Evidence, labels: Labels, images: int) -> Surroundings:
    """Compare evidence with labels; a box that lies mostly inside a crowd region of its class is explained by it."""
    count = len(evidence)
    l_rows, e_rows, iou = overlapping(
        labels.boxes_xyxy, labels.starts(images), evidence.boxes_xyxy, evidence.starts(images)
    )
    same = labels.label[l_rows] == evidence.label[e_rows]
    any_iou, same_iou = best_of(e_rows, iou, count), best_of(e_rows[same], iou[same], count)
    inter = pair_intersections(evidence.boxes_xyxy[e_rows], labels.boxes_xyxy[l_rows])
    inside = inter / np.maximum(box_areas(evidence.boxes_xyxy)[e_rows], 1e-6)
    around = inter / np.maximum(box_areas(labels.boxes_xyxy)[l_rows], 1e-6)
    free = any_iou < MATCH_IOU
    crowd = labels.crowd[l_rows] & same & (inside > 0.5)
    free[e_rows[crowd]] = False
    # What a person deleted is asked for no more, though they saw the mask's box and the evidence is a detector's.
    free[e_rows[(labels.label[l_rows] < 0) & (iou >= _DELETED_IOU)]] = False
    return Surroundings(
        free,
        any_iou,
        same_iou,
        best_of(e_rows[same], inside[same], count),
        best_of(e_rows, inside, count),
        best_of(e_rows[same], around[same], count),
    )
