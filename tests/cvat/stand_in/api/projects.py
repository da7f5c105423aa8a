"""Projects."""

from __future__ import annotations

from typing import Any

from ..http import ApiError, Request, Response
from ..listing import Getter, listed
from ..routes import route
from ..site import Site
from ..state import Row
from .extras import organization_of
from .labels import check_new_labels, create_labels, update_labels

FILTERS: dict[str, Getter] = {
    **{key: (lambda row, key=key: row[key]) for key in ("id", "name", "status", "updated_date", "created_date")},
    "owner": lambda row: row["owner"] and row["owner"]["username"],
    "assignee": lambda row: row["assignee"] and row["assignee"]["username"],
    "organization_id": lambda row: row["organization_id"],
}


def project_out(site: Site, request: Request, project: Row) -> Row:
    number = project["id"]
    tasks = site.tasks_of(number)
    return {
        "url": request.url(f"/api/projects/{number}"),
        "id": number,
        "name": project["name"],
        "owner": site.basic_user(request, project["owner"]),
        "assignee": site.basic_user(request, project["assignee"]),
        "guide_id": None,
        "bug_tracker": project["bug_tracker"],
        "created_date": project["created_date"],
        "updated_date": project["updated_date"],
        "status": project["status"],
        "dimension": "2d" if tasks else None,
        "organization": project["organization"],
        "organization_id": project["organization"],
        "target_storage": project["target_storage"],
        "source_storage": project["source_storage"],
        "tasks": {"count": len(tasks), "url": request.url("/api/tasks", project_id=number)},
        "labels": {"url": request.url("/api/labels", project_id=number)},
        "assignee_updated_date": project["assignee_updated_date"],
        "task_subsets": sorted({task["subset"] for task in tasks if task["subset"]}),
    }


@route("GET", "/api/projects")
def list_projects(site: Site, request: Request) -> Row:
    organization = organization_of(site, request)
    rows = [row for row in site.state.projects.values() if site.can_see_project(request.user, row)]
    rows = [row for row in rows if organization is None or row["organization"] == organization[0]]
    outer = [project_out(site, request, row) for row in rows]
    return listed(request, outer, filters=FILTERS, search=("name", "owner", "assignee", "status"))


@route("POST", "/api/projects")
def create_project(site: Site, request: Request) -> Response:
    assert request.user
    body = request.json_object()
    check_name(body)
    specs = body.get("labels") or []
    check_new_labels(specs)
    organization = organization_of(site, request)
    project = add_project(site, body, owner=request.user["id"], organization=organization[0] if organization else None)
    number = project["id"]
    create_labels(site, specs, {"project_id": number})
    headers = {"Location": request.url(f"/api/projects/{number}")}
    return Response(project_out(site, request, project), 201, headers)


def add_project(site: Site, body: Row, *, owner: int, organization: int | None = None) -> Row:
    """A project without labels."""
    number, now = site.state.next_id("project"), site.state.now()
    project: Row = {
        "id": number,
        "name": body["name"],
        "owner": owner,
        "assignee": site.user_id(body) if "assignee_id" in body else None,
        "assignee_updated_date": None,
        "bug_tracker": body.get("bug_tracker", ""),
        "created_date": now,
        "updated_date": now,
        "status": "annotation",
        "organization": organization,
        "target_storage": body.get("target_storage"),
        "source_storage": body.get("source_storage"),
    }
    site.state.projects[number] = project
    return project


@route("GET", "/api/projects/{id}")
def one_project(site: Site, request: Request, id: int) -> Row:
    return project_out(site, request, site.project(request, id))


@route("PATCH", "/api/projects/{id}")
def patch_project(site: Site, request: Request, id: int) -> Row:
    project, body = site.project(request, id), request.json_object()
    if "name" in body:
        check_name(body)
    if "labels" in body:
        check_new_labels(body["labels"])
        update_labels(site, body["labels"], {"project_id": id})
        touch_whole(site, id)
    update_owner_fields(site, project, body)
    if body:
        site.touch(project)
    return project_out(site, request, project)


@route("DELETE", "/api/projects/{id}")
def delete_project(site: Site, request: Request, id: int) -> Response:
    site.project(request, id)
    remove_project(site, id)
    return Response(None, 204)


def remove_project(site: Site, number: int) -> None:
    """Delete a project with its tasks and labels."""
    for task in site.tasks_of(number):
        remove_task(site, task["id"])
    for label in [row["id"] for row in site.state.labels.values() if row.get("project_id") == number]:
        del site.state.labels[label]
    del site.state.projects[number]


def touch_whole(site: Site, number: int) -> None:
    """Give a project, its tasks and their jobs a new date, as a change of the labels does."""
    tasks = site.tasks_of(number)
    site.touch(site.state.projects[number], *tasks, *(job for task in tasks for job in site.jobs_of(task["id"])))


def check_name(body: Row) -> None:
    name: Any = body.get("name")
    if "name" not in body:
        raise ApiError(400, {"name": ["This field is required."]})
    if not isinstance(name, str) or not name:
        raise ApiError(400, {"name": ["This field may not be blank."]})
    if len(name) > 256:
        raise ApiError(400, {"name": ["Ensure this field has no more than 256 characters."]})


def update_owner_fields(site: Site, row: Row, body: Row) -> None:
    """Take over what a project and a task have in common."""
    for key in ("name", "bug_tracker", "target_storage", "source_storage"):
        if key in body:
            row[key] = body[key]
    if "owner_id" in body:
        row["owner"] = site.user_id(body, "owner_id")
    if "assignee_id" in body:
        row["assignee"] = site.user_id(body)
        row["assignee_updated_date"] = site.state.now()


def remove_task(site: Site, number: int) -> None:
    """Delete a task with its data, jobs, annotations, issues and own labels."""
    state = site.state
    task = state.tasks.pop(number)
    state.data.pop(task["data"] or 0, None)
    for job in [row["id"] for row in state.jobs.values() if row["task_id"] == number]:
        remove_job(site, job)
    for label in [row["id"] for row in state.labels.values() if row.get("task_id") == number]:
        del state.labels[label]
    site.touch(state.projects.get(task["project_id"]))


def remove_job(site: Site, number: int) -> None:
    state = site.state
    del state.jobs[number]
    state.annotations.pop(number, None)
    for issue in [row["id"] for row in state.issues.values() if row["job"] == number]:
        del state.issues[issue]
        for comment in [row["id"] for row in state.comments.values() if row["issue"] == issue]:
            del state.comments[comment]
