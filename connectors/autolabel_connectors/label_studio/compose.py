"""What a Label Studio task should show for one image of a run: its regions, scores, doubts and place in the queue."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from autolabel.errors import AutolabelError
from autolabel.models.imports import import_light
from autolabel.types import AnnotatedImage, Annotation, Image, LabelIssue
from autolabel_connectors.label_studio.brush import encode_brushes
from autolabel_connectors.label_studio.convert import from_regions, held_region, region_id, to_regions
from autolabel_connectors.label_studio.remote import IMAGE_ID, PATH, Key
from autolabel_connectors.losses import Losses
from autolabel_connectors.merge import shape_digest
from autolabel_connectors.ranking import flagged, priority
from autolabel_connectors.receipts import Receipt
from autolabel_connectors.shapes import Drawing, Region, ShapeOptions, draw_all
from autolabel_connectors.weight import MAX_BRUSH_BYTES, MAX_SHAPES, MAX_VERTICES, freeze_warning, weigh

if TYPE_CHECKING:
    from label_studio_sdk.label_interface.interface import LabelInterface

    from autolabel.connect import PushOptions
    from autolabel_connectors.label_studio.label_config import Controls

PRIORITY, NOTES = "priority", "autolabel_notes"
_NOTES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the server should hold for one image: the items of a prediction's ``result`` and its ``score``.

    ``extra`` are further fields of the task's data; ``marks`` are the receipts of its regions, without a task.
    """

    image: Image
    result: list[dict[str, Any]]
    score: float | None
    version: str
    extra: Mapping[str, Any]
    marks: tuple[Receipt, ...]

    @property
    def key(self) -> Key:
        """What its task is recognised by."""
        return self.image.id, self.image.path

    def data(self, url: str, image_key: str) -> dict[str, Any]:
        """Return the data of a new task."""
        return {IMAGE_ID: self.image.id, PATH: self.image.path, **self.extra, image_key: url}

    def receipts(self, task: int, pushed_at: str) -> list[Receipt]:
        """Return the receipts of its regions, as a task holds them."""
        return [replace(mark, remote_task=str(task), pushed_at=pushed_at) for mark in self.marks]

    @property
    def prediction(self) -> dict[str, Any]:
        """The prediction to send."""
        return {"result": self.result, "score": self.score, "model_version": self.version}

    def held_by(self, prediction: Mapping[str, Any]) -> bool:
        """Tell whether a prediction on the server is what it should be."""
        return all(prediction.get(name) == value for name, value in self.prediction.items())


@dataclass(slots=True)
class Composer:
    """Writes predictions for one project, and checks them as the server would; ``warnings`` gather what to tell."""

    controls: Controls
    options: PushOptions
    label_config: str
    version: str
    issues: Mapping[str, Sequence[LabelIssue]] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)
    losses: Losses = field(default_factory=Losses)
    _validator: LabelInterface | None = None
    _proven: set[tuple[Any, ...]] = field(default_factory=set)

    def compose(self, item: AnnotatedImage) -> Wanted:
        """Write one image's prediction; raises AutolabelError where the server would drop a part of it."""
        return next(self.compose_all([item]))

    def compose_all(self, items: Sequence[AnnotatedImage]) -> Iterator[Wanted]:
        """Write the predictions of several images, one after the other; drawn together, as that takes less time."""
        limits = ShapeOptions(max_vertices=self.options.max_vertices, min_iou=self.options.min_iou)
        annotations = [annotation for item in items for annotation in item.annotations]
        drawings = draw_all(annotations, self.options.shape, limits)
        brushes = [
            place
            for place, (annotation, drawing) in enumerate(zip(annotations, drawings, strict=True))
            if self.controls.form(drawing.kind, annotation.label) == "brush"
        ]
        codes = dict(
            zip(brushes, encode_brushes([mask for place in brushes if (mask := drawings[place].mask)]), strict=True)
        )
        first = 0
        for item in items:
            last = first + len(item.annotations)
            yield self._composed(item, drawings[first:last], [codes.pop(place, None) for place in range(first, last)])
            first = last

    def _composed(self, item: AnnotatedImage, drawings: Sequence[Drawing], codes: Sequence[bytes | None]) -> Wanted:
        image = item.image
        doubts = [doubt for doubt in self.issues.get(image.path, ()) if doubt.image_id == image.id]
        items: list[list[dict[str, Any]]] = []
        held: list[Region | None] = []
        for annotation, drawing, code in zip(item.annotations, drawings, codes, strict=True):
            items.append(to_regions(annotation, image, drawing, self.controls, _notes(annotation, doubts), brush=code))
            held.append(held_region(annotation, image, drawing))
        result = [part for parts in items for part in parts]
        lowest = min((annotation.score for annotation in item.annotations), default=None)
        score = None if lowest is None else round(min(max(float(lowest), 0.0), 1.0), 6)
        self.losses.take(image.path, drawings)
        if _heavy(image, drawings):
            warning = freeze_warning(weigh(image, drawings), "label-studio", image)
            if warning:
                self.warnings[warning] = None
        self._check(image, result, score)
        if None in held:
            read = {region.annotation_id: region for region in from_regions(result, image, self.controls)}
            held = [read.get(annotation.id) for annotation in item.annotations]
        marks = tuple(
            self._mark(image, annotation, region, payload_of(parts))
            for annotation, region, parts in zip(item.annotations, held, items, strict=True)
            if region is not None
        )
        return Wanted(image, result, score, self.version, self._extra(item, doubts), marks)

    def _mark(self, image: Image, annotation: Annotation, region: Region, payload: str) -> Receipt:
        return Receipt(
            path=image.path,
            image_id=image.id,
            annotation_id=annotation.id,
            remote_task="",
            remote_ids=region.part_ids or (region_id(annotation.id),),
            digest=shape_digest(region),
            payload=payload,
            label=annotation.label,
            box=annotation.box,
            mask=annotation.mask,
            score=annotation.score,
            model_version=self.version,
        )

    def _extra(self, item: AnnotatedImage, doubts: Sequence[LabelIssue]) -> dict[str, Any]:
        extra: dict[str, Any] = {}
        if self.options.order != "path":
            extra[PRIORITY] = priority(item, doubts, self.options.order)
        whole = flagged(doubts, None)
        if self.issues:
            extra[NOTES] = "; ".join(f"{doubt.kind}: {doubt.reason}" for doubt in whole[:_NOTES_SHOWN])
        return extra

    def _check(self, image: Image, result: list[dict[str, Any]], score: float | None) -> None:
        """Refuse what the server would drop or accept wrongly, by the server's own rules.

        Its validator is asked about every combination of tag, kind and label once; after that the numbers are looked
        at, which is all that differs.
        """
        kinds = {_kind_of(part) for part in result}
        if not (kinds <= self._proven and all(_sound(part["value"]) for part in result)):
            errors = self._errors(result, score)
            if errors:
                raise AutolabelError(
                    f"Label Studio would not take the regions of {image.path!r}: {'; '.join(errors[:3])}; check the "
                    "project's label config, or push to another --project"
                )
            self._proven |= kinds
        ids = Counter(str(part["id"]) for part in result if part["type"] != "labels")
        if twice := [uid for uid, count in ids.items() if count > 1]:
            raise AutolabelError(f"{image.path!r}: several regions have the id {twice[0]!r}; label the image again")

    def _errors(self, result: list[dict[str, Any]], score: float | None) -> list[str]:
        if self._validator is None:
            import_light("label_studio_sdk.label_interface.interface")
            from label_studio_sdk.label_interface.interface import LabelInterface

            self._validator = LabelInterface(self.label_config)
        errors = self._validator.validate_prediction(  # type: ignore[no-untyped-call]
            {"result": result, "score": score, "model_version": self.version}, return_errors=True
        )
        return list(map(str, errors)) if isinstance(errors, list) else []


def _kind_of(part: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return all that the server's rules ask of a region beside its numbers."""
    value = part["value"]
    words = tuple(tuple(words) for name, words in value.items() if name.endswith("labels"))
    return part["from_name"], part["to_name"], part["type"], words, frozenset(value)


def _sound(value: Mapping[str, Any]) -> bool:
    """Tell whether a region's numbers are where they must be: percent in [0, 100], bytes of a brush."""
    if "rle" in value:
        return bool(value["rle"]) and min(value["rle"]) >= 0 and max(value["rle"]) <= 255
    if "points" in value:
        points = value["points"]
        return len(points) > 2 and min(map(min, points)) >= 0.0 and max(map(max, points)) <= 100.0
    return all(0.0 <= value[name] <= 100.0 for name in ("x", "y", "width", "height") if name in value)


def _heavy(image: Image, drawings: Sequence[Drawing]) -> bool:
    """Tell whether an image's regions are worth weighing, which takes as long as drawing them."""
    brush_bytes = 4 * image.width * image.height * sum(drawing.mask is not None for drawing in drawings)
    shapes = sum(max(1, len(drawing.rings)) for drawing in drawings)
    return brush_bytes > MAX_BRUSH_BYTES or shapes > MAX_SHAPES or sum(d.vertices for d in drawings) > MAX_VERTICES


def payload_of(items: Sequence[Mapping[str, Any]]) -> str:
    """Stand for all that was sent about one annotation."""
    return hashlib.sha256(to_json(items)).hexdigest()[:16]


def _notes(annotation: Annotation, doubts: Iterable[LabelIssue]) -> dict[str, str]:
    """Gather what to tell a person about one region: flagged doubts, the worst first."""
    worst_first = flagged(doubts, annotation.id)
    notes: dict[str, str] = {}
    if worst_first:
        notes["noise"] = "; ".join(f"{doubt.kind} ({doubt.quality:.2f}): {doubt.reason}" for doubt in worst_first)
        notes["quality"] = f"{worst_first[0].quality:.3f}"
        suggested = next((doubt.suggested_label for doubt in worst_first if doubt.suggested_label), None)
        if suggested:
            notes["suggested label"] = suggested
    return notes
