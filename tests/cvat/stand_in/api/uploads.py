"""The upload protocol: start, files in one or many requests or by TUS, finish."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from pathlib import PurePosixPath

from ..http import ApiError, Request, Response, not_found
from ..routes import route
from ..site import Site

VERSION = {"Tus-Resumable": "1.0.0"}


def place(kind: str, number: int | str, part: str) -> str:
    """Key of what is being uploaded, e.g. ``tasks/11/data``."""
    return f"{kind}/{number}/{part}"


def receive(site: Site, request: Request, key: str, finish: Callable[[dict[str, bytes]], Response]) -> Response:
    """One POST of an upload; ``finish(files)`` is called once with all files by name."""
    headers = request.headers
    if "upload-start" in headers:
        site.state.uploads.setdefault(key, {})  # what an earlier attempt left is not cleared away
        return Response(None, 202)
    if "upload-length" in headers and "tus-resumable" in headers:
        return create_tus(site, request, key)
    if "upload-multiple" in headers:
        _, files = request.form()
        known = site.state.uploads.setdefault(key, {})
        for file in files:
            name = PurePosixPath(file.name).name
            known[name] = known.get(name, b"") + file.content  # the server opens for appending, too
        return Response(None, 200)
    files_sent = {}
    if "upload-finish" not in headers and "multipart" in headers.get("content-type", ""):
        files_sent = {PurePosixPath(file.name).name: file.content for file in request.form()[1]}
    return finish({**site.state.uploads.get(key, {}), **files_sent})


def create_tus(site: Site, request: Request, key: str) -> Response:
    assert request.user
    metadata = dict(part.strip().partition(" ")[::2] for part in request.headers["upload-metadata"].split(","))
    name = base64.b64decode(metadata.get("filename", "")).decode()
    number = f"{request.user['id']}_{uuid.uuid4()}"
    length = int(request.headers["upload-length"])
    outer = PurePosixPath(name).name if key.endswith("/data") else number
    if outer in site.state.uploads.get(key, {}):
        raise ApiError(409, "File with same name already exists")
    site.state.tus[number] = {"key": key, "name": outer, "length": length, "content": b""}
    location = request.url(f"/api/{key}/{number}")
    return Response(None, 201, {**VERSION, "Location": location, "Upload-Filename": outer})


@route("PATCH", "/api/{kind}/{target}/{part}/{upload}")
def append_tus(site: Site, request: Request, kind: str, target: str, part: str, upload: str) -> Response:
    row = _row(site, place(kind, target, part), upload)
    offset = int(request.headers.get("upload-offset", -1))
    if offset != len(row["content"]):
        raise ApiError(409, None, VERSION)
    if offset + len(request.body) > row["length"]:
        raise ApiError(413, None, VERSION)
    row["content"] += request.body
    if len(row["content"]) == row["length"]:
        site.state.uploads.setdefault(row["key"], {})[row["name"]] = row["content"]
        del site.state.tus[upload]  # from now on a HEAD finds nothing, as on the real server
    return Response(None, 204, {**VERSION, "Upload-Offset": str(len(row["content"]))})


@route("HEAD", "/api/{kind}/{target}/{part}/{upload}")
def ask_tus(site: Site, _request: Request, kind: str, target: str, part: str, upload: str) -> Response:
    row = _row(site, place(kind, target, part), upload)
    return Response(
        None, 200, {**VERSION, "Upload-Offset": str(len(row["content"])), "Upload-Length": str(row["length"])}
    )


def _row(site: Site, key: str, upload: str) -> dict[str, object]:
    row = site.state.tus.get(upload)
    if row is None or row["key"] != key:
        raise not_found("Upload")
    return row
