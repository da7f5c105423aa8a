"""One image of a run as FiftyOne stores a sample: plain values, built without FiftyOne, a hundred times faster.

FiftyOne's own objects cost a millisecond a region. What is written here is what they would write; a test holds the
two against each other.
"""

from __future__ import annotations

import hashlib
import io
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autolabel.corrections import ImageDecisions
from autolabel.ontology import Ontology
from autolabel.types import AnnotatedImage, Annotation, LabelIssue, Mask
from autolabel_connectors.fiftyone import fields
from autolabel_connectors.fiftyone.convert import Bools, to_crop, to_relative

FORMAT = 1
"""Raised when a sample is written differently, so that older datasets are refreshed."""

Document = dict[str, Any]
_NAMESPACE = uuid.UUID("6f0b1f0e-8a55-5b62-9a0c-2f0f6c1c7a34")


@dataclass(frozen=True, slots=True)
class Subject:
    """All that is shown about one image: where its file lies, the effective annotations, open issues, decisions."""

    item: AnnotatedImage
    filepath: str
    issues: tuple[LabelIssue, ...] = ()
    decided: ImageDecisions | None = None
    duplicate_group: str | None = None

    def digest(self, ontology: Ontology) -> str:
        """Stand for everything that is shown, so that an unchanged sample is not written again."""
        image, decided = self.item.image, self.decided
        known = decided.corrections if decided else {}
        parts = (
            FORMAT,
            self.filepath,
            (image.path, image.id, image.width, image.height),
            [(_values(a), known[a.id].by if a.id in known else None) for a in self.item.annotations],
            [(i.kind, i.quality, i.flagged, i.reason, i.annotation_id, i.suggested_label, i.box, i.related)
             for i in self.issues],
            decided.review if decided else None,
            self.duplicate_group,
            [label.name for label in ontology.all_classes],
        )  # fmt: skip
        return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()


def sample_fields(subject: Subject, ontology: Ontology) -> Document:
    """Build the fields of a sample that are ours, ``shown`` with them."""
    image = subject.item.image
    annotations = subject.item.annotations
    known = {annotation.id for annotation in annotations}
    by_annotation: dict[str, list[LabelIssue]] = {}
    for issue in subject.issues:
        if issue.annotation_id in known:
            by_annotation.setdefault(str(issue.annotation_id), []).append(issue)
    crops = [None if a.mask is None else to_crop(a.mask, a.box) for a in annotations]
    regions = [
        _annotation(annotation, crop, subject, by_annotation.get(annotation.id, ()), ontology)
        for annotation, crop in zip(annotations, crops, strict=True)
    ]
    # Doubts that are not flagged are many, and a box for each would hide what is flagged.
    placed = [issue for issue in subject.issues if issue.box is not None and issue.flagged]
    doubts = [_doubt(issue, subject) for issue in placed]
    whole = [issue for issue in subject.issues if issue.box is None and issue.annotation_id is None and issue.flagged]
    flagged = [issue for issue in subject.issues if issue.flagged]
    worst = min((issue.quality for issue in flagged or subject.issues), default=None)
    review = subject.decided.review if subject.decided else None
    uncertain = [region["uncertainty"] for region in regions if "uncertainty" in region]
    document: Document = {
        "filepath": subject.filepath,
        "metadata": {"_cls": "ImageMetadata", "width": image.width, "height": image.height},
        "path": image.path,
        "image_id": image.id,
        "review": {None: "todo", "complete": "reviewed", "skipped": "skipped"}[review.state if review else None],
        "reviewed_by": review.by if review else None,
        fields.ANNOTATIONS: {"_cls": "Detections", "detections": regions},
        fields.DOUBTS: {"_cls": "Detections", "detections": doubts},
        fields.IMAGE_ISSUES: {"_cls": "Classifications", "classifications": [_issue(i, image.path) for i in whole]},
        "annotation_count": len(regions),
        "human_count": sum(annotation.origin == "human" for annotation in annotations),
        "flagged_count": len(flagged),
        "worst_quality": worst,
        "issue_kinds": sorted({issue.kind for issue in flagged}),
        "uncertainty": max(uncertain, default=None),
        "disagreements": sum(bool(region.get("disagree")) for region in regions),
        "duplicate_group": subject.duplicate_group,
        fields.SHOWN: {
            "digest": subject.digest(ontology),
            fields.ANNOTATIONS: [_shown(region, crop) for region, crop in zip(regions, crops, strict=True)],
            fields.DOUBTS: [
                {**_shown(doubt, None), "doubt_id": doubt_id(issue)}
                for doubt, issue in zip(doubts, placed, strict=True)
            ],
        },
    }
    return document


def _shown(region: Mapping[str, Any], crop: Bools | None) -> Document:
    """Note what a region looked like when it was shown."""
    return {
        "id": str(region["_id"]),
        "annotation_id": region.get("annotation_id"),
        "label": region.get("label"),
        "box": list(region["bounding_box"]),
        "mask": mask_digest(region.get("mask")),
        "pixels": None if crop is None else _pixel_digest(crop),
    }


def mask_digest(mask: bytes | None) -> str | None:
    """Stand for a mask's stored bytes."""
    return None if mask is None else hashlib.blake2b(mask, digest_size=8).hexdigest()


def pixel_digest(mask: bytes | None) -> str | None:
    """Stand for a mask's pixels, however they are packed."""
    if mask is None:
        return None
    return _pixel_digest(unpack(mask) != 0)


def _pixel_digest(pixels: Bools) -> str:
    return hashlib.blake2b(repr(pixels.shape).encode() + np.packbits(pixels).tobytes(), digest_size=8).hexdigest()


def pack(pixels: Bools) -> bytes:
    """Store an ``(h, w)`` array as FiftyOne does: compressed NumPy format."""
    buffer = io.BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    return zlib.compress(buffer.getvalue(), 1)


def unpack(mask: bytes) -> np.ndarray[Any, np.dtype[Any]]:
    """Read an array as FiftyOne stores it."""
    array: np.ndarray[Any, np.dtype[Any]] = np.load(io.BytesIO(zlib.decompress(mask)), allow_pickle=False)
    return array


def object_id(*parts: str) -> Any:
    """Make the database id of something that has a name of its own: the same at every refresh."""
    from bson import ObjectId

    return ObjectId(hashlib.blake2b("\n".join(parts).encode(), digest_size=12).digest())


def doubt_id(issue: LabelIssue) -> str:
    """Name a doubt by its image, kind and place; an annotation made from it has this id."""
    place = "" if issue.box is None else ",".join(f"{edge:.2f}" for edge in issue.box.xyxy)
    return str(uuid.uuid5(_NAMESPACE, f"{issue.path}\n{issue.image_id}\n{issue.kind}\n{place}"))


def duplicate_groups(issues: Iterable[LabelIssue]) -> dict[str, str]:
    """Group images that duplicate issues relate to each other: path → the first path of its group."""
    parents: dict[str, str] = {}
    paths: dict[str, str] = {}
    found = [issue for issue in issues if "duplicate" in issue.kind and issue.annotation_id is None]
    for issue in found:
        paths.setdefault(issue.image_id, issue.path)

    def root(path: str) -> str:
        while parents.setdefault(path, path) != path:
            path = parents[path]
        return path

    for issue in found:
        for other in issue.related:
            a, b = sorted((root(issue.path), root(paths.get(other, other))))
            parents[b] = a
    return {path: root(path) for path in list(parents)}


def opinions(annotation: Annotation, ontology: Ontology) -> Document:
    """Say what the detector and the classifier each think, whether they agree, and how sure they are."""
    names = [label.name for label in ontology.all_classes]
    values: Document = {}
    for key, number, scores in (
        ("detector", "score", annotation.phrase_scores),
        ("classifier", "prob", annotation.class_probs),
    ):
        if scores and len(scores) == len(names):
            best = max(range(len(scores)), key=scores.__getitem__)
            values |= {f"{key}_label": names[best], f"{key}_{number}": scores[best]}
    if "detector_label" in values and "classifier_label" in values:
        values["disagree"] = values["detector_label"] != values["classifier_label"]
    scores = annotation.class_probs or annotation.phrase_scores
    if annotation.origin == "model" and len(scores) > 1:
        first, second = sorted(scores, reverse=True)[:2]
        values["uncertainty"] = 1.0 - (first - second)
    return values


def _annotation(
    annotation: Annotation, crop: Bools | None, subject: Subject, issues: Sequence[LabelIssue], ontology: Ontology
) -> Document:
    image = subject.item.image
    decided = subject.decided.corrections.get(annotation.id) if subject.decided else None
    values: Document = {
        "_id": object_id(image.path, annotation.id),
        "_cls": "Detection",
        "tags": [],
        "attributes": {},
        "label": annotation.label,
        "bounding_box": to_relative(annotation.box, (image.width, image.height)),
        "confidence": annotation.score,
        "annotation_id": annotation.id,
        "origin": annotation.origin,
        "flagged": any(issue.flagged for issue in issues),
        "issues": sorted({issue.kind for issue in issues if issue.flagged}),
        **opinions(annotation, ontology),
    }
    if crop is not None:
        values["mask"] = pack(crop)
    if annotation.mask_score is not None:
        values["mask_score"] = annotation.mask_score
    if decided is not None and decided.by:
        values["decided_by"] = decided.by
    if issues:
        ranked = sorted(issues, key=lambda issue: (not issue.flagged, issue.quality))
        values["kind"] = ranked[0].kind
        values["quality"] = ranked[0].quality
        values["reason"] = "; ".join(
            dict.fromkeys(issue.reason for issue in ranked if issue.flagged or issue is ranked[0])
        )
        values["related"] = sorted({other for issue in ranked for other in issue.related})
        suggested = next((issue.suggested_label for issue in ranked if issue.suggested_label), None)
        if suggested is not None:
            values["suggested_label"] = suggested
    return values


def _doubt(issue: LabelIssue, subject: Subject) -> Document:
    image = subject.item.image
    assert issue.box is not None
    place = {"bounding_box": to_relative(issue.box, (image.width, image.height)), "attributes": {}}
    values = {**_issue(issue, image.path), **place, "_cls": "Detection"}
    values["label"] = issue.suggested_label or issue.kind
    return values


def _issue(issue: LabelIssue, path: str) -> Document:
    values: Document = {
        "_id": object_id(path, "issue", doubt_id(issue), issue.annotation_id or "", *issue.related),
        "_cls": "Classification",
        "tags": [],
        "label": issue.kind,
        "confidence": 1.0 - issue.quality,
        "kind": issue.kind,
        "quality": issue.quality,
        "flagged": issue.flagged,
        "reason": issue.reason,
        "related": list(issue.related),
    }
    if issue.annotation_id is not None:
        values["annotation_id"] = issue.annotation_id
    if issue.suggested_label is not None:
        values["suggested_label"] = issue.suggested_label
    return values


def _values(annotation: Annotation) -> tuple[object, ...]:
    mask: Mask | None = annotation.mask
    return (
        annotation.id,
        annotation.box.xyxy,
        annotation.label,
        annotation.score,
        annotation.phrase_scores,
        annotation.class_probs,
        mask.counts if mask else None,
        annotation.mask_score,
        annotation.origin,
    )
