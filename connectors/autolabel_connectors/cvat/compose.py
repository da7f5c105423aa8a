"""What a CVAT frame should show for one image of a run: its shapes, with scores and doubts as attributes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from autolabel.errors import AutolabelError
from autolabel.types import AnnotatedImage, Annotation, Image, LabelIssue
from autolabel_connectors.cvat.convert import from_shapes, to_shapes, validate
from autolabel_connectors.cvat.labels import MODEL, NOISE, NOISE_REASON, NOISE_VALUES, SUGGESTED, Labels
from autolabel_connectors.losses import Losses
from autolabel_connectors.merge import shape_digest
from autolabel_connectors.ranking import flagged
from autolabel_connectors.receipts import Receipt
from autolabel_connectors.shapes import DrawnKind, ShapeOptions, draw
from autolabel_connectors.weight import freeze_warning, weigh

if TYPE_CHECKING:
    from autolabel.connect import PushOptions, Shape

Row = dict[str, Any]
_LONGEST_TEXT = 500
_KINDS: tuple[DrawnKind, ...] = ("box", "polygon", "mask")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the server should hold for one image: ``shapes`` of each annotation."""

    image: Image
    annotations: Mapping[str, Annotation]
    shapes: Mapping[str, list[Row]]


@dataclass(slots=True)
class Composer:
    """Writes shapes for one project and checks them, as CVAT accepts what is wrong; ``warnings``, ``losses`` gather."""

    labels: Labels
    options: PushOptions
    version: str
    issues: Mapping[str, Sequence[LabelIssue]] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)
    losses: Losses = field(default_factory=Losses)

    def doubts(self, image: Image) -> list[LabelIssue]:
        """Label issues about an image as it is now."""
        return [doubt for doubt in self.issues.get(image.path, ()) if doubt.image_id == image.id]

    def compose(self, item: AnnotatedImage, frame: int, frames: int) -> Wanted:
        """Write one image's shapes for a task of ``frames`` frames; raises AutolabelError where one would be wrong."""
        limits = ShapeOptions(max_vertices=self.options.max_vertices, min_iou=self.options.min_iou)
        doubts = self.doubts(item.image)
        drawings = [draw(annotation, self._kind(annotation), limits) for annotation in item.annotations]
        shapes = {
            annotation.id: to_shapes(
                annotation, item.image, drawing, self.labels, frame=frame, attributes=self._notes(annotation, doubts)
            )
            for annotation, drawing in zip(item.annotations, drawings, strict=True)
        }
        self.losses.take(item.image.path, drawings)
        if warning := freeze_warning(weigh(item.image, drawings), "cvat", item.image):
            self.warnings[warning] = None
        for annotation_id, parts in shapes.items():
            for part in parts:
                if problems := validate(part, item.image, frames, self.labels):
                    said = "; ".join(map(str, problems[:3]))
                    raise AutolabelError(f"annotation {annotation_id} of {item.image.path!r} cannot be shown: {said}")
        return Wanted(item.image, {a.id: a for a in item.annotations}, shapes)

    def receipt(self, wanted: Wanted, annotation_id: str, task: int, remote_ids: Sequence[str] = ()) -> Receipt:
        """Return the receipt of one annotation as it is sent."""
        annotation, parts = wanted.annotations[annotation_id], wanted.shapes[annotation_id]
        return Receipt(
            path=wanted.image.path,
            image_id=wanted.image.id,
            annotation_id=annotation_id,
            remote_task=str(task),
            remote_ids=tuple(remote_ids),
            digest=sent_digest(parts, annotation_id, wanted.image, self.labels),
            payload=payload_of(parts),
            label=annotation.label,
            box=annotation.box,
            mask=annotation.mask,
            score=annotation.score,
            model_version=self.version,
            pushed_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        )

    def digests(self, wanted: Wanted, annotation_id: str) -> set[str]:
        """Every geometry that a push of this annotation may have given it, whatever the options were."""
        annotation, found = wanted.annotations[annotation_id], set()
        limits = ShapeOptions(max_vertices=self.options.max_vertices, min_iou=self.options.min_iou)
        for kind in _KINDS:
            parts = to_shapes(annotation, wanted.image, draw(annotation, kind, limits), self.labels, frame=0)
            found.add(sent_digest(parts, annotation_id, wanted.image, self.labels))
        return found

    def _kind(self, annotation: Annotation) -> Shape:
        """How to draw an annotation; where that is ours to choose, a label that allows one kind of shape decides."""
        label = self.labels.by_name.get(annotation.label)
        only = label.only if label is not None and self.options.shape == "auto" else None
        return only or self.options.shape

    def _notes(self, annotation: Annotation, doubts: Iterable[LabelIssue]) -> dict[str, str]:
        found = flagged(doubts, annotation.id)
        notes = {NOISE: NOISE_VALUES[bool(found)], MODEL: self.version}
        if found:
            notes[NOISE_REASON] = message_of(found)
            suggested = next((doubt.suggested_label for doubt in found if doubt.suggested_label), None)
            if suggested:
                notes[SUGGESTED] = suggested
        return notes


def message_of(doubts: Iterable[LabelIssue]) -> str:
    """Say in one line what is doubted."""
    text = "; ".join(f"{doubt.kind} ({doubt.quality:.2f}): {doubt.reason}" for doubt in doubts)
    return " ".join(text.split())[:_LONGEST_TEXT]


def sent_digest(parts: Sequence[Mapping[str, Any]], annotation_id: str, image: Image, labels: Labels) -> str:
    """Stand for the geometry of an annotation's shapes, as it will be read back."""
    numbered = [{**part, "id": number} for number, part in enumerate(parts)]
    ids = {str(number): annotation_id for number in range(len(parts))}
    return shape_digest(from_shapes(numbered, image, labels, ids)[0])


def payload_of(parts: Sequence[Mapping[str, Any]]) -> str:
    """Stand for all that was sent about one annotation, but for the frame it is on, and for each attribute alone."""
    values = [{key: value for key, value in part.items() if key != "frame"} for part in parts]
    whole = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
    return " ".join([whole, *(f"{spec}={_short(text)}" for spec, text in sorted(_values(parts[0]).items()))])


def marked(payload: str, held: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a person changed an attribute or a flag of shapes since ``payload`` was sent.

    Attributes that the label has had only since then do not count, nor does what is not known to have been sent.
    """
    _, *texts = payload.split(" ")
    if not texts:
        return False
    sent = dict(text.split("=") for text in texts)
    return any(
        bool(shape.get("occluded"))
        or bool(shape.get("z_order"))
        or any(sent.get(str(spec), short) != short for spec, short in _shorts(shape).items())
        for shape in held
    )


def part_digest(shape: Mapping[str, Any]) -> str:
    """Stand for label and outline of one shape, sent or read back."""
    points = [round(float(value), 2) for value in shape.get("points") or ()]
    values = [shape.get("type"), shape.get("label_id"), points, round(float(shape.get("rotation") or 0.0), 2)]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def same_notes(sent: Sequence[Mapping[str, Any]], held: Sequence[Mapping[str, Any]]) -> bool:
    """Whether shapes on the server hold all attributes that would be sent."""
    wanted = {part_digest(part): _values(part) for part in sent}
    return all(wanted.get(part_digest(part), {"": ""}).items() <= _values(part).items() for part in held)


def _shorts(shape: Mapping[str, Any]) -> dict[Any, str]:
    return {spec: _short(text) for spec, text in _values(shape).items()}


def _short(text: str) -> str:
    """Stand for an attribute's text; a number may be written in another way by the server."""
    try:
        text = f"{float(text):.4f}"
    except ValueError:
        text = text.strip()
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _values(shape: Mapping[str, Any]) -> dict[Any, str]:
    return {item["spec_id"]: str(item["value"]) for item in shape.get("attributes") or ()}
