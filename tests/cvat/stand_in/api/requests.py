"""Background requests: the work is done at once, polling tells of it bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from ..http import ApiError, Request, Response, not_found
from ..listing import listed
from ..media import WorkFailedError
from ..routes import route
from ..site import Site
from ..state import Row, as_text

TARGETS = ("project", "task", "job")


def enqueue(
    site: Site,
    request: Request,
    rq_id: str,
    *,
    kind: str,
    target: str,
    ids: dict[str, int | None],
    work: Callable[[], Row | None],
    fmt: str | None = None,
    lightweight: bool | None = None,
) -> Response:
    """Do ``work`` now and answer 202 with the request's id; 409 while one of the same id is under way.

    What ``work`` returns (``result``: bytes, ``filename``, ``result_id``) is kept with the request.
    """
    assert request.user
    known = site.state.requests.get(rq_id)
    if known and known["polls"]:
        raise ApiError(409, "Request is being processed")
    row: Row = {
        "id": rq_id,
        "operation": {
            "type": kind,
            "target": target,
            **{f"{name}_id": ids.get(name) for name in TARGETS},
            "format": fmt,
            "lightweight": lightweight,
        },
        "created_date": site.state.now(),
        "owner": {"id": request.user["id"], "username": request.user["username"]},
        "message": "",
        "final": "finished",
        "polls": list(site.polls),
    }
    try:
        row["outcome"] = work() or {}
        row["started_date"] = row["finished_date"] = site.state.now()
        row["expiry_date"] = as_text(datetime.now(UTC) + timedelta(hours=1))
    except WorkFailedError as failure:
        row |= {"final": "failed", "polls": [], "outcome": {}, "started_date": site.state.now()}
        row |= {"finished_date": None, "expiry_date": None}
        row["message"] = f'Traceback (most recent call last):\n  File "stand-in", line 1, in run\n{failure}'
    site.state.requests[rq_id] = row
    return Response({"rq_id": rq_id}, 202)


def request_out(request: Request, row: Row) -> Row:
    """The outer form; each call uses up one of the states before the last."""
    status = row["polls"].pop(0) if row["polls"] else row["final"]
    ended = status in {"finished", "failed"}
    done = status == "finished"
    path = row["outcome"].get("path")
    return {
        "status": status,
        "message": row["message"] if ended else "",
        "id": row["id"],
        "operation": row["operation"],
        "progress": 0.0,
        "created_date": row["created_date"],
        "started_date": row["started_date"] if ended else None,
        "finished_date": row["finished_date"] if ended else None,
        "expiry_date": row["expiry_date"] if ended else None,
        "owner": row["owner"],
        "result_url": request.url(path, rq_id=row["id"]) if done and path else None,
        "result_id": row["outcome"].get("result_id") if done else None,
    }


def own(site: Site, request: Request, key: str) -> Row:
    row = site.state.requests.get(key)
    assert request.user
    if row is None or (row["owner"]["id"] != request.user["id"] and not request.user["is_superuser"]):
        raise not_found("Request")
    return row


@route("GET", "/api/requests")
def list_requests(site: Site, request: Request) -> Row:
    assert request.user
    mine = [row for row in site.state.requests.values() if row["owner"]["id"] == request.user["id"]]
    return listed(
        request,
        [request_out(request, row) for row in mine],
        filters={
            "id": lambda row: row["id"],
            "status": lambda row: row["status"],
            "target": lambda row: row["operation"]["target"],
            "task_id": lambda row: row["operation"]["task_id"],
            "project_id": lambda row: row["operation"]["project_id"],
            "format": lambda row: row["operation"]["format"],
        },
    )


@route("GET", "/api/requests/{key}")
def one_request(site: Site, request: Request, key: str) -> Row:
    return request_out(request, own(site, request, key))


@route("POST", "/api/requests/{key}/cancel")
def cancel_request(site: Site, request: Request, key: str) -> Response:
    row = own(site, request, key)
    if not row["polls"]:
        raise ApiError(400, f"Request in the {row['final']} status cannot be cancelled")
    row["polls"], row["final"], row["message"] = [], "failed", "Request has been cancelled"
    return Response(None, 200)
