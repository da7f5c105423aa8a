"""The media of tasks and jobs: creation, metadata, frames, chunks."""

from __future__ import annotations

import mimetypes
import urllib.request
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from .. import media
from ..http import ApiError, Request, Response
from ..routes import route
from ..site import Site
from ..state import Row
from .jobs import deal_out
from .requests import enqueue
from .uploads import place, receive

CHUNK_SIZE = 72


@route("POST", "/api/tasks/{id}/data/")
def post_data(site: Site, request: Request, id: int) -> Response:
    task = site.task(request, id)
    rq_id = f"action=create&target=task&target_id={id}"
    data = site.data_of(task) or empty_data(site, task)
    if data["size"]:
        if site.state.requests[rq_id]["polls"]:
            raise ApiError(409, "Request is being processed")
        raise ApiError(400, "Adding more data is not supported")

    def finish(files: dict[str, bytes]) -> Response:
        params = request.form()[0] if "multipart" in request.headers.get("content-type", "") else request.json_object()
        quality = params.get("image_quality")
        if quality is not None and not 0 <= int(quality) <= 100:
            raise ApiError(400, {"image_quality": ["Ensure this value is less than or equal to 100."]})
        ids = {"project": task["project_id"], "task": id}
        return enqueue(
            site,
            request,
            rq_id,
            kind="create:task",
            target="task",
            ids=ids,
            work=lambda: attach(site, task, data, list(files.items()), params),
        )

    return receive(site, request, place("tasks", id, "data"), finish)


def empty_data(site: Site, task: Row) -> Row:
    """What a task has from the first byte sent until its frames are there, or for ever if they cannot be made."""
    number = site.state.next_id("data")
    data: Row = {
        "id": number,
        "size": 0,
        "frames": [],
        "image_quality": 50,
        "chunk_size": None,
        "start_frame": 0,
        "stop_frame": 0,
        "frame_filter": "",
        "storage": "local",
        "cloud_storage_id": None,
        "deleted_frames": [],
        "chunks_updated_date": site.state.now(),
    }
    site.state.data[number] = data
    task["data"] = number
    return data


def attach(site: Site, task: Row, data: Row, files: media.Files, params: Row) -> None:
    """Give a task its frames and jobs; ``WorkFailedError`` when something is missing or no image."""
    storage, cloud = "local", params.get("cloud_storage_id")
    if names := params.get("server_files") or []:
        root = site.share
        storage = "local" if params.get("copy_data") else "share"
        if cloud is not None:
            row = site.state.cloudstorages.get(int(cloud))
            root, storage = site.buckets.get(row["resource"]) if row else None, "cloud_storage"
        if root is None:
            raise media.WorkFailedError("rest_framework.exceptions.ValidationError: There is no such file storage")
        paths = media.files_under(root, names, params.get("server_files_exclude") or [])
        files = [(path.relative_to(root.resolve()).as_posix(), path.read_bytes()) for path in paths]
        params = {**params, "upload_file_order": params.get("upload_file_order") or names}
    for address in params.get("remote_files") or []:
        files.append(download(address))
    rows = media.frames_of(files, params)
    data |= {
        "size": len(rows),
        "frames": rows,
        "image_quality": int(params.get("image_quality") or 70),
        "chunk_size": int(params.get("chunk_size") or CHUNK_SIZE),
        "start_frame": int(params.get("start_frame") or 0),
        "frame_filter": params.get("frame_filter", ""),
        "storage": storage,
        "cloud_storage_id": cloud,
        "chunks_updated_date": site.state.now(),
    }
    site.state.uploads.pop(place("tasks", task["id"], "data"), None)
    deal_out(site, task, data, params.get("job_file_mapping"))
    site.touch(task)


def download(address: str) -> tuple[str, bytes]:
    """A remote file; ``WorkFailedError`` when it cannot be had."""
    if urlsplit(address).scheme not in {"http", "https"}:
        raise media.WorkFailedError(
            f"rest_framework.exceptions.ValidationError: Failed to download {address}: bad scheme"
        )
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return PurePosixPath(urlsplit(address).path).name, answer.read()
    except OSError as error:
        raise media.WorkFailedError(
            f"rest_framework.exceptions.ValidationError: Failed to download {address}"
        ) from error


def meta_out(data: Row, first: int, last: int) -> Row:
    """Metadata of the frames ``first`` to ``last``, both included."""
    step = int("".join(filter(str.isdigit, data["frame_filter"])) or 1)
    start = data["start_frame"] + first * step
    keys = ("width", "height", "name")
    frames = [{key: row[key] for key in keys} for row in data["frames"][first : last + 1]]
    return {
        "chapters": None,
        "chunks_updated_date": data["chunks_updated_date"],
        "chunk_size": data["chunk_size"],
        "size": len(frames),
        "image_quality": data["image_quality"],
        "start_frame": start,
        "stop_frame": start + max(0, last - first) * step,
        "frame_filter": data["frame_filter"],
        "frames": [{**row, "related_files": 0, "has_related_context": False} for row in frames],
        "deleted_frames": [number for number in data["deleted_frames"] if first <= number <= last],
        "included_frames": None,
        "storage": data["storage"],
        "cloud_storage_id": data["cloud_storage_id"],
    }


def data_or_400(site: Site, task: Row) -> Row:
    data = site.data_of(task)
    if data is None:
        raise ApiError(400, ["No media data found"])
    return data


def task_span(site: Site, request: Request, number: int) -> tuple[Row, int, int]:
    data = data_or_400(site, site.task(request, number))
    return data, 0, data["size"] - 1


def job_span(site: Site, request: Request, number: int) -> tuple[Row, int, int]:
    job = site.job(request, number)
    data = data_or_400(site, site.state.tasks[job["task_id"]])
    return data, job["start_frame"], job["stop_frame"]


def send_media(request: Request, data: Row, first: int, last: int) -> Response:
    """A frame or a chunk, as ``type``, ``number`` or ``index`` and ``quality`` ask for."""
    quality = request.arg("quality") or "compressed"
    level, size = data["image_quality"], data["chunk_size"]
    kind, text = request.arg("type"), request.arg("index") or request.arg("number")
    if text is None or not text.isdigit():
        raise ApiError(400, ["Number or index is required"])
    number = int(text)
    if kind == "frame":
        if not first <= number <= last:
            raise ApiError(400, [f"Incorrect requested frame number: {number}"])
        content, suffix = media.shown(data["frames"][number], quality, level)
        return Response(content, headers={"Content-Type": mimetypes.types_map.get(suffix, "image/jpeg")})
    if kind != "chunk":
        raise ApiError(400, ["Data type not specified or not supported"])
    begin = (first if request.arg("index") else 0) + number * size
    rows = data["frames"][max(begin, first) : min(begin + size, last + 1)]
    if not rows:
        raise ApiError(400, [f"Incorrect requested chunk number: {number}"])
    return Response(media.chunk(rows, quality, level), headers={"Content-Type": "application/zip"})


def change_meta(site: Site, request: Request, data: Row, first: int, last: int) -> Row:
    """Mark frames as deleted, or take the mark away."""
    deleted = request.json_object().get("deleted_frames")
    if deleted is not None:
        if unknown := [str(number) for number in deleted if not first <= number <= last]:
            raise ApiError(400, [f"Unknown frames {', '.join(unknown)} requested for removal"])
        others = [number for number in data["deleted_frames"] if not first <= number <= last]
        data["deleted_frames"] = sorted({*others, *deleted})
        for task in site.state.tasks.values():
            if task["data"] == data["id"]:
                site.touch(task)
    return meta_out(data, first, last)


@route("GET", "/api/tasks/{id}/data/")
def task_data(site: Site, request: Request, id: int) -> Response:
    return send_media(request, *task_span(site, request, id))


@route("GET", "/api/jobs/{id}/data/")
def job_data(site: Site, request: Request, id: int) -> Response:
    return send_media(request, *job_span(site, request, id))


@route("GET", "/api/tasks/{id}/data/meta")
def task_meta(site: Site, request: Request, id: int) -> Row:
    return meta_out(*task_span(site, request, id))


@route("PATCH", "/api/tasks/{id}/data/meta")
def patch_task_meta(site: Site, request: Request, id: int) -> Row:
    return change_meta(site, request, *task_span(site, request, id))


@route("GET", "/api/jobs/{id}/data/meta")
def job_meta(site: Site, request: Request, id: int) -> Row:
    return meta_out(*job_span(site, request, id))


@route("PATCH", "/api/jobs/{id}/data/meta")
def patch_job_meta(site: Site, request: Request, id: int) -> Row:
    return change_meta(site, request, *job_span(site, request, id))


def _preview(data: Row, first: int, _last: int) -> Response:
    return Response(media.preview(data["frames"][first]), headers={"Content-Type": "image/jpeg"})


@route("GET", "/api/tasks/{id}/preview")
def task_preview(site: Site, request: Request, id: int) -> Response:
    return _preview(*task_span(site, request, id))


@route("GET", "/api/jobs/{id}/preview")
def job_preview(site: Site, request: Request, id: int) -> Response:
    return _preview(*job_span(site, request, id))
