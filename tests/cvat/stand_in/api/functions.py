"""Functions that an agent outside the server carries out, and the queues of requests for them.

This part of CVAT is not in its public source: it is made after what ``cvat-cli function create-native`` and
``function run-agent`` (2.80) send and read, so fields that they do not look at may be missing.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

from ..annotations import write_task
from ..http import ApiError, Request, Response, not_found
from ..listing import listed
from ..routes import route
from ..shapes import cleaned
from ..site import Site
from ..state import Row

KINDS = {"detector", "interactor", "tracker"}
CATEGORIES = {"annotate_task": "batch"}
KEEP_ALIVE_S = 0.5


def function(site: Site, number: int) -> Row:
    if number not in site.state.functions:
        raise not_found("Function")
    return site.state.functions[number]


def queue(site: Site, name: str) -> Row:
    """The function of a queue, e.g. of ``function:7``."""
    kind, _, number = name.partition(":")
    if kind != "function" or not number.isdigit():
        raise not_found("Queue")
    return function(site, int(number))


def function_out(site: Site, request: Request, row: Row) -> Row:
    return {**row, "owner": site.basic_user(request, row["owner"])}


def with_type(label: Row) -> Row:
    sublabels = {"sublabels": [with_type(row) for row in label["sublabels"]]} if "sublabels" in label else {}
    return {"type": "any", "attributes": [], **label, **sublabels}


@route("POST", "/api/functions")
def create_function(site: Site, request: Request) -> Response:
    assert request.user
    body = request.json_object()
    if missing := {key: ["This field is required."] for key in ("provider", "name", "kind") if not body.get(key)}:
        raise ApiError(400, missing)
    if body["kind"] not in KINDS:
        raise ApiError(400, {"kind": [f'"{body["kind"]}" is not a valid choice.']})
    number, now = site.state.next_id("function"), site.state.now()
    dates = {"created_date": now, "updated_date": now}
    row: Row = {"visibility": "private", **body, "id": number, "owner": request.user["id"], **dates}
    row["labels_v2"] = [with_type(label) for label in body.get("labels_v2") or []]
    site.state.functions[number] = row
    return Response(function_out(site, request, row), 201)


@route("GET", "/api/functions")
def list_functions(site: Site, request: Request) -> Row:
    rows = [function_out(site, request, row) for row in site.state.functions.values()]
    filters: dict[str, Any] = {key: (lambda row, key=key: row[key]) for key in ("id", "name", "kind", "provider")}
    return listed(request, rows, filters=filters, search=("name",))


@route("GET", "/api/functions/{id}")
def one_function(site: Site, request: Request, id: int) -> Row:
    return function_out(site, request, function(site, id))


@route("DELETE", "/api/functions/{id}")
def delete_function(site: Site, _request: Request, id: int) -> Response:
    function(site, id)
    del site.state.functions[id]
    site.changed.notify_all()
    return Response(None, 204)


# requests for a function, and the agents that fetch them --------------------------------------------------------------


def ask(site: Site, number: int, params: Row, *, cleanup: bool = False) -> str:
    """Queue a request (``type`` annotate_task, annotate_frame …) for a function; the id of the request."""
    function(site, number)
    key = str(uuid.uuid4())
    site.state.function_requests[key] = {
        "id": key,
        "function": number,
        "params": params,
        "category": CATEGORIES.get(params["type"], "interactive"),
        "cleanup": cleanup,
        "status": "queued",
        "agent": None,
        "progress": 0.0,
        "exc_info": "",
        "result": None,
        "enqueued": site.state.now(),
    }
    site.changed.notify_all()
    return key


def running(site: Site, request: Request, queue_name: str, key: str) -> tuple[Row, Row]:
    """A request that is the asking agent's, and the body sent; 404 or 403."""
    number = queue(site, queue_name)["id"]
    row, body = site.state.function_requests.get(key), request.json_object()
    if row is None or row["function"] != number:
        raise not_found("Request")
    if row["agent"] != body.get("agent_id") or row["status"] != "started":
        raise ApiError(403, {"detail": "This request is not assigned to this agent."})
    return row, body


@route("POST", "/api/functions/queues/{name}/requests/acquire")
def acquire(site: Site, request: Request, name: str) -> Row:
    number, body = queue(site, name)["id"], request.json_object()
    for row in site.state.function_requests.values():
        if (row["function"], row["status"], row["category"]) == (number, "queued", body.get("request_category")):
            row |= {"status": "started", "agent": body.get("agent_id")}
            return {"ar_assignment": {"ar_id": row["id"], "ar_params": row["params"]}}
    return {"ar_assignment": None}


@route("POST", "/api/functions/queues/{name}/requests/{key}/update")
def update(site: Site, request: Request, name: str, key: str) -> Response:
    row, body = running(site, request, name, key)
    row["progress"] = body.get("progress", row["progress"])
    return Response({}, 200)


@route("POST", "/api/functions/queues/{name}/requests/{key}/fail")
def fail(site: Site, request: Request, name: str, key: str) -> Response:
    row, body = running(site, request, name, key)
    row |= {"status": "failed", "exc_info": body.get("exc_info", "")}
    return Response({}, 200)


@route("POST", "/api/functions/queues/{name}/requests/{key}/complete")
def complete(site: Site, request: Request, name: str, key: str) -> Response:
    """Store the result; that of a whole task becomes its annotations."""
    row, body = running(site, request, name, key)
    result = {field: value for field, value in body.items() if field != "agent_id"}
    if row["params"]["type"] == "annotate_task":
        task = site.task(request, row["params"]["task"])
        data = cleaned(result.get("annotations") or {}, scores=site.keeps_scores)
        write_task(site, task, "put" if row["cleanup"] else "create", data)
    row |= {"status": "finished", "progress": 1.0, "result": result}
    return Response({}, 200)


@route("GET", "/api/functions/queues/{name}/watch")
def watch(site: Site, _request: Request, name: str) -> Response:
    """Server-sent events, one for each new request, until the function is deleted or the client goes."""
    number = queue(site, name)["id"]
    return Response(stream=events(site, number), headers={"Content-Type": "text/event-stream"})


def events(site: Site, number: int) -> Iterator[bytes]:
    told = set(site.state.function_requests)
    yield b"retry: 100\n"
    while number in site.state.functions:
        with site.changed:
            new = [row for row in site.state.function_requests.values() if row["id"] not in told]
            if not new:
                site.changed.wait(KEEP_ALIVE_S)
        told |= {row["id"] for row in new}
        for row in [row for row in new if row["function"] == number]:
            data = json.dumps({"request_category": row["category"]})
            yield f"event: newrequest\ndata: {data}\n\n".encode()
        yield b":\n"
