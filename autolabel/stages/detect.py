"""From a detector's phrase scores to the proposals worth storing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from autolabel.geometry import box_areas, box_iou, clip_boxes, suppress
from autolabel.types import Detections, Float, Mask


@dataclass(frozen=True, slots=True)
class Proposals:
    """Low-floor candidates of one image, best first.

    ``boxes_xyxy`` is ``(N, 4)`` px inside the image, ``class_scores`` ``(N, K)`` the detector's opinion over all
    classes of the ontology; ``masks`` is set only when the detector segments in the same pass. ``dropped`` counts, by
    reason, the boxes that were not kept.
    """

    boxes_xyxy: Float
    class_scores: Float
    masks: tuple[Mask, ...] | None = None
    dropped: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.boxes_xyxy)


def class_scores(phrase_scores: Float, phrase_owners: Sequence[int], class_count: int) -> Float:
    """Reduce phrase scores ``(N, P)`` to class scores ``(N, K)``: a class scores what its best phrase scores."""
    scores = np.zeros((len(phrase_scores), class_count), np.float32)
    for column, owner in enumerate(phrase_owners):
        np.maximum(scores[:, owner], phrase_scores[:, column], out=scores[:, owner])
    return scores


def propose(
    detections: Detections,
    phrase_owners: Sequence[int],
    class_count: int,
    *,
    size_wh: tuple[int, int],
    floor: float,
    iou: float,
    limit: int,
) -> Proposals:
    """Keep the boxes that score at least ``floor``, drop near copies (IoU above ``iou``), keep the best ``limit``."""
    boxes = clip_boxes(np.asarray(detections.boxes_xyxy, np.float32).reshape(-1, 4), size_wh)
    phrase_scores = np.asarray(detections.phrase_scores, np.float32).reshape(len(boxes), len(phrase_owners))
    scores = class_scores(phrase_scores, phrase_owners, class_count)
    dropped: Counter[str] = Counter()

    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores).all(axis=1) & (box_areas(boxes) > 0)
    best = np.where(finite, scores.max(axis=1, initial=0.0), -1.0).astype(np.float32)
    dropped["empty_box"] = int((~finite).sum())
    above = np.flatnonzero(best >= floor)
    dropped["below_floor"] = len(boxes) - len(above) - dropped["empty_box"]
    kept = above[suppress(best[above], box_iou(boxes[above], boxes[above]) > iou)]
    dropped["same_proposal"] = len(above) - len(kept)
    dropped["over_limit"] = max(0, len(kept) - limit)
    kept = kept[:limit]
    masks = None if detections.masks is None else tuple(detections.masks[i] for i in kept)
    return Proposals(boxes[kept], scores[kept], masks, +dropped)
