"""Exports of projects, tasks and jobs; only COCO is written out, with its failure on an empty score."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote_plus

from ..annotations import read_job, read_task
from ..http import ApiError, Request, Response, not_found
from ..masks import decoded, run_lengths
from ..media import WorkFailedError
from ..routes import route
from ..site import Site
from ..state import Row
from .requests import enqueue, own

FORMATS = ("COCO 1.0", "CVAT 1.1", "CVAT for images 1.1")


def start_export(site: Site, request: Request, target: str, number: int, tasks: list[Row], job: Row | None) -> Response:
    assert request.user
    fmt = request.arg("format") or ""
    if fmt not in FORMATS:
        raise ApiError(400, ["Unknown format specified for the request"])
    images = request.flag("save_images")
    subresource = "dataset" if images else "annotations"
    project = number if target == "project" else tasks[0]["project_id"]
    coded = quote_plus(fmt.replace(" ", "_").replace(".", "~"))
    rq_id = f"action=export&target={target}&target_id={number}&user_id={request.user['id']}"
    rq_id += f"&format={coded}&subresource={subresource}"

    def work() -> Row:
        if fmt != "COCO 1.0":
            raise WorkFailedError("the stand-in exports COCO only")
        files = coco_files(site, tasks, job, images)
        name = f"{target}_{number}_{subresource}_coco 1.0.zip"
        return {"path": f"/api/{target}s/{number}/dataset/download", "result": zipped(files), "filename": name}

    ids = {
        "project": project,
        "task": tasks[0]["id"] if target != "project" else None,
        "job": number if target == "job" else None,
    }
    kind = f"export:{subresource}"
    return enqueue(site, request, rq_id, kind=kind, target=target, ids=ids, work=work, fmt=fmt)


@route("POST", "/api/projects/{id}/dataset/export")
def export_project(site: Site, request: Request, id: int) -> Response:
    site.project(request, id)
    return start_export(
        site, request, "project", id, [task for task in site.tasks_of(id) if site.jobs_of(task["id"])], None
    )


@route("POST", "/api/tasks/{id}/dataset/export")
def export_task(site: Site, request: Request, id: int) -> Response:
    return start_export(site, request, "task", id, [site.task(request, id)], None)


@route("POST", "/api/jobs/{id}/dataset/export")
def export_job(site: Site, request: Request, id: int) -> Response:
    job = site.job(request, id)
    return start_export(site, request, "job", id, [site.state.tasks[job["task_id"]]], job)


@route("GET", "/api/{kind}/{id}/dataset/download")
def download(site: Site, request: Request, kind: str, id: int) -> Response:
    row = own(site, request, request.arg("rq_id") or "")
    if not row["outcome"].get("path", "").startswith(f"/api/{kind}/{id}/"):
        raise not_found("Request")
    disposition = f'attachment; filename="{row["outcome"]["filename"]}"'
    headers = {"Content-Type": "application/zip", "Content-Disposition": disposition}
    return Response(row["outcome"]["result"], headers=headers)


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def coco_files(site: Site, tasks: list[Row], job: Row | None, images: bool) -> dict[str, bytes]:
    """One ``instances_*.json`` for each subset, and the images if asked for."""
    subsets: dict[str, Row] = {}
    files: dict[str, bytes] = {}
    for task in tasks:
        subset = task["subset"] or "default"
        labels = {label["id"]: place for place, label in enumerate(site.labels_of_task(task), 1)}
        names = {label["id"]: label for label in site.labels_of_task(task)}
        categories = [{"id": labels[n], "name": names[n]["name"], "supercategory": ""} for n in labels]
        coco = subsets.setdefault(subset, {"categories": categories, "images": [], "annotations": []})
        data = site.data_of(task)
        assert data is not None
        annotations = read_job(site, job) if job else read_task(site, task)
        span = range(job["start_frame"], job["stop_frame"] + 1) if job else range(data["size"])
        for number in [n for n in span if n not in data["deleted_frames"]]:
            frame = data["frames"][number]
            image = {"id": len(coco["images"]) + 1, "file_name": frame["name"]}
            coco["images"].append({**image, "width": frame["width"], "height": frame["height"]})
            if images:
                files[f"images/{subset}/{frame['name']}"] = frame["content"]
            for shape in [row for row in annotations["shapes"] if row["frame"] == number]:
                annotation = coco_annotation(shape, names[shape["label_id"]], frame, subset)
                place = {"id": len(coco["annotations"]) + 1, "image_id": image["id"]}
                coco["annotations"].append({**place, "category_id": labels[shape["label_id"]], **annotation})
    for subset, coco in subsets.items():
        files[f"annotations/instances_{subset}.json"] = json.dumps(coco).encode()
    return files


def coco_annotation(shape: Row, label: Row, frame: Row, subset: str) -> Row:
    """``WorkFailedError`` when an attribute called ``score`` is no number, as the real exporter fails."""
    specs = {spec["id"]: spec["name"] for spec in label["attributes"]}
    values: dict[str, Any] = {specs[a["spec_id"]]: a["value"] for a in shape["attributes"]}
    if "score" in values:
        try:
            values["score"] = float(values["score"])
        except ValueError as error:
            item = (PurePosixPath(frame["name"]).stem, subset)
            raise WorkFailedError(
                f"ValueError: {error}\ndatumaro.components.errors.ItemExportError: Failed to export item {item!r}"
            ) from error
    points = shape["points"]
    if shape["type"] == "mask":
        bitmap = decoded(points, frame["width"], frame["height"])
        left, top, right, bottom = points[-4:]
        box = [left, top, right - left + 1, bottom - top + 1]
        size = [frame["height"], frame["width"]]
        segmentation: Any = {"counts": run_lengths(bitmap.ravel(order="F")), "size": size}
        return {
            "bbox": box,
            "area": int(bitmap.sum()),
            "segmentation": segmentation,
            "iscrowd": 1,
            "attributes": values,
        }
    xs, ys = points[::2], points[1::2]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    segmentation = [points] if shape["type"] == "polygon" else []
    return {
        "bbox": box,
        "area": box[2] * box[3],
        "segmentation": segmentation,
        "iscrowd": 0,
        "attributes": {"occluded": shape["occluded"], **values},
    }
