"""What happens to annotations, by job and by task: the one way in for clients and for people."""

from __future__ import annotations

from typing import Any

from .http import ApiError
from .site import Site
from .state import Row

KINDS = ("tags", "shapes", "tracks")
TABLES = {"tags": "engine_labeledimage", "shapes": "engine_labeledshape", "tracks": "engine_labeledtrack"}


def empty() -> Row:
    return {"version": 0, "tags": [], "shapes": [], "tracks": []}


def copied(row: Row) -> Row:
    """A copy down to attributes, keyframes and elements; points are shared, as nobody changes them in place."""
    nested = {key: [copied(part) for part in row[key]] for key in ("attributes", "shapes", "elements") if key in row}
    return {**row, **nested}


def write_task(site: Site, task: Row, action: str, data: Row) -> Row:
    """Deal the data out to the jobs by frame; what lies on no frame of any job is dropped without a word."""
    parts = [(job, part_of(data, job)) for job in site.jobs_of(task["id"])]
    for job, part in parts:
        check(site, job, action, part)
    result = empty()
    for job, part in parts:
        answer = write_job(site, job, action, part)
        for kind in KINDS:
            result[kind] += answer[kind]
    return result


def part_of(data: Row, job: Row) -> Row:
    first, last = job["start_frame"], job["stop_frame"]
    return {
        "version": 0,
        **{kind: [copied(row) for row in data[kind] if first <= row["frame"] <= last] for kind in KINDS},
    }


def write_job(site: Site, job: Row, action: str, data: Row) -> Row:
    """Do ``create``, ``update``, ``delete`` or ``put`` and return what the server answers.

    An update deletes the rows of these ids in this job and creates them anew as given, so it replaces every field,
    and it brings back a row that is gone.
    """
    stored = site.state.annotations[job["id"]]
    changed = any(data[kind] for kind in KINDS)
    check(site, job, action, data)
    if action == "put":
        tell(site, job, "delete", {kind: list(stored[kind].values()) for kind in KINDS})
        changed = changed or any(stored.values())
        for kind in KINDS:
            stored[kind].clear()
    if action in {"update", "delete"}:
        for kind in KINDS:
            for row in data[kind]:
                stored[kind].pop(row["id"], None)
    if action != "delete":
        for kind in KINDS:
            for row in data[kind]:
                insert(site, stored, kind, row)
    tell(site, job, {"put": "create"}.get(action, action), data)
    if changed:
        site.touch_job(job)
    return data


def tell(site: Site, job: Row, action: str, data: Row) -> None:
    """Write into the event log which shapes are made, changed or removed, one event for each type of shape."""
    types: dict[str, list[Row]] = {}
    for shape in data["shapes"]:
        types.setdefault(shape["type"], []).append({"id": shape["id"]})
    for kind, shapes in types.items():
        site.tell(f"{action}:shapes", job, obj_name=kind, count=len(shapes), payload={"shapes": shapes})


def check(site: Site, job: Row, action: str, data: Row) -> None:
    """400 for a label or attribute that is not the task's, or an id that is taken elsewhere."""
    if action == "delete":
        return
    labels = {row["id"]: row for row in site.labels_of_task(site.state.tasks[job["task_id"]])}
    for kind in KINDS:
        for row in data[kind]:
            label = labels.get(row["label_id"])
            if label is None:
                raise ApiError(400, [f"label_id `{row['label_id']}` is invalid"])
            for owner, mutable in attribute_owners(kind, row):
                known = {a["id"] for a in label["attributes"] if mutable is None or a["mutable"] == mutable}
                for attribute in owner["attributes"]:
                    if attribute["spec_id"] not in known:
                        raise ApiError(400, [f"spec_id `{attribute['spec_id']}` is invalid"])
            if row["id"] is not None and taken(site, job, action, kind, row["id"]):
                raise ApiError(
                    400,
                    f'duplicate key value violates unique constraint "{TABLES[kind]}_pkey"\n'
                    f"DETAIL:  Key (id)=({row['id']}) already exists.\n",
                )


def attribute_owners(kind: str, row: Row) -> list[tuple[Row, bool | None]]:
    """Who may bear which attributes: a track the immutable ones, its keyframes the mutable ones."""
    if kind != "tracks":
        return [(row, None)]
    return [(row, False), *((keyframe, True) for keyframe in row["shapes"])]


def taken(site: Site, job: Row, action: str, kind: str, number: int) -> bool:
    here = {job["id"]} if action in {"update", "put"} else set()
    jobs = site.state.annotations.items()
    return any(number in stored[kind] for owner, stored in jobs if owner not in here)


def insert(site: Site, stored: dict[str, dict[int, Row]], kind: str, row: Row) -> None:
    """Give a row its id, if it has none, and keep a copy of it."""
    if row["id"] is None:
        row["id"] = fresh_id(site, kind)
    if kind == "shapes":
        row.setdefault("elements", [])
        for element in row["elements"]:
            element["id"] = element["id"] or fresh_id(site, "shapes")
    if kind == "tracks":
        if not row["shapes"]:
            return
        settle_frames(row)
        for keyframe in row["shapes"]:
            keyframe["id"] = keyframe["id"] or site.state.next_id("keyframe")
    stored[kind][row["id"]] = copied(row)


def fresh_id(site: Site, kind: str) -> int:
    """The next id; one that a client chose itself is passed over."""
    while True:
        number = site.state.next_id(kind)
        if not any(number in stored[kind] for stored in site.state.annotations.values()):
            return number


def settle_frames(track: Row) -> None:
    """A track and its first keyframe have the same frame."""
    first = min(track["shapes"], key=lambda keyframe: keyframe["frame"])
    if track["frame"] < first["frame"]:
        track["shapes"].append({**copied(first), "id": None, "frame": track["frame"], "outside": True})
    track["frame"] = min(track["frame"], first["frame"])


def read_job(site: Site, job: Row) -> Row:
    """All annotations of a job, sorted by frame, with the attributes that were never set at their defaults."""
    labels = {row["id"]: row for row in site.labels_of_task(site.state.tasks[job["task_id"]])}
    stored = site.state.annotations[job["id"]]
    result = empty()
    for kind in KINDS:
        rows = sorted(stored[kind].values(), key=lambda row: row["frame"] if kind != "tracks" else row["id"])
        result[kind] = [outer(kind, row, labels[row["label_id"]], site.keeps_scores) for row in rows]
    return result


def read_task(site: Site, task: Row) -> Row:
    """All annotations of a task; what two overlapping jobs both hold is there once."""
    result = empty()
    for job in site.jobs_of(task["id"]):
        for kind, rows in read_job(site, job).items():
            if kind != "version":
                known = [without_id(row) for row in result[kind]] if task["overlap"] else []
                result[kind] += [row for row in rows if without_id(row) not in known]
    return result


def without_id(row: Row) -> Row:
    return {key: value for key, value in row.items() if key != "id"}


def outer(kind: str, row: Row, label: Row, scores: bool) -> Row:
    row = copied(row)
    if kind == "tracks":
        fill(row, [a for a in label["attributes"] if not a["mutable"]])
        defaults = [a for a in label["attributes"] if a["mutable"]]
        row["shapes"].sort(key=lambda keyframe: keyframe["frame"])
        for keyframe in row["shapes"]:
            keyframe["rotation"] = float(keyframe["rotation"])
            fill(keyframe, defaults)
            values = {a["spec_id"]: a["value"] for a in keyframe["attributes"]}
            defaults = [{**a, "default_value": values[a["id"]]} for a in defaults]
    else:
        fill(row, label["attributes"])
    if kind == "shapes":
        row["rotation"] = float(row["rotation"])
        if not scores:
            row.pop("score", None)
        else:
            row.setdefault("score", 1.0)
    return row


def fill(row: Row, specs: list[dict[str, Any]]) -> None:
    known = {attribute["spec_id"] for attribute in row["attributes"]}
    missing = [spec for spec in specs if spec["id"] not in known]
    row["attributes"] += [{"spec_id": spec["id"], "value": spec["default_value"]} for spec in missing]
