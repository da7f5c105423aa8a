"""What people decided about a run: kept beside the models' output, laid over it on reading, never overwritten by it.

::

    RUN/corrections/label-studio-defects.parquet    one file for each source, replaced whole

A source is one project of one tool. Decisions hold for the content of an image: where a file has changed since, they
are kept and not applied.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from autolabel import columns, parquet, shards
from autolabel.errors import StoreError
from autolabel.geometry import box_iou, intersections
from autolabel.ontology import LabelClass, Ontology, normalise
from autolabel.types import AnnotatedImage, Annotation, Box, Correction, Mask, Review

FOLDER = "corrections"
SAME_OBJECT_IOU = 0.5
"""A model's box that overlaps a person's region more than this is the same object, and the person's stands."""

_BOX = ("x_min", "y_min", "x_max", "y_max")
_TEXTS = ("action", "path", "image_id", "annotation_id", "label", "before_label", "by", "at", "source")
_NUMBERS = ("before_score", "iou", "seconds")
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _TEXTS),
        *((name, pa.float64()) for name in _NUMBERS),
        ("effective", pa.bool_()),
        *((f"{prefix}{name}", pa.float64()) for prefix in ("", "before_") for name in _BOX),
        *(
            (f"{prefix}{name}", kind)
            for prefix in ("", "before_")
            for name, kind in (("mask_height", pa.int32()), ("mask_width", pa.int32()), ("mask_counts", pa.binary()))
        ),
    ]
)
Decision = Correction | Review


@dataclass(frozen=True, slots=True)
class ImageDecisions:
    """What stands of all that was decided about one image: one correction for a region, and the latest review."""

    corrections: Mapping[str, Correction] = field(default_factory=dict)
    review: Review | None = None


def write_decisions(run: Path, source: str, decisions: Iterable[Decision]) -> Path:
    """Replace what ``source`` says about a run, atomically; returns the file."""
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    rows = [_to_row(replace(decision, source=source)) for decision in decisions]
    path = folder / f"{source_slug(source)}.parquet"
    shards.write_table(path, columns.table(rows, _SCHEMA), shards.StageNotes())
    return path


def read_decisions(run: Path, source: str | None = None) -> list[Decision]:
    """Read what people decided about a run, of one source or of all, in the order of time."""
    paths = [run / FOLDER / f"{source_slug(source)}.parquet"] if source else sorted((run / FOLDER).glob("*.parquet"))
    decisions = [_from_row(row) for path in paths if path.is_file() for row in parquet.read_rows(path)]
    return sorted(decisions, key=lambda decision: (decision.at, decision.path))


def source_slug(source: str) -> str:
    """File name of a source: lower case, digits and dashes."""
    slug = re.sub(r"[^a-z0-9]+", "-", source.lower()).strip("-")
    if not slug:
        raise StoreError(f"a source needs a name of letters or digits, got {source!r}")
    return slug


def standing(decisions: Iterable[Decision]) -> dict[tuple[str, str], ImageDecisions]:
    """Index by (path, image id) what stands: for a region, and for an image, the newest decision."""
    corrections: dict[tuple[str, str], dict[str, Correction]] = {}
    reviews: dict[tuple[str, str], Review] = {}
    for decision in sorted(decisions, key=lambda decision: decision.at):
        key = decision.path, decision.image_id
        if isinstance(decision, Review):
            reviews[key] = decision
        elif decision.effective:
            corrections.setdefault(key, {})[decision.annotation_id] = decision
    return {
        key: ImageDecisions(corrections.get(key, {}), reviews.get(key)) for key in corrections.keys() | reviews.keys()
    }


def labels_of(ontology: Ontology, decisions: Iterable[Decision]) -> Ontology:
    """Classes a run's labels can have: the ontology's, then those that only people used; no negatives."""
    known = {normalise(label.name) for label in ontology.classes}
    extra: dict[str, str] = {}
    for decision in decisions:
        label = decision.label if isinstance(decision, Correction) else None
        if label and normalise(label) not in known:
            extra.setdefault(normalise(label), label)
    return Ontology((*ontology.classes, *(LabelClass(extra[name]) for name in sorted(extra))))


def apply(item: AnnotatedImage, decided: ImageDecisions | None, labels: Ontology) -> AnnotatedImage:
    """Lay a person's decisions over the models' annotations of one image.

    A region somebody decided about is as decided, whatever the thresholds. On an image reviewed as complete nothing
    else remains; on others a model's box gives way where it overlaps a person's region or one that was deleted.
    """
    if decided is None:
        return item
    ids = {normalise(label.name): place for place, label in enumerate(labels.classes)}
    models = {annotation.id: annotation for annotation in item.annotations}
    human = [
        _as_annotation(correction, models.get(correction.annotation_id), labels, ids)
        for correction in decided.corrections.values()
        if correction.box is not None and correction.label is not None
    ]
    if decided.review is not None and decided.review.state == "complete":
        return AnnotatedImage(item.image, tuple(human))
    rest = [annotation for annotation in item.annotations if annotation.id not in decided.corrections]
    claimed = [box for c in decided.corrections.values() if (box := c.box or c.before_box) is not None]
    if rest and claimed:
        overlap = box_iou(_boxes([a.box for a in rest]), _boxes(claimed)).max(axis=1)
        rest = [annotation for annotation, iou in zip(rest, overlap, strict=True) if iou <= SAME_OBJECT_IOU]
    return AnnotatedImage(item.image, (*human, *rest))


def overlap_iou(a: tuple[Box, Mask | None], b: tuple[Box, Mask | None]) -> float:
    """IoU of two regions in [0, 1]: of their masks where both have one, else of their boxes."""
    (box_a, mask_a), (box_b, mask_b) = a, b
    if mask_a is not None and mask_b is not None and (mask_a.height, mask_a.width) == (mask_b.height, mask_b.width):
        from pycocotools import mask as coco_mask

        if not mask_a.area and not mask_b.area:
            return 1.0
        return float(coco_mask.iou([mask_a.to_coco()], [mask_b.to_coco()], [0])[0, 0])
    first, second = np.array([box_a.xyxy]), np.array([box_b.xyxy])
    inter = float(intersections(first, second)[0, 0])
    union = box_a.area + box_b.area - inter
    return inter / union if union > 0 else float(box_a == box_b)


def _as_annotation(
    correction: Correction, model: Annotation | None, labels: Ontology, ids: Mapping[str, int]
) -> Annotation:
    assert correction.box is not None
    assert correction.label is not None
    label_id = ids[normalise(correction.label)]
    values: dict[str, Any] = {
        "box": correction.box,
        "mask": correction.mask,
        "label": labels.classes[label_id].name,
        "label_id": label_id,
        "origin": "human",
    }
    if model is not None:
        # The models' opinions stay readable; their mask score speaks of a mask that may be gone.
        kept = model.mask_score if correction.mask == model.mask else None
        proposed = model.detector_box if correction.box == model.box else None
        return replace(model, **values, mask_score=kept, detector_box=proposed)
    return Annotation(id=correction.annotation_id, image_id=correction.image_id, score=1.0, phrase_scores=(), **values)


def _boxes(boxes: Sequence[Box]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array([box.xyxy for box in boxes], np.float32).reshape(-1, 4)


def _to_row(decision: Decision) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(decision, name, None) for name in (*_TEXTS, *_NUMBERS)}
    if isinstance(decision, Review):
        return {**row, "action": decision.state, "effective": True}
    row["effective"] = decision.effective
    for prefix in ("", "before_"):
        box, mask = getattr(decision, f"{prefix}box"), getattr(decision, f"{prefix}mask")
        if box is not None:
            row |= {f"{prefix}{name}": getattr(box, name) for name in _BOX}
        if mask is not None:
            row |= {
                f"{prefix}mask_height": mask.height,
                f"{prefix}mask_width": mask.width,
                f"{prefix}mask_counts": mask.counts,
            }
    return row


def _from_row(row: Mapping[str, Any]) -> Decision:
    if row["action"] in ("complete", "skipped"):
        shared = {name: row[name] for name in ("path", "image_id", "by", "at", "source", "seconds")}
        return Review(state=row["action"], **shared)
    shapes: dict[str, Any] = {}
    for prefix in ("", "before_"):
        box = [row[f"{prefix}{name}"] for name in _BOX]
        mask = [row[f"{prefix}mask_{name}"] for name in ("height", "width", "counts")]
        shapes[f"{prefix}box"] = None if box[0] is None else Box(*box)
        shapes[f"{prefix}mask"] = None if mask[2] is None else Mask(*mask)
    values = {name: row[name] for name in (*_TEXTS, *_NUMBERS)}
    return Correction(**values, **shapes, effective=row["effective"])
