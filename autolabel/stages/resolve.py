"""From stored proposals to annotations: who assigns the label, the gates, and one box for one object.

Pure arithmetic on what the models said; a changed threshold runs this again and no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from autolabel.config import Assign
from autolabel.geometry import box_areas, box_iou, intersections, suppress_ranked
from autolabel.ontology import Ontology
from autolabel.types import Float

LEAST_MASK_SCORE: Final = 0.4
"""A mask gives its annotation a box only if the segmenter expects at least this IoU of it."""
LEAST_INSIDE: Final = 0.5
"""Share of the mask's box that must lie in the detector's: what spreads further has leaked out of the object."""
LEAST_FILLED: Final = 0.25
"""Share of the detector's box that the mask's must fill: what is smaller is a speck or a piece of the object."""
FATES = ("kept", "low_score", "low_prob", "too_small", "overlap", "negative")
_KEPT, _LOW_SCORE, _LOW_PROB, _TOO_SMALL, _OVERLAP, _NEGATIVE = range(len(FATES))
_BLOCK_PAIRS = 500_000


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


def settled_boxes(boxes_xyxy: Float, masks_xyxy: Float, mask_scores: Float) -> Float:
    """Take each of N boxes from its mask where that can be trusted, else from the detector: ``(N, 4)`` px.

    ``masks_xyxy`` ``(N, 4)`` are the boxes around the masks, NaN where there is none; ``mask_scores`` ``(N,)`` the
    segmenter's predicted IoU. A detector's box is looser than a good mask, and better than a leak or a speck.
    """
    shared = intersections(boxes_xyxy[:, None], masks_xyxy[:, None])[:, 0, 0]
    trusted = (
        (mask_scores >= LEAST_MASK_SCORE)
        & (shared >= LEAST_INSIDE * box_areas(masks_xyxy))
        & (shared >= LEAST_FILLED * box_areas(boxes_xyxy))
    )
    settled: Float = np.where(trusted[:, None], masks_xyxy, boxes_xyxy)
    return settled


def settle(
    images: NDArray[np.integer[Any]],
    boxes_xyxy: Float,
    class_scores: Float,
    class_probs: Float | None,
    *,
    gates: Gates,
    assign: Assign,
    class_count: int,
    settled_xyxy: Float | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Settle the N proposals of many images at once: the label of each, and its fate, a place in `FATES`.

    ``images`` ``(N,)`` says which image a proposal is of; boxes of different images never meet. ``class_count`` is the
    number of classes that are annotated; label ids from there on are negatives. Negatives compete like any class, so
    that a reflection claims its box before it is dropped. ``settled_xyxy`` ``(N, 4)`` px are the boxes that annotations
    will have, where these are not the detector's: what is too small goes by them. What is one object goes by the
    detector's boxes, as a mask often fills the same part of two boxes round neighbours.
    """
    labels = assign_labels(class_scores, class_probs, assign)
    scores = class_scores.max(axis=1, initial=0.0)
    fates = np.full(len(labels), _KEPT, np.uint8)
    # From the last gate to the first, so that of several reasons the first stands; what is not a number passes none.
    fates[~(box_areas(boxes_xyxy if settled_xyxy is None else settled_xyxy) >= gates.min_area_px[labels])] = _TOO_SMALL
    if class_probs is not None:
        fates[~(class_probs[np.arange(len(labels)), labels] >= gates.min_prob[labels])] = _LOW_PROB
    fates[~(scores >= gates.min_score[labels])] = _LOW_SCORE
    passed = np.flatnonzero(fates == _KEPT)
    ranked = passed[np.lexsort((-scores[passed], images[passed]))]
    for block in _by_count(images[ranked]):
        places = ranked[block]
        same_class = labels[places][:, :, None] == labels[places][:, None, :]
        overlap = box_iou(boxes_xyxy[places], boxes_xyxy[places])
        kept = suppress_ranked(overlap > np.where(same_class, gates.nms_iou, gates.cross_class_iou))
        fates[places[~kept]] = _OVERLAP
    fates[(fates == _KEPT) & (labels >= class_count)] = _NEGATIVE
    return labels, fates


def resolve(
    boxes_xyxy: Float,
    class_scores: Float,
    class_probs: Float | None,
    *,
    gates: Gates,
    assign: Assign,
    class_count: int,
    settled_xyxy: Float | None = None,
) -> Resolution:
    """Turn the proposals of one image into annotations; `settle` says how."""
    labels, fates = settle(
        np.zeros(len(boxes_xyxy), np.int32),
        boxes_xyxy,
        class_scores,
        class_probs,
        gates=gates,
        assign=assign,
        class_count=class_count,
        settled_xyxy=settled_xyxy,
    )
    kept = np.flatnonzero(fates == _KEPT)
    return Resolution(kept, labels[kept], rejects_of(fates))


def rejects_of(fates: NDArray[np.uint8]) -> Counter[str]:
    """Count ``(N,)`` fates by reason, those that were kept left out."""
    counts = np.bincount(fates, minlength=len(FATES)).tolist()
    return +Counter(dict(zip(FATES[1:], counts[1:], strict=True)))


def _by_count(groups: NDArray[np.integer[Any]]) -> Iterator[NDArray[np.int64]]:
    """Split sorted ``(N,)`` groups into blocks ``(B, M)`` of places, B groups of M members each; bounded in size."""
    starts = np.flatnonzero(np.diff(groups, prepend=groups[0] - 1)) if len(groups) else np.zeros(0, np.int64)
    counts = np.diff(starts, append=len(groups))
    for count in np.unique(counts[counts > 1]).tolist():
        mine = starts[counts == count]
        step = max(1, _BLOCK_PAIRS // count**2)
        for first in range(0, len(mine), step):
            yield mine[first : first + step, None] + np.arange(count)
