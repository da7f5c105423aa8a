"""Review issues on a region of a frame, and the comments on them."""

from __future__ import annotations

from typing import Any

from ..http import ApiError, Request, Response, not_found
from ..listing import Getter, listed
from ..routes import route
from ..site import Site
from ..state import Row

ISSUE_FILTERS: dict[str, Getter] = {
    **{key: (lambda row, key=key: row[key]) for key in ("id", "resolved", "created_date", "updated_date")},
    "job_id": lambda row: row["job"],
    "frame_id": lambda row: row["frame"],
    "owner": lambda row: row["owner"] and row["owner"]["username"],
    "assignee": lambda row: row["assignee"] and row["assignee"]["username"],
    "task_id": lambda row: row["_task"],
}
COMMENT_FILTERS: dict[str, Getter] = {
    **{key: (lambda row, key=key: row[key]) for key in ("id", "created_date", "updated_date", "message")},
    "issue_id": lambda row: row["issue"],
    "owner": lambda row: row["owner"] and row["owner"]["username"],
}


def add_issue(site: Site, job: int, frame: int, position: list[float], message: str, owner: int) -> Row:
    """A new issue with its first comment."""
    number, now = site.state.next_id("issue"), site.state.now()
    site.state.issues[number] = {
        "id": number,
        "frame": frame,
        "position": position,
        "job": job,
        "owner": owner,
        "assignee": None,
        "created_date": now,
        "updated_date": now,
        "resolved": False,
    }
    add_comment(site, number, message, owner)
    return site.state.issues[number]


def add_comment(site: Site, issue: int, message: str, owner: int) -> Row:
    number, now = site.state.next_id("comment"), site.state.now()
    row = {"id": number, "issue": issue, "owner": owner, "message": message, "created_date": now, "updated_date": now}
    site.state.comments[number] = row
    return row


def remove_issue(site: Site, number: int) -> None:
    """Remove an issue with its comments."""
    del site.state.issues[number]
    for comment in [row["id"] for row in site.state.comments.values() if row["issue"] == number]:
        del site.state.comments[comment]


def issue_out(site: Site, request: Request, issue: Row) -> Row:
    number = issue["id"]
    count = sum(comment["issue"] == number for comment in site.state.comments.values())
    return {
        **issue,
        "owner": site.basic_user(request, issue["owner"]),
        "assignee": site.basic_user(request, issue["assignee"]),
        "comments": {"count": count, "url": request.url("/api/comments", issue_id=number)},
    }


def comment_out(site: Site, request: Request, comment: Row) -> Row:
    return {**comment, "owner": site.basic_user(request, comment["owner"])}


def own_issue(site: Site, request: Request, number: int) -> Row:
    if number not in site.state.issues:
        raise not_found("Issue")
    issue = site.state.issues[number]
    site.job(request, issue["job"])
    return issue


def own_comment(site: Site, request: Request, number: int) -> Row:
    if number not in site.state.comments:
        raise not_found("Comment")
    comment = site.state.comments[number]
    own_issue(site, request, comment["issue"])
    return comment


@route("GET", "/api/issues")
def list_issues(site: Site, request: Request) -> Row:
    outer: list[Row] = []
    for issue in site.state.issues.values():
        job = site.state.jobs[issue["job"]]
        if site.can_see_job(request.user, job):
            outer.append({**issue_out(site, request, issue), "_task": job["task_id"]})
    found = listed(request, outer, filters=ISSUE_FILTERS, search=("owner", "assignee"))
    for row in found["results"]:
        del row["_task"]
    return found


@route("POST", "/api/issues")
def create_issue(site: Site, request: Request) -> Response:
    assert request.user
    body = request.json_object()
    required = ("frame", "position", "job", "message")
    if missing := {key: ["This field is required."] for key in required if key not in body}:
        raise ApiError(400, missing)
    if body["job"] not in site.state.jobs:
        raise ApiError(400, {"job": [f'Invalid pk "{body["job"]}" - object does not exist.']})
    site.job(request, body["job"])
    position = [float(value) for value in body["position"]]
    issue = add_issue(site, body["job"], body["frame"], position, body["message"], request.user["id"])
    return Response(issue_out(site, request, issue), 201)


@route("GET", "/api/issues/{id}")
def one_issue(site: Site, request: Request, id: int) -> Row:
    return issue_out(site, request, own_issue(site, request, id))


@route("PATCH", "/api/issues/{id}")
def patch_issue(site: Site, request: Request, id: int) -> Row:
    issue, body = own_issue(site, request, id), request.json_object()
    for key in ("resolved", "position"):
        if key in body:
            issue[key] = body[key]
    if "assignee" in body:
        issue["assignee"] = site.user_id(body, "assignee")
    site.touch(issue)
    return issue_out(site, request, issue)


@route("DELETE", "/api/issues/{id}")
def delete_issue(site: Site, request: Request, id: int) -> Response:
    own_issue(site, request, id)
    remove_issue(site, id)
    return Response(None, 204)


@route("GET", "/api/comments")
def list_comments(site: Site, request: Request) -> Row:
    outer: list[dict[str, Any]] = []
    for comment in site.state.comments.values():
        job = site.state.jobs[site.state.issues[comment["issue"]]["job"]]
        if site.can_see_job(request.user, job):
            outer.append(comment_out(site, request, comment))
    return listed(request, outer, filters=COMMENT_FILTERS, search=("message", "owner"))


@route("POST", "/api/comments")
def create_comment(site: Site, request: Request) -> Response:
    assert request.user
    body = request.json_object()
    if missing := {key: ["This field is required."] for key in ("issue", "message") if key not in body}:
        raise ApiError(400, missing)
    if body["issue"] not in site.state.issues:
        raise ApiError(400, {"issue": [f'Invalid pk "{body["issue"]}" - object does not exist.']})
    own_issue(site, request, body["issue"])
    comment = add_comment(site, body["issue"], body["message"], request.user["id"])
    site.touch(site.state.issues[body["issue"]])
    return Response(comment_out(site, request, comment), 201)


@route("GET", "/api/comments/{id}")
def one_comment(site: Site, request: Request, id: int) -> Row:
    return comment_out(site, request, own_comment(site, request, id))


@route("PATCH", "/api/comments/{id}")
def patch_comment(site: Site, request: Request, id: int) -> Row:
    comment = own_comment(site, request, id)
    comment["message"] = request.json_object().get("message", comment["message"])
    site.touch(comment)
    return comment_out(site, request, comment)


@route("DELETE", "/api/comments/{id}")
def delete_comment(site: Site, request: Request, id: int) -> Response:
    own_comment(site, request, id)
    del site.state.comments[id]
    return Response(None, 204)
