"""Labels and their attributes: made with a project or task, changed through it or by themselves."""

from __future__ import annotations

import hashlib
from typing import Any

from ..http import ApiError, Request, Response, not_found
from ..listing import listed
from ..routes import route
from ..site import Site
from ..state import Row

ATTRIBUTE = ("name", "mutable", "input_type", "default_value", "values")
TYPES = {"any", "cuboid", "ellipse", "mask", "points", "polygon", "polyline", "rectangle", "skeleton", "tag"}


def create_labels(site: Site, specs: list[Row], owner: Row, parent: int | None = None) -> None:
    """Add labels to ``{"project_id" | "task_id": id}``; 400 on two of one name."""
    for spec in specs:
        change_label(site, {**spec, "id": None}, owner, parent)


def update_labels(site: Site, specs: list[Row], owner: Row) -> None:
    """Add, change or delete labels as a PATCH of their project or task asks for."""
    for spec in specs:
        change_label(site, spec, owner)


def check_new_labels(specs: Any) -> None:
    """400 before anything is created: no list, no name, two of one name."""
    if not isinstance(specs, list):
        raise ApiError(400, {"labels": [f'Expected a list of items but got type "{type(specs).__name__}".']})
    errors = [{} if spec.get("name") or spec.get("id") else {"name": ["This field is required."]} for spec in specs]
    for error, spec in zip(errors, specs, strict=True):
        if spec.get("type", "any") not in TYPES:
            error["type"] = [f'"{spec["type"]}" is not a valid choice.']
        if len(spec.get("name") or "") > 64:
            error["name"] = ["Ensure this field has no more than 64 characters."]
    if any(errors):
        raise ApiError(400, {"labels": errors})
    names = [spec["name"] for spec in specs if spec.get("name") and not spec.get("id")]
    if len(names) != len(set(names)):
        raise ApiError(400, ["All label names must be unique"])
    for spec in specs:
        attributes = [attribute.get("name") for attribute in spec.get("attributes") or []]
        for name in attributes:
            if attributes.count(name) > 1:
                raise ApiError(400, [f"Duplicate attribute with name '{name}' exists"])


def change_label(site: Site, spec: Row, owner: Row, parent: int | None = None) -> None:
    state = site.state
    [(key, owner_id)] = owner.items()
    others = [row for row in state.labels.values() if row.get(key) == owner_id]
    number = spec.get("id")
    if number is not None:
        label = state.labels.get(number)
        if label is None or label not in others:
            raise ApiError(404, {"detail": f"Not found label with id #{number} to change"})
    if spec.get("deleted"):
        if number is None:
            raise ApiError(400, {"labels": [{"non_field_errors": ["Deleted label must have an ID"]}]})
        delete_label(site, number)
        return
    name = spec.get("name")
    if any(row["name"] == name and row["id"] != number and row["parent_id"] == parent for row in others):
        raise ApiError(400, ["All label names must be unique"])
    if number is None:
        number = state.next_id("label")
        label = {"id": number, "name": name, "color": "", "type": spec.get("type") or "any", "parent_id": parent}
        state.labels[number] = {**label, "attributes": [], **owner}
    label = state.labels[number]
    label["name"] = name or label["name"]
    if spec.get("type") and "skeleton" not in {label["type"], spec["type"]}:
        label["type"] = spec["type"]
    label["color"] = spec.get("color") or colour(label["name"])
    for attribute in spec.get("attributes") or []:
        change_attribute(site, label, attribute)
    if spec.get("sublabels") and not any(row["parent_id"] == number for row in state.labels.values()):
        create_labels(site, spec["sublabels"], owner, number)


def change_attribute(site: Site, label: Row, spec: Row) -> None:
    """An attribute is found by its id or name; those that are not named stay."""
    known = [a for a in label["attributes"] if (a["id"] == spec.get("id") or a["name"] == spec.get("name"))]
    if spec.get("id") and not any(a["id"] == spec["id"] for a in known):
        raise ApiError(404, {"detail": f"Attribute with id #{spec['id']} does not exist"})
    given = {key: spec[key] for key in ATTRIBUTE if key in spec}
    if "values" in given:
        given["values"] = [str(value).strip() for value in given["values"]] or [""]
    if known:
        known[0].update(given)
        return
    defaults = {"mutable": False, "input_type": "text", "default_value": "", "values": [""]}
    label["attributes"].append({"id": site.state.next_id("attribute"), **defaults, **given})


def delete_label(site: Site, number: int) -> None:
    """Delete a label and every annotation that bears it."""
    for child in [row["id"] for row in site.state.labels.values() if row["parent_id"] == number]:
        delete_label(site, child)
    del site.state.labels[number]
    for kinds in site.state.annotations.values():
        for rows in kinds.values():
            for key in [key for key, row in rows.items() if row["label_id"] == number]:
                del rows[key]


def colour(name: str) -> str:
    """A colour that depends on the name only."""
    return "#" + hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()[:6]


def label_out(site: Site, label: Row) -> Row:
    children = [row for row in site.state.labels.values() if row["parent_id"] == label["id"]]
    outer = {key: label[key] for key in ("id", "name", "color", "attributes", "type")}
    outer["sublabels"] = [
        {**{key: child[key] for key in ("id", "name", "color", "attributes", "type")}, "has_parent": True}
        for child in children
    ]
    owner = {key: label[key] for key in ("project_id", "task_id") if key in label}
    return {**outer, **owner, "parent_id": label["parent_id"], "has_parent": label["parent_id"] is not None}


def own(site: Site, request: Request, number: int) -> Row:
    label = site.state.labels.get(number)
    if label is None:
        raise not_found("Label")
    if "project_id" in label:
        site.project(request, label["project_id"])
    else:
        site.task(request, label["task_id"])
    return label


@route("GET", "/api/labels")
def list_labels(site: Site, request: Request) -> Row:
    state = site.state
    if number := request.arg("job_id"):
        job = site.job(request, int(number))
        rows = site.labels_of_task(state.tasks[job["task_id"]])
    elif number := request.arg("task_id"):
        rows = site.labels_of_task(site.task(request, int(number)))
    elif number := request.arg("project_id"):
        site.project(request, int(number))
        rows = [row for row in state.labels.values() if row.get("project_id") == int(number)]
    else:
        rows = list(state.labels.values())
    rows = [row for row in rows if row["parent_id"] is None]
    names = ("id", "name", "color", "type", "parent_id")
    filters: dict[str, Any] = {key: (lambda row, key=key: row[key]) for key in names}
    outer = [label_out(site, row) for row in rows]
    return listed(request, outer, filters=filters, search=("name",), newest_first=False)


@route("GET", "/api/labels/{id}")
def one_label(site: Site, request: Request, id: int) -> Row:
    return label_out(site, own(site, request, id))


@route("PATCH", "/api/labels/{id}")
def patch_label(site: Site, request: Request, id: int) -> Row:
    label, body = own(site, request, id), request.json_object()
    if body.get("deleted"):
        detail = "Labels cannot be deleted by updating in this endpoint. Please use the DELETE method instead."
        raise ApiError(400, {"non_field_errors": [detail]})
    owner = {key: label[key] for key in ("project_id", "task_id") if key in label}
    check_new_labels([{**body, "id": id}])
    change_label(site, {"name": label["name"], **body, "id": id}, owner, label["parent_id"])
    return label_out(site, label)


@route("DELETE", "/api/labels/{id}")
def remove_label(site: Site, request: Request, id: int) -> Response:
    own(site, request, id)
    delete_label(site, id)
    return Response(None, 204)
