"""What a Label Studio task should show for one image of a run: its regions, scores, doubts and place in the queue."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from autolabel.errors import AutolabelError
from autolabel.types import AnnotatedImage, Annotation, Image, LabelIssue
from autolabel_connectors.label_studio.convert import from_regions, region_id, to_regions
from autolabel_connectors.label_studio.remote import IMAGE_ID, PATH, Key
from autolabel_connectors.merge import shape_digest
from autolabel_connectors.ranking import flagged, priority
from autolabel_connectors.receipts import Receipt
from autolabel_connectors.shapes import Drawing, ShapeOptions, draw
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

    ``extra`` are further fields of the task's data; ``items`` are the result's items of each annotation.
    """

    image: Image
    annotations: tuple[Annotation, ...]
    result: list[dict[str, Any]]
    score: float | None
    items: Mapping[str, list[dict[str, Any]]]
    extra: Mapping[str, Any]

    @property
    def key(self) -> Key:
        """What its task is recognised by."""
        return self.image.id, self.image.path

    def data(self, url: str, image_key: str) -> dict[str, Any]:
        """Return the data of a new task."""
        return {IMAGE_ID: self.image.id, PATH: self.image.path, **self.extra, image_key: url}

    def prediction(self, model_version: str) -> dict[str, Any]:
        """Return the prediction to send."""
        return {"result": self.result, "score": self.score, "model_version": model_version}

    def held_by(self, prediction: Mapping[str, Any], model_version: str) -> bool:
        """Tell whether a prediction on the server is what it should be."""
        return bool(
            prediction.get("result") == self.result
            and prediction.get("score") == self.score
            and prediction.get("model_version") == model_version
        )


@dataclass(slots=True)
class Composer:
    """Writes predictions for one project, and checks them as the server would; ``warnings`` gather what to tell."""

    controls: Controls
    options: PushOptions
    label_config: str
    issues: Mapping[str, Sequence[LabelIssue]] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)
    _validator: LabelInterface | None = None

    def compose(self, item: AnnotatedImage) -> Wanted:
        """Write one image's prediction; raises AutolabelError where the server would drop a part of it."""
        limits = ShapeOptions(max_vertices=self.options.max_vertices, min_iou=self.options.min_iou)
        doubts = [doubt for doubt in self.issues.get(item.image.path, ()) if doubt.image_id == item.image.id]
        drawings = [draw(annotation, self.options.shape, limits) for annotation in item.annotations]
        items = {
            annotation.id: to_regions(annotation, item.image, drawing, self.controls, _notes(annotation, doubts))
            for annotation, drawing in zip(item.annotations, drawings, strict=True)
        }
        result = [part for parts in items.values() for part in parts]
        lowest = min((annotation.score for annotation in item.annotations), default=None)
        score = None if lowest is None else round(min(max(float(lowest), 0.0), 1.0), 6)
        if _heavy(item.image, drawings):
            warning = freeze_warning(weigh(item.image, drawings), "label-studio", item.image)
            if warning:
                self.warnings[warning] = None
        self._check(item.image, result, score)
        return Wanted(item.image, item.annotations, result, score, items, self._extra(item, doubts))

    def receipts(self, wanted: Wanted, task: int, version: str) -> list[Receipt]:
        """Return the receipts of one image's regions, as the server holds them."""
        regions = {r.annotation_id: r for r in from_regions(wanted.result, wanted.image, self.controls)}
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        return [
            Receipt(
                path=wanted.image.path,
                image_id=wanted.image.id,
                annotation_id=annotation.id,
                remote_task=str(task),
                remote_ids=regions[annotation.id].part_ids or (region_id(annotation.id),),
                digest=shape_digest(regions[annotation.id]),
                payload=payload_of(wanted.items[annotation.id]),
                label=annotation.label,
                box=annotation.box,
                mask=annotation.mask,
                score=annotation.score,
                model_version=version,
                pushed_at=now,
            )
            for annotation in wanted.annotations
            if annotation.id in regions
        ]

    def _extra(self, item: AnnotatedImage, doubts: Sequence[LabelIssue]) -> dict[str, Any]:
        extra: dict[str, Any] = {}
        if self.options.order != "path":
            extra[PRIORITY] = priority(item, doubts, self.options.order)
        whole = flagged(doubts, None)
        if self.issues:
            extra[NOTES] = "; ".join(f"{doubt.kind}: {doubt.reason}" for doubt in whole[:_NOTES_SHOWN])
        return extra

    def _check(self, image: Image, result: list[dict[str, Any]], score: float | None) -> None:
        """Refuse what the server would drop or accept wrongly, by the server's own rules."""
        if self._validator is None:
            from label_studio_sdk.label_interface.interface import LabelInterface

            self._validator = LabelInterface(self.label_config)
        errors = self._validator.validate_prediction(  # type: ignore[no-untyped-call]
            {"result": result, "score": score, "model_version": "autolabel"}, return_errors=True
        )
        errors = list(errors) if isinstance(errors, list) else []
        ids = Counter(str(part["id"]) for part in result if part["type"] != "labels")
        errors += [f"two regions have the id {uid!r}" for uid, count in ids.items() if count > 1]
        if errors:
            raise AutolabelError(
                f"Label Studio would not take the regions of {image.path!r}: {'; '.join(map(str, errors[:3]))}; check "
                "the project's label config, or push to another --project"
            )


def _heavy(image: Image, drawings: Sequence[Drawing]) -> bool:
    """Tell whether an image's regions are worth weighing, which takes as long as drawing them."""
    brush_bytes = 4 * image.width * image.height * sum(drawing.mask is not None for drawing in drawings)
    shapes = sum(max(1, len(drawing.rings)) for drawing in drawings)
    return brush_bytes > MAX_BRUSH_BYTES or shapes > MAX_SHAPES or sum(d.vertices for d in drawings) > MAX_VERTICES


def payload_of(items: Sequence[Mapping[str, Any]]) -> str:
    """Stand for all that was sent about one annotation."""
    return hashlib.sha256(json.dumps(items, sort_keys=True).encode()).hexdigest()[:16]


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
