"""What annotations must look like: the checks and defaults of the server, field by field."""

from __future__ import annotations

from typing import Any

from .http import ApiError
from .state import Row

LENGTHS = {
    "rectangle": lambda n: n == 4,
    "polygon": lambda n: n >= 6 and n % 2 == 0,
    "polyline": lambda n: n >= 4 and n % 2 == 0,
    "points": lambda n: n >= 2 and n % 2 == 0,
    "ellipse": lambda n: n == 4,
    "cuboid": lambda n: n == 16,
    "mask": lambda n: n >= 5,
    "skeleton": lambda n: n == 0,
}
REQUIRED = ["This field is required."]


def cleaned(body: Any, *, scores: bool, action: str = "put") -> Row:
    """``{version, tags, shapes, tracks}`` with all defaults filled in; 400 with the errors of every field.

    What is created has no id yet and what is deleted has one; an update without an id creates.
    """
    if not isinstance(body, dict):
        kind = type(body).__name__
        raise ApiError(400, {"non_field_errors": [f"Invalid data. Expected a dictionary, but got {kind}."]})
    makers = {"tags": tag, "shapes": lambda raw: shape(raw, scores=scores), "tracks": track}
    result: Row = {"version": 0}
    errors: Row = {}
    for kind, make in makers.items():
        rows = [make(raw) for raw in body.get(kind) or []]
        for row, wrong in rows:
            if action == "create" and row["id"] is not None:
                wrong["id"] = ["must be absent"]
            if action == "delete" and row["id"] is None:
                wrong["id"] = ["must be present and not null"]
        result[kind] = [row for row, _ in rows]
        if any(error for _, error in rows):
            errors[kind] = [error for _, error in rows]
    if errors:
        raise ApiError(400, errors)
    return result


def whole_number(raw: Row, key: str, errors: Row) -> int | None:
    value = raw.get(key)
    if value is None:
        errors[key] = REQUIRED if key not in raw else ["This field may not be null."]
    elif isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        errors[key] = ["A valid integer is required."]
    elif value < 0:
        errors[key] = ["Ensure this value is greater than or equal to 0."]
    else:
        return int(value)
    return None


def common(raw: Row) -> tuple[Row, Row]:
    """Fields of tags, shapes and tracks."""
    errors: Row = {}
    row = {
        "id": raw.get("id"),
        "frame": whole_number(raw, "frame", errors),
        "label_id": whole_number(raw, "label_id", errors),
        "group": raw.get("group"),
        "source": raw.get("source", "manual"),
        "attributes": attributes(raw, errors),
    }
    return row, errors


def attributes(raw: Row, errors: Row) -> list[Row]:
    found = []
    for attribute in raw.get("attributes") or []:
        if "spec_id" not in attribute or "value" not in attribute:
            errors["attributes"] = [{key: REQUIRED for key in ("spec_id", "value") if key not in attribute}]
        else:
            found.append({"spec_id": attribute["spec_id"], "value": str(attribute["value"])})
    return found


def geometry(raw: Row) -> tuple[Row, Row]:
    """Fields of a shape, be it in a track or not."""
    errors: Row = {}
    kind, points = raw.get("type"), raw.get("points", [])
    if kind is None:
        errors["type"] = REQUIRED
    elif kind not in LENGTHS:
        errors["type"] = [f'"{kind}" is not a valid choice.']
    if not set(map(type, points)) <= {int, float}:
        wrong = [place for place, value in enumerate(points) if type(value) not in {int, float}]
        errors["points"] = {str(place): ["Value must be a float or an integer"] for place in wrong}
    elif kind in LENGTHS and not LENGTHS[kind](len(points)):
        errors["points"] = [f"invalid length for shape type '{kind}'"]
    rotation = raw.get("rotation", 0)
    if not 0 <= rotation <= 360:
        errors["rotation"] = [f"Ensure this value is {'less' if rotation > 0 else 'greater'} than or equal to 360."]
    row = {
        "type": kind,
        "occluded": bool(raw.get("occluded", False)),
        "outside": bool(raw.get("outside", False)),
        "z_order": raw.get("z_order", 0),
        "rotation": rotation,
        "points": list(map(float, points)) if "points" not in errors else points,
    }
    return row, errors


def tag(raw: Row) -> tuple[Row, Row]:
    return common(raw)


def shape(raw: Row, *, scores: bool) -> tuple[Row, Row]:
    row, errors = common(raw)
    drawn, more = geometry(raw)
    row |= drawn
    errors |= more
    if scores:
        row["score"] = raw.get("score", 1.0)
        if not 0 <= row["score"] <= 1:
            errors["score"] = ["Ensure this value is less than or equal to 1."]
    if raw.get("type") == "skeleton" and not raw.get("elements"):
        errors["elements"] = ["at least one required for skeleton shape"]
    elif raw.get("type") != "skeleton" and raw.get("elements"):
        errors["elements"] = ["not allowed for non-skeleton shape"]
    elif "elements" in raw:
        pairs = [shape(element, scores=False) for element in raw["elements"] or []]
        row["elements"] = [element for element, _ in pairs]
        if any(error for _, error in pairs):
            errors["elements"] = [error for _, error in pairs]
    return row, errors


def track(raw: Row) -> tuple[Row, Row]:
    row, errors = common(raw)
    shapes, wrong = [], []
    for keyframe in raw.get("shapes") or []:
        drawn, problems = geometry(keyframe)
        drawn["id"] = keyframe.get("id")
        drawn["frame"] = whole_number(keyframe, "frame", problems)
        drawn["attributes"] = attributes(keyframe, problems)
        shapes.append(drawn)
        wrong.append(problems)
    if "shapes" not in raw:
        errors["shapes"] = REQUIRED
    elif any(wrong):
        errors["shapes"] = wrong
    row["shapes"] = shapes
    row["elements"] = [track(element)[0] for element in raw.get("elements") or []]
    return row, errors
