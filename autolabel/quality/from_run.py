"""Labels and evidence of a stored run, as flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from autolabel.config import BoxSource
from autolabel.geometry import mask_boxes
from autolabel.quality.material import Evidence, Labels, Pictures
from autolabel.quality.ragged import Flags, Ints, Reals
from autolabel.stages.resolve import settled_boxes
from autolabel.types import Correction, Float, Image, Mask

if TYPE_CHECKING:
    from autolabel.dataset import Run

DETECTOR, CLASSIFIER = "detector", "classifier"


@dataclass(frozen=True, slots=True)
class RunEvidence:
    """Proposals of a run as evidence; ``negative`` ``(M,)`` is the classifier's probability of any negative."""

    evidence: Evidence
    negative: Reals


def pictures_of(run: Run) -> Pictures:
    """List a run's labelled images in the order of their paths."""
    return listed(list(run.images()))


def listed(images: Sequence[Image]) -> Pictures:
    """List images as a pass names them."""
    return Pictures(
        tuple(image.path for image in images),
        tuple(image.id for image in images),
        np.array([(image.width, image.height) for image in images], np.float32).reshape(-1, 2),
    )


def labels_of_run(run: Run) -> Labels:
    """Read a run's effective labels; a region that a person deleted is kept as a crowd of no class, never judged."""
    deleted: dict[str, list[Correction]] = {}
    for correction in run.corrections():
        if correction.action == "deleted" and correction.effective and correction.before_box is not None:
            deleted.setdefault(correction.path, []).append(correction)
    image: list[int] = []
    boxes: list[Float] = []
    shown: list[Float] = []
    label: list[int] = []
    ids: list[str] = []
    human: list[bool] = []
    crowd: list[bool] = []
    shapes: list[Mask | None] = []
    scores: list[float] = []
    for place, item in enumerate(run):
        for one in item.annotations:
            label.append(one.label_id)
            ids.append(one.id)
            human.append(one.origin == "human")
            shapes.append(one.mask)
            scores.append(np.nan if one.mask_score is None else one.mask_score)
        gone = deleted.get(item.image.path, [])
        label += [-1] * len(gone)
        ids += [one.annotation_id for one in gone]
        human += [True] * len(gone)
        shapes += [None] * len(gone)
        scores += [np.nan] * len(gone)
        crowd += [False] * len(item.annotations) + [True] * len(gone)
        image += [place] * (len(item.annotations) + len(gone))
        # An image's boxes at once, as arrays: a million tuples of numbers take a tenth of what a pass may hold.
        deleted_xyxy = [one.before_box.xyxy for one in gone if one.before_box is not None]
        boxes.append(_stacked([*(one.proposed_box.xyxy for one in item.annotations), *deleted_xyxy]))
        shown.append(_stacked([*(one.box.xyxy for one in item.annotations), *deleted_xyxy]))
    proposed, settled = np.concatenate([_stacked([]), *boxes]), np.concatenate([_stacked([]), *shown])
    return Labels(
        np.array(image, np.int64),
        proposed,
        np.array(label, np.int64),
        ids,
        np.array(human, np.bool_),
        np.array(crowd, np.bool_),
        shapes if any(shape is not None for shape in shapes) else None,
        np.array(scores, np.float32),
        None if np.array_equal(proposed, settled) else settled,
    )


def _stacked(boxes: Sequence[Sequence[float]]) -> Float:
    return np.array(boxes, np.float32).reshape(-1, 4)


def reviewed_images(run: Run, pictures: Pictures) -> Flags:
    """Tell which images ``(I,)`` a person declared complete."""
    done = {(review.path, review.image_id) for review in run.reviews() if review.state == "complete"}
    return np.array([key in done for key in zip(pictures.paths, pictures.ids, strict=True)], np.bool_)


def evidence_of_run(run: Run, pictures: Pictures, *, masks: bool, boxes: BoxSource = "detector") -> RunEvidence:
    """Read all proposals: both opinions over the run's classes, embeddings and mask scores.

    The run's own labels are found again by the detector's ``boxes``; labels from elsewhere are better judged by those
    of the masks, which lie closer.
    """
    known, classes = len(run.ontology.classes), len(run.labels.classes)
    place_of = {path: place for place, path in enumerate(pictures.paths)}
    image: list[Ints] = []
    found: list[Reals] = []
    scores: list[Reals] = []
    probs: list[Reals] = []
    embeddings: list[Reals] = []
    mask_scores: list[Reals] = []
    shapes: list[Any] = []
    for one in run.proposals():
        count = len(one.boxes_xyxy)
        if not count:
            continue  # a shard without proposals does not know how wide its embeddings would be
        image.append(np.full(count, place_of[one.image.path], np.int64))
        own = one.boxes_xyxy
        found.append(own if boxes == "detector" else settled_boxes(own, mask_boxes(one.masks), one.mask_scores))
        scores.append(one.class_scores.astype(np.float16))
        mask_scores.append(one.mask_scores)
        if one.class_probs is not None:
            probs.append(one.class_probs.astype(np.float16))
        if one.embeddings is not None:
            embeddings.append(one.embeddings.astype(np.float16))
        if masks:
            shapes += one.masks
    if not image:
        return RunEvidence(Evidence.empty(), np.zeros(0, np.float32))
    images, detector = np.concatenate(image), np.concatenate(scores)
    opinions = [(DETECTOR, _widened(detector[:, :known], classes))]
    negative = np.zeros(len(images), np.float32)
    if probs:
        classifier = np.concatenate(probs)
        negative = classifier[:, known:].astype(np.float32).sum(1)
        opinions.append((CLASSIFIER, _widened(classifier[:, :known], classes)))
    by_class = detector[:, :known].astype(np.float32)
    segmented = np.concatenate(mask_scores).astype(np.float32)
    evidence = Evidence(
        images,
        np.concatenate(found).astype(np.float32),
        by_class.argmax(1),
        by_class.max(1),
        np.zeros(len(images), np.int64),
        ("proposals",),
        tuple(opinions),
        np.concatenate(embeddings) if embeddings else None,
        segmented if np.isfinite(segmented).any() else None,
        shapes if any(shape is not None for shape in shapes) else None,
    )
    return RunEvidence(evidence, negative)


def _widened(values: Any, classes: int) -> Any:
    """Add empty columns for classes that only people used."""
    return np.pad(values, ((0, 0), (0, classes - values.shape[1])))
