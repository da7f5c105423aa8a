"""Our annotations as Label Studio results, and Label Studio results as regions of ours.

Label Studio counts in percent of the image as the browser shows it: upright, after EXIF rotation, as our px are. A
turned rectangle turns clockwise around its own top-left corner; an ellipse around its centre.

Declared losses: coordinates are sent to 0.01 px. Polygons have no holes, so holes are joined to their outline; each
part is a polygon of its own, children of the first by ``parentID``, and all come back as one region. A region drawn
as a mask or polygons comes back with the mask's own box. Masks are exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from autolabel.errors import AutolabelError
from autolabel.types import Annotation, Box, Image
from autolabel_connectors.label_studio.brush import encode_bitmask, encode_brush
from autolabel_connectors.label_studio.geometry import form_of, read_geometry
from autolabel_connectors.label_studio.label_config import Control, Controls
from autolabel_connectors.raster import GRID, snap
from autolabel_connectors.regions import merge_parts
from autolabel_connectors.shapes import Drawing, Region, RegionOrigin

META = "autolabel"
"""The key of a region's ``meta`` that holds our annotation id and notes as they were sent."""


@lru_cache(4096)  # a region is written, its receipt made, and both compared with what is there
def region_id(annotation_id: str, part: int = 0) -> str:
    """Return the id of a region: ten letters and digits that follow from ours, and ``-1``, ``-2`` … for more parts."""
    base = hashlib.sha256(annotation_id.encode()).hexdigest()[:10]
    return f"{base}-{part}" if part else base


def to_regions(
    annotation: Annotation,
    image: Image,
    drawing: Drawing,
    controls: Controls,
    meta: Mapping[str, str] | None = None,
    *,
    brush: bytes | None = None,
) -> list[dict[str, Any]]:
    """Write one annotation as items of a ``result`` list.

    It is one item, or one for each polygon; with a separate ``<Labels>`` tag each comes with a second item of the same
    id. ``meta`` are notes for the annotator, shown as ``name: value`` lines; ``brush`` is the mask's code, where it was
    written before. Raises AutolabelError if the project has
    no control for the label and kind.
    """
    control = controls.find(drawing.kind, annotation.label)
    if control is None:
        raise AutolabelError(
            f"label {annotation.label!r} cannot be drawn as {drawing.kind} in this project; add it to the label config"
        )
    notes = dict(meta or {})
    shown = {"text": [f"{name}: {value}" for name, value in notes.items()]} if notes else {}
    common = {
        "to_name": controls.to_name,
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
        "score": round(min(max(annotation.score, 0.0), 1.0), 6),  # the server drops a region that scores 1.0000001
        "meta": {META: {"id": annotation.id, **notes}, **shown},
    }
    items: list[dict[str, Any]] = []
    for part, value in enumerate(_values(drawing, image, control, brush)):
        item = {"id": region_id(annotation.id, part), **common, "value": value}
        if part:
            item["parentID"] = region_id(annotation.id)
        items += _labelled(item, control, control.labels[annotation.label])
    return items


def from_region(item: Mapping[str, Any], image: Image, controls: Controls | None = None) -> Region:
    """Read one item of a ``result`` list; what cannot become an annotation has a ``problem``, and nothing raises."""
    value = _mapping(item.get("value"))
    theirs = _label(value)
    meta = _mapping(item.get("meta"))
    ours = _mapping(meta.get(META))
    attributes = {str(name): str(text) for name, text in ours.items() if name != "id"}
    text = meta.get("text")
    if text:
        attributes["text"] = "\n".join(map(str, text)) if isinstance(text, list) else str(text)
    score = item.get("score")
    remote = str(item.get("id", ""))
    region = Region(
        remote_id=remote,
        kind="unknown",
        label=controls.ours(theirs) if controls and theirs is not None else theirs,
        box=None,
        annotation_id=str(ours["id"]) if ours.get("id") else None,
        origin=_origin(item.get("origin")),
        score=float(score) if isinstance(score, int | float) else None,
        attributes=attributes,
        part_ids=(remote,),
    )
    try:
        return read_geometry(region, item, value, image)
    except AutolabelError as error:
        return replace(region, problem=str(error))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        return replace(
            region, problem=f"{item.get('type', 'region')} {remote!r} is damaged: {type(error).__name__} {error}"
        )


def from_regions(
    items: Sequence[Mapping[str, Any]],
    image: Image,
    controls: Controls | None = None,
    ids: Mapping[str, str] | None = None,
) -> list[Region]:
    """Read a whole ``result`` list: one region for each annotation of ours and for each that a person drew.

    Items of one id are one region (a shape and its ``<Labels>``). Polygons that are parts of one annotation become one
    region, unless a person gave a part another label. ``ids`` maps region ids that were sent to annotation ids; without
    it, they are known by their notes. A copy of a region of ours is a new region. Answers about the whole image
    (choices, texts, ratings) are no regions and are left out.
    """
    found: list[tuple[Region, str]] = []
    for group in _by_id(items):
        shape = next((item for item in group if form_of(item) is not None), None)
        if shape is None:
            shape = next((item for item in group if "id" in item and not _is_answer(item)), None)
            if shape is None:
                continue
        region = from_region(shape, image, controls)
        if region.label is None:
            theirs = next((label for item in group if (label := _label(_mapping(item.get("value")))) is not None), None)
            region = replace(region, label=controls.ours(theirs) if controls and theirs is not None else theirs)
        found.append((region, str(shape.get("parentID") or "")))
    return merge_parts(sorted(_owned(found, ids or {}), key=_part))


def _owned(found: Sequence[tuple[Region, str]], ids: Mapping[str, str]) -> list[Region]:
    """Decide which annotation each region, given with its parent's id, stands for.

    A region's own id is proof. Notes alone are not, as a copy carries them too; they count where nothing better is
    there, as after an import that gave new ids: for the first region that has them, and for its children.
    """
    sure = [ids.get(region.remote_id) or _proven(region) for region, _ in found]
    claimed = {owner: "" for owner in sure if owner is not None}
    out = []
    for (region, parent), proven in zip(found, sure, strict=True):
        owner = proven
        if owner is None and region.annotation_id is not None:
            first = claimed.setdefault(region.annotation_id, region.remote_id)
            owner = region.annotation_id if first and first in (region.remote_id, parent) else None
        out.append(replace(region, annotation_id=owner))
    return out


def _proven(region: Region) -> str | None:
    """Return the annotation id in a region's notes if the region's own id follows from it."""
    known = region.annotation_id
    return known if known is not None and region.remote_id.partition("-")[0] == region_id(known) else None


def _part(region: Region) -> int:
    """Return which part of its annotation a region is, 0 for the first and for what people drew."""
    number = region.remote_id.rpartition("-")[2] if region.annotation_id and "-" in region.remote_id else "0"
    return int(number) if number.isdecimal() else 0


def held_box(box: Box, image: Image) -> Box:
    """Return a box as it comes back from the server: to 0.01 px, and inside the image."""
    # Plain arithmetic: a run has many boxes, and numpy takes twenty times as long for four numbers.
    wide, high = image.width, image.height
    return Box(_held(box.x_min, wide), _held(box.y_min, high), _held(box.x_max, wide), _held(box.y_max, high))


def _held(value: float, extent: int) -> float:
    snapped = round(value * GRID) / GRID
    return 0.0 if snapped <= 0 else float(extent) if snapped >= extent else snapped


def held_region(annotation: Annotation, image: Image, drawing: Drawing) -> Region | None:
    """Return what `from_regions` makes of an annotation as `to_regions` wrote it; None where only reading can tell."""
    remote = region_id(annotation.id)
    known: dict[str, Any] = {"label": annotation.label, "annotation_id": annotation.id, "part_ids": (remote,)}
    if drawing.kind == "box":
        box = held_box(drawing.box, image)
        return Region(remote, "box", box=box, **known) if box.width > 0 and box.height > 0 else None
    if drawing.kind == "mask" and drawing.mask is not None:
        return Region(remote, "mask", box=drawing.box, mask=drawing.mask, **known)
    if drawing.filled is not None and drawing.filled.area:
        known["part_ids"] = tuple(region_id(annotation.id, part) for part in range(len(drawing.rings)))
        return Region(remote, "polygon", box=drawing.box, mask=drawing.filled, **known)
    return None


def _values(drawing: Drawing, image: Image, control: Control, brush: bytes | None) -> list[dict[str, Any]]:
    """Return the geometry of each item, in percent or as a code."""
    if drawing.kind == "mask":
        assert drawing.mask is not None
        if control.form == "bitmask":
            return [{"imageDataURL": encode_bitmask(drawing.mask)}]
        return [{"format": "rle", "rle": encode_brush(drawing.mask) if brush is None else list(brush)}]
    if drawing.kind == "polygon":
        per_px = np.array([100 / image.width, 100 / image.height])
        return [{"points": (snap(ring) * per_px).tolist(), "closed": True} for ring in drawing.rings]
    box = held_box(drawing.box, image)
    x0, x1 = (x * (100 / image.width) for x in (box.x_min, box.x_max))
    y0, y1 = (y * (100 / image.height) for y in (box.y_min, box.y_max))
    return [{"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "rotation": 0}]


def _labelled(item: dict[str, Any], control: Control, label: str) -> list[dict[str, Any]]:
    """Give an item its tag and label; a separate ``<Labels>`` tag has an item of its own, with the same geometry."""
    if control.labels_name is None:
        kind = f"{control.form}labels"
        return [{**item, "from_name": control.name, "type": kind, "value": {**item["value"], kind: [label]}}]
    shape = {**item, "from_name": control.name, "type": control.form}
    words = {**item, "from_name": control.labels_name, "type": "labels", "value": {**item["value"], "labels": [label]}}
    return [shape, words]


def _is_answer(item: Mapping[str, Any]) -> bool:
    """Whether an item answers a question and marks no place."""
    kinds = {"choices", "textarea", "rating", "number", "datetime", "taxonomy", "pairwise", "ranker"}
    return str(item.get("type")) in kinds or item.get("type") == "relation"


def _mapping(value: object) -> Mapping[str, Any]:
    """Return a JSON object, or an empty one in the place of anything else."""
    return value if isinstance(value, Mapping) else {}


def _label(value: Mapping[str, Any]) -> str | None:
    """Return the first label of an item."""
    for name, labels in value.items():
        if (name == "labels" or name.endswith("labels")) and isinstance(labels, list) and labels:
            return str(labels[0])
    return None


def _origin(origin: object) -> RegionOrigin:
    """Label Studio's word for who made a region; what it does not say is a person's."""
    if origin == "prediction":
        return "prediction"
    return "prediction-changed" if origin == "prediction-changed" else "manual"


def _by_id(items: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Group items by id, in order; items without one stand alone."""
    groups: dict[object, list[Mapping[str, Any]]] = {}
    for place, item in enumerate(items):
        groups.setdefault(item.get("id") or ("no id", place), []).append(item)
    return list(groups.values())
