"""Our annotations as CVAT shapes, CVAT shapes as regions of ours, and a check before anything is sent.

Declared losses: coordinates are sent to 0.01 px and scores to four digits. CVAT's polygons have no holes, so holes are
joined to their outline; each part is a polygon of its own in one group, and all come back as one region. A region drawn
as a mask or polygons comes back with the mask's own box. Masks are exact, with any parts and holes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autolabel.errors import AutolabelError
from autolabel.types import Annotation, Image
from autolabel_connectors.cvat.geometry import encode_mask, read_geometry
from autolabel_connectors.cvat.labels import ANNOTATION_ID, NOISE_VALUES, NONE, SCORE, TYPES, AttributeSpec, Labels
from autolabel_connectors.raster import snap
from autolabel_connectors.regions import merge_parts
from autolabel_connectors.shapes import Drawing, Region, RegionOrigin

_ORIGINS: Mapping[str, RegionOrigin] = {"auto": "prediction", "semi-auto": "prediction-changed"}
_CORNERS = {"rectangle": (4, 4), "polygon": (6, None), "mask": (6, None)}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a shape must not be sent: the field, its value, and what to do."""

    field: str
    value: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field} is {self.value}; {self.remedy}"


def group_id(annotation_id: str) -> int:
    """Return the group that the polygons of one annotation share: 1 to 10⁹, and always the same."""
    return 1 + int(hashlib.sha256(annotation_id.encode()).hexdigest(), 16) % 10**9


def to_shapes(
    annotation: Annotation,
    image: Image,
    drawing: Drawing,
    labels: Labels,
    *,
    frame: int,
    attributes: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Write one annotation as the shapes of an annotations request: one, or one for each polygon.

    ``attributes`` are texts by attribute name (``noise``, ``suggested`` …); those that the label does not have are left
    out. Raises AutolabelError if the project has no such label.
    """
    label = labels.by_name.get(annotation.label)
    if label is None:
        raise AutolabelError(f"label {annotation.label!r} is not in the project; add it in the project's settings")
    score = round(min(max(annotation.score, 0.0), 1.0), 4)
    texts = {**(attributes or {}), SCORE: f"{score:.4f}", ANNOTATION_ID: annotation.id}
    common = {
        "label_id": label.id,
        "frame": frame,
        "type": TYPES[drawing.kind],
        "source": "auto",
        "occluded": False,
        "outside": False,
        "z_order": 0,
        "rotation": 0.0,
        "score": score,  # kept by servers from 2.57 on; the attribute is there for all
        "group": group_id(annotation.id) if len(drawing.rings) > 1 else 0,
        "attributes": [
            {"spec_id": spec.id, "value": _text(spec, texts[spec.name])}
            for spec in label.attributes.values()
            if spec.name in texts
        ],
    }
    return [{**common, "points": points} for points in _points(drawing, image)]


def from_shape(shape: Mapping[str, Any], image: Image, labels: Labels) -> Region:
    """Read one shape; what cannot become an annotation has a ``problem``, and nothing raises."""
    remote = str(shape.get("id", ""))
    label_id = shape.get("label_id")
    spec = labels.by_id.get(label_id) if isinstance(label_id, int) else None
    names = {attribute.id: attribute.name for attribute in spec.attributes.values()} if spec else {}
    values = {
        names.get(item["spec_id"], str(item["spec_id"])): str(item["value"]) for item in shape.get("attributes") or ()
    }
    known = values.get(ANNOTATION_ID, "")
    region = Region(
        remote_id=remote,
        kind="unknown",
        label=labels.our_names.get(spec.id) if spec else None,
        box=None,
        annotation_id=known if known not in ("", NONE) else None,
        origin=_ORIGINS.get(str(shape.get("source")), "manual"),
        score=_number(values.get(SCORE)),
        attributes=values,
        part_ids=(remote,),
    )
    try:
        return read_geometry(region, shape, image)
    except AutolabelError as error:
        return replace(region, problem=str(error))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        return replace(region, problem=f"shape {remote} is damaged: {type(error).__name__} {error}")


def from_shapes(
    shapes: Sequence[Mapping[str, Any]],
    image: Image,
    labels: Labels,
    ids: Mapping[str, str] | None = None,
) -> list[Region]:
    """Read all shapes of one frame: one region for each annotation of ours and for each that a person drew.

    Polygons of one annotation in one group become one region, unless a person gave a part another label. ``ids`` maps
    shape ids that the server gave us to annotation ids and goes before the ``annotation_id`` attribute, which a change
    of label may clear and a copy carries along: of two shapes that claim one annotation, the older is it.
    """
    found = [(shape, from_shape(shape, image, labels)) for shape in shapes]
    ids = ids or {}
    owned = [
        (shape.get("group") or 0, replace(region, annotation_id=ids.get(region.remote_id, region.annotation_id)))
        for shape, region in found
    ]
    owned.sort(key=lambda pair: (pair[1].remote_id not in ids, _age(pair[1].remote_id)))
    groups: dict[str, int] = {}
    out = []
    for group, region in owned:
        owner = region.annotation_id
        if owner is None or region.remote_id in ids:
            if owner is not None:
                groups.setdefault(owner, group)
            out.append(region)
            continue
        # An id by attribute alone counts for the first shape that carries it, and for its fellows in a group.
        fellow = groups.setdefault(owner, group) == group and group == group_id(owner)
        first = all(other.annotation_id != owner for other in out)
        out.append(region if first or fellow else replace(region, annotation_id=None))
    return merge_parts(out)


def validate(shape: Mapping[str, Any], image: Image, frames: int, labels: Labels) -> list[Problem]:
    """Find what CVAT would refuse, drop or accept wrongly: it answers 200 to a frame that is not there.

    ``frames`` is the number of frames of the task.
    """
    problems = []
    frame, kind = shape.get("frame"), str(shape.get("type"))
    if not isinstance(frame, int) or not 0 <= frame < frames:
        problems.append(Problem("frame", str(frame), f"it must be 0 to {frames - 1}"))
    label = labels.by_id.get(shape.get("label_id", -1))
    if label is None:
        problems.append(Problem("label_id", str(shape.get("label_id")), "it must be a label of the project"))
    elif label.type not in ("any", kind):
        problems.append(Problem("type", kind, f"label {label.name!r} is for {label.type} only; set its shape to any"))
    problems += _wrong_points(kind, shape.get("points") or (), image)
    specs = {spec.id: spec for spec in label.attributes.values()} if label else {}
    for item in shape.get("attributes") or ():
        spec = specs.get(item.get("spec_id"))
        if label is not None and spec is None:
            problems.append(Problem("spec_id", str(item.get("spec_id")), f"label {label.name!r} has no such attribute"))
        elif spec is not None:
            problems += _wrong_value(spec, item.get("value"))
    return problems


def _points(drawing: Drawing, image: Image) -> list[list[float]]:
    """Return the points of each shape."""
    if drawing.kind == "mask":
        assert drawing.mask is not None
        return [[float(number) for number in encode_mask(drawing.mask)]]
    if drawing.kind == "polygon":
        return [snap(ring).ravel().tolist() for ring in drawing.rings]
    limits = [image.width, image.height] * 2
    return [np.clip(snap(drawing.box.xyxy), 0, limits).tolist()]


def _text(spec: AttributeSpec, text: str) -> str:
    """Write an attribute's value so that it is never empty, nor anything that its kind of input does not offer."""
    if spec.input_type in ("select", "radio") and text not in spec.values:
        return spec.default or (spec.values[0] if spec.values else NONE)
    if spec.input_type == "checkbox":
        return "true" if text in (NOISE_VALUES[1], "true") else "false"
    if spec.input_type == "number" and _number(text) is None:
        return spec.default if _number(spec.default) is not None else "0"
    return text.strip() or spec.default or NONE


def _wrong_points(kind: str, points: Sequence[float], image: Image) -> list[Problem]:
    """Find points of a wrong number, outside the image, or around no area."""
    if kind not in _CORNERS:
        return [Problem("type", kind, f"it must be one of {', '.join(_CORNERS)}")]
    least, most = _CORNERS[kind]
    count = len(points)
    if count < least or (most is not None and count > most) or (kind == "polygon" and count % 2):
        return [Problem("points", f"{count} numbers", f"a {kind} needs {'exactly' if most else 'at least'} {least}")]
    if not all(math.isfinite(value) for value in points):
        return [Problem("points", "not finite", "all must be finite numbers")]
    if kind == "mask":
        left, top, right, bottom = points[-4:]
        inside = 0 <= left <= right < image.width and 0 <= top <= bottom < image.height
        if inside and sum(points[:-4]) == (right - left + 1) * (bottom - top + 1) and any(points[1:-4:2]):
            return []
        return [
            Problem("points", f"a mask in {[*points[-4:]]}", "its runs must fill a crop inside the image, with pixels")
        ]
    x, y = np.round(points[0::2], 2), np.round(points[1::2], 2)
    problems = []
    if x.min() < 0 or y.min() < 0 or x.max() > image.width or y.max() > image.height:
        place = f"{x.min():g},{y.min():g} to {x.max():g},{y.max():g}"
        problems.append(Problem("points", place, f"they must lie inside {image.width}x{image.height} px"))
    ordered = kind == "polygon" or (x[1] > x[0] and y[1] > y[0])
    if x.max() <= x.min() or y.max() <= y.min() or not ordered:
        problems.append(Problem("points", "without area", "the region must be wider and higher than 0.01 px"))
    return problems


def _wrong_value(spec: AttributeSpec, value: object) -> list[Problem]:
    """Find a score that is no number in [0, 1], an empty value, or one that a list does not offer."""
    name = f"attribute {spec.name}"
    number = _number(str(value))
    if spec.name == SCORE and (number is None or not 0.0 <= number <= 1.0):
        return [Problem(name, repr(value), "it must be a number in [0, 1]")]
    if not isinstance(value, str) or value == "":
        return [Problem(name, repr(value), "it must be a text that is not empty")]
    if spec.input_type in ("select", "radio") and value not in spec.values:
        return [Problem(name, repr(value), f"it must be one of {', '.join(spec.values)}")]
    return []


def _number(text: str | None) -> float | None:
    """Read a finite number, or return None."""
    try:
        number = float(text) if text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _age(remote_id: str) -> tuple[int, str]:
    """Order shapes by the server's ids, which grow."""
    return (int(remote_id) if remote_id.isdecimal() else 0, remote_id)
