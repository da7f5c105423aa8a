"""From stored proposals to annotations: who assigns the label, the gates, and one box for one object.

Pure arithmetic on what the models said; a changed threshold runs this again and no model.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autolabel.config import Assign
from autolabel.geometry import box_areas, box_iou, suppress
from autolabel.ontology import Ontology
from autolabel.types import Float


@dataclass(frozen=True, slots=True)
class Gates:
    """Thresholds of every class of the ontology, each ``(K,)``, and the overlaps that mean "one object"."""

    min_score: Float
    min_prob: Float
    min_area_px: Float
    nms_iou: float
    cross_class_iou: float

    @classmethod
    def of(
        cls,
        ontology: Ontology,
        *,
        min_score: float,
        min_prob: float,
        min_area_px: float,
        nms_iou: float,
        cross_class_iou: float,
    ) -> Gates:
        """Fill in the defaults where a class sets no threshold of its own."""

        def per_class(name: str, default: float) -> Float:
            own = [getattr(label, name) for label in ontology.all_classes]
            return np.array([default if value is None else value for value in own], np.float32)

        return cls(
            per_class("min_score", min_score),
            per_class("min_prob", min_prob),
            per_class("min_area_px", min_area_px),
            nms_iou,
            cross_class_iou,
        )


@dataclass(frozen=True, slots=True)
class Resolution:
    """Which proposals became annotations: places ``(M,)`` and label ids ``(M,)``; the others, counted by reason."""

    kept: NDArray[np.int64]
    labels: NDArray[np.int64]
    rejects: Counter[str]


def assign_labels(class_scores: Float, class_probs: Float | None, assign: Assign) -> NDArray[np.int64]:
    """Assign one of K classes to each proposal from ``(N, K)`` scores and ``(N, K)`` probabilities.

    ``"fused"`` multiplies the classifier's probabilities with the detector's scores (a product of experts).
    """
    if assign == "detector" or class_probs is None:
        opinion = class_scores
    elif assign == "classifier":
        opinion = class_probs
    else:
        opinion = class_probs * class_scores
    if len(opinion) == 0:
        return np.zeros(0, np.int64)
    labels: NDArray[np.int64] = np.argmax(opinion, axis=1).astype(np.int64)
    return labels


def resolve(
    boxes_xyxy: Float,
    class_scores: Float,
    class_probs: Float | None,
    *,
    gates: Gates,
    assign: Assign,
    class_count: int,
) -> Resolution:
    """Turn the proposals of one image into annotations.

    ``class_count`` is the number of classes that are annotated; label ids from there on are negatives. Negatives
    compete like any class, so that a reflection claims its box before it is dropped.
    """
    labels = assign_labels(class_scores, class_probs, assign)
    rows = np.arange(len(labels))
    scores = class_scores.max(axis=1, initial=0.0)
    rejects: Counter[str] = Counter()

    alive = scores >= gates.min_score[labels]
    rejects["low_score"] = int((~alive).sum())
    if class_probs is not None:
        sure = class_probs[rows, labels] >= gates.min_prob[labels]
        rejects["low_prob"] = int((alive & ~sure).sum())
        alive &= sure
    large = box_areas(boxes_xyxy) >= gates.min_area_px[labels]
    rejects["too_small"] = int((alive & ~large).sum())
    alive &= large

    passed = np.flatnonzero(alive)
    same_class = labels[passed][:, None] == labels[passed][None, :]
    one_object = box_iou(boxes_xyxy[passed], boxes_xyxy[passed]) > np.where(
        same_class, gates.nms_iou, gates.cross_class_iou
    )
    survivors = np.sort(passed[suppress(scores[passed], one_object)])
    rejects["overlap"] = len(passed) - len(survivors)
    wanted = survivors[labels[survivors] < class_count]
    rejects["negative"] = len(survivors) - len(wanted)
    return Resolution(wanted, labels[wanted], +rejects)
