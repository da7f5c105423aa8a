"""What the models proposed, settled by other thresholds than the run's own: to measure with, nothing is stored."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autolabel.geometry import mask_boxes
from autolabel.stages.resolve import Gates, resolve, settled_boxes
from autolabel.types import Float, Image, Mask

if TYPE_CHECKING:
    from autolabel.dataset import Run


@dataclass(frozen=True, slots=True)
class Candidates:
    """Proposals of one image that would be annotations, in the order of their detector's ``scores`` ``(N,)``.

    Boxes ``(N, 4)`` px are those that annotations would have; ``label_ids`` ``(N,)`` places among the run's classes;
    ``confidences`` ``(N,)`` as `Annotation.confidence`.
    """

    image: Image
    boxes_xyxy: Float
    label_ids: NDArray[np.int64]
    scores: Float
    confidences: Float
    masks: tuple[Mask | None, ...]


def gates_of(run: Run) -> Gates:
    """Return the thresholds that a run's annotations were made by."""
    values: dict[str, Any] = run.manifest.resolved["thresholds"]
    names = ("min_score", "min_area_px", "nms_iou", "cross_class_iou")
    # Where the detector assigns the labels, the classifier has no say.
    min_prob = 0.0 if run.manifest.assign == "detector" else float(values.get("min_prob") or 0.0)
    return Gates.of(run.ontology, **{name: float(values[name]) for name in names}, min_prob=min_prob)


def candidates(run: Run, gates: Gates, among: Container[str] | None = None) -> Iterator[Candidates]:
    """Settle the stored proposals of the images ``among`` (None: of all) by ``gates``, in the order of their paths."""
    from_masks = run.manifest.resolved["thresholds"].get("boxes") == "mask"
    for one in run.proposals(among):
        boxes, probs = one.boxes_xyxy, one.class_probs
        if from_masks:
            boxes = settled_boxes(boxes, mask_boxes(one.masks), one.mask_scores)
        settled = resolve(
            one.boxes_xyxy,
            one.class_scores,
            probs,
            gates=gates,
            assign=run.manifest.assign,  # type: ignore[arg-type]  # the manifest keeps it as text
            class_count=len(run.ontology.classes),
            settled_xyxy=boxes,
        )
        scores = one.class_scores.max(axis=1, initial=0.0)[settled.kept]
        order = np.argsort(-scores, kind="stable")
        kept, labels = settled.kept[order], settled.labels[order]
        sure = 1.0 if probs is None else probs[kept, labels]
        yield Candidates(
            one.image, boxes[kept], labels, scores[order], scores[order] * sure, tuple(one.masks[i] for i in kept)
        )
