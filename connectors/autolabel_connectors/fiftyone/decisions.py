"""A reviewer's verdicts on one image as corrections and reviews of the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autolabel.corrections import overlap_iou
from autolabel.ontology import LabelClass, normalise
from autolabel.types import Action, Annotation, Box, Correction, Image, Mask, Review
from autolabel_connectors.fiftyone import fields
from autolabel_connectors.fiftyone.convert import from_crop_of, from_relative, to_crop, to_relative
from autolabel_connectors.fiftyone.documents import Document, pack, pixel_digest, unpack
from autolabel_connectors.fiftyone.verdicts import SampleVerdicts, Verdict
from autolabel_connectors.merge import added_id
from autolabel_connectors.rle import crop, from_crop

_KEPT_SHARE = 0.5
Before = tuple[str, Box, Mask | None, float | None]
"""What a model had made: label, box, mask, score."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the run says about one image, and who decides when.

    ``effective`` and ``predicted`` are the image's annotations by id; ``standing`` what people decided so far, of any
    source; ``labels`` the classes there are, ``negatives`` those to drop; ``source`` is part of the ids of added
    regions.
    """

    image: Image
    effective: Mapping[str, Annotation]
    predicted: Mapping[str, Annotation]
    standing: Mapping[str, Correction]
    labels: Sequence[LabelClass]
    negatives: Sequence[LabelClass]
    source: str
    by: str | None
    at: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Decisions on one image: what to write, ids whose earlier decision here is withdrawn, what to tell."""

    corrections: tuple[Correction, ...] = ()
    review: Review | None = None
    withdrawn: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    held: frozenset[str] = frozenset()


def decide(found: SampleVerdicts, context: Context) -> Outcome:
    """Turn the verdicts on one sample into decisions.

    On an image marked as reviewed, the shown annotations nobody touched are accepted with it, but for those that
    somebody else decided about in the meantime.
    """
    corrections: list[Correction] = []
    notes, held = list(found.problems), set(found.held)
    for verdict in found.verdicts:
        if verdict.verb == "undo":
            continue
        made = _correction(verdict, context)
        if isinstance(made, Correction):
            corrections.append(made)
            notes += _class_notes(verdict, context)
        else:
            notes.append(made)
            held.add(str(verdict.region["_id"]))
    review = found.review
    if review == "complete" and len(held) > len(found.held):
        review = None
        notes.append("the image is not marked as reviewed until that is settled")
    if review == "complete":
        for verdict in found.untouched:
            if verdict.key not in context.standing:
                made = _correction(verdict, context)
                corrections += [made] if isinstance(made, Correction) else []
    image = context.image
    return Outcome(
        corrections=tuple(corrections),
        review=Review(review, image.path, image.id, context.by, context.at) if review else None,
        withdrawn=frozenset(verdict.key for verdict in found.verdicts if verdict.verb == "undo"),
        notes=tuple(notes),
        held=frozenset(held),
    )


def resolve_label(text: str, labels: Sequence[LabelClass], negatives: Sequence[LabelClass]) -> tuple[str, bool]:
    """Return the class that a reviewer's word stands for, and whether it is one to drop (a negative).

    A class is known by its name or one of its phrases, in any case and spacing; other words are classes of their own.
    """
    wanted = normalise(text)
    everything = [(label, False) for label in labels] + [(label, True) for label in negatives]
    for label, negative in everything:
        if wanted == normalise(label.name):
            return label.name, negative
    for label, negative in everything:
        if wanted in label.prompts:
            return label.name, negative
    return " ".join(text.split()), False


def _correction(verdict: Verdict, context: Context) -> Correction | str:
    if verdict.place == fields.DOUBTS and verdict.verb != "add":
        return _on_doubt(verdict, context)
    if verdict.verb == "delete":
        return _deletion(verdict.key, context)
    if verdict.verb == "add":
        uid, base = added_id(context.source, context.image.path, verdict.key), None
    else:
        uid, base = verdict.key, context.effective.get(verdict.key)
    label = verdict.label or verdict.shown_label or verdict.region["label"]
    if verdict.same_shape and base is not None and _shows(base, verdict.region, context.image):
        return _final(uid, label, (base.box, base.mask), context)
    shape = _drawn(verdict, context)
    if shape is None:
        return _outside(verdict)
    if not verdict.same_shape or uid in context.standing or verdict.region.get("origin") == "human":
        return _final(uid, label, shape, context)
    # The run was resolved otherwise since the app was opened: what the reviewer saw is what the model had made.
    box, mask = shape
    if base is not None and base.mask is not None and _same_pixels(base.mask, box, verdict.region):
        mask = base.mask
    before = verdict.shown_label or label, box, mask, verdict.region.get("confidence")
    return _final(uid, label, (box, mask), context, before)


def _on_doubt(verdict: Verdict, context: Context) -> Correction | str:
    """Settle a suggestion: taken, it is a region or a new place of one; refused, what is there is right."""
    target = context.effective.get(str(verdict.region.get("annotation_id")))
    place = from_relative(verdict.region["bounding_box"], _size(context.image))
    if place is None:
        return _outside(verdict)
    if target is None:
        if verdict.verb == "delete":
            return replace(_deletion(verdict.key, context), before_box=place)
        label = verdict.label or verdict.region.get("suggested_label")
        if not label:
            return f"the {verdict.region['kind']!r} doubt suggests no class; tag it relabel:CLASS to accept it"
        return _final(verdict.key, label, (place, None), context)
    if verdict.verb == "delete":
        return _final(target.id, target.label, (target.box, target.mask), context)
    return _final(target.id, verdict.label or target.label, (place, _within(target.mask, place)), context)


def _final(
    uid: str, label: str, shape: tuple[Box, Mask | None], context: Context, before: Before | None = None
) -> Correction:
    """Write down how a person left a region, beside how the model had made it: ``before``, or what the run says."""
    name, negative = resolve_label(label, context.labels, context.negatives)
    if negative:
        return _deletion(uid, context)
    before = before or _before(uid, context)
    box, mask = shape
    correction = Correction("added", context.image.path, context.image.id, uid, name, box, mask, **_signature(context))
    if before is None:
        return correction
    label_before, box_before, mask_before, score = before
    same = box == box_before and mask == mask_before
    action: Action = "accepted" if same and normalise(name) == normalise(label_before) else "edited"
    return replace(
        correction,
        action=action,
        before_label=label_before,
        before_box=box_before,
        before_mask=mask_before,
        before_score=score,
        iou=1.0 if same else overlap_iou((box_before, mask_before), (box, mask)),
    )


def _deletion(uid: str, context: Context) -> Correction:
    correction = Correction("deleted", context.image.path, context.image.id, uid, **_signature(context))
    before = _before(uid, context)
    if before is not None:
        label, box, mask, score = before
        return replace(correction, before_label=label, before_box=box, before_mask=mask, before_score=score)
    known = context.effective.get(uid)
    return correction if known is None else replace(correction, before_box=known.box)


def _before(uid: str, context: Context) -> Before | None:
    """Return what the model had made: from the run, or where thresholds took it since, from an earlier decision."""
    model = context.predicted.get(uid)
    if model is not None:
        return model.label, model.box, model.mask, model.score
    earlier = context.standing.get(uid)
    if earlier is None or earlier.before_label is None or earlier.before_box is None:
        return None
    return earlier.before_label, earlier.before_box, earlier.before_mask, earlier.before_score


def _drawn(verdict: Verdict, context: Context) -> tuple[Box, Mask | None] | None:
    """Return box and mask as the app holds them, or None if nothing of them lies in the image."""
    xywh, packed = verdict.region["bounding_box"], verdict.region.get("mask")
    box = from_relative(xywh, _size(context.image))
    if box is None:
        return None
    return box, None if packed is None else from_crop_of(unpack(packed), xywh, _size(context.image))


def _shows(annotation: Annotation, region: Document, image: Image) -> bool:
    """Tell whether a region in the app is this annotation, so that the run's own finer geometry can stand for it."""
    ours = to_relative(annotation.box, _size(image))
    scale = (image.width, image.height) * 2
    if any(abs(a - b) * s > 0.01 for a, b, s in zip(ours, region["bounding_box"], scale, strict=True)):
        return False
    if annotation.mask is None:
        return region.get("mask") is None
    return _same_pixels(annotation.mask, annotation.box, region)


def _same_pixels(mask: Mask, box: Box, region: Document) -> bool:
    """Tell whether a region in the app shows this mask, of which it holds what lies in the box."""
    return pixel_digest(pack(to_crop(mask, box))) == pixel_digest(region.get("mask"))


def _within(mask: Mask | None, place: Box) -> Mask | None:
    """Keep the part of a mask inside a new box, if that is most of it."""
    if mask is None:
        return None
    pixels, left, top = crop(mask)
    rows, columns = np.arange(pixels.shape[0]) + top + 0.5, np.arange(pixels.shape[1]) + left + 0.5
    inside = (
        ((rows >= place.y_min) & (rows < place.y_max))[:, None] & (columns >= place.x_min) & (columns < place.x_max)
    )
    kept = pixels & inside
    if kept.sum() < _KEPT_SHARE * pixels.sum() or not kept.any():
        return None
    return from_crop(kept, left, top, (mask.width, mask.height))


def _class_notes(verdict: Verdict, context: Context) -> Iterable[str]:
    if verdict.label is None:
        return
    name, negative = resolve_label(verdict.label, context.labels, context.negatives)
    if negative:
        yield f"{name!r} is a class to drop: the region is deleted"
    elif normalise(name) not in {normalise(label.name) for label in context.labels}:
        yield f"{name!r} is a new class: the run's ontology does not have it"


def _outside(verdict: Verdict) -> str:
    return f"region {verdict.region.get('label')!r}: nothing of its box lies inside the image; move it or delete it"


def _signature(context: Context) -> dict[str, Any]:
    return {"by": context.by, "at": context.at}


def _size(image: Image) -> tuple[int, int]:
    return image.width, image.height
