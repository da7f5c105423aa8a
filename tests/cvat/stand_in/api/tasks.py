"""Tasks; their data, jobs and annotations are in modules of their own."""

from __future__ import annotations

from ..http import ApiError, Request, Response
from ..listing import Getter, listed
from ..routes import route
from ..site import Site
from ..state import Row
from .extras import organization_of
from .labels import check_new_labels, create_labels, update_labels
from .projects import check_name, remove_task, update_owner_fields

FILTERS: dict[str, Getter] = {
    **{
        key: (lambda row, key=key: row.get(key))
        for key in ("id", "name", "status", "subset", "mode", "dimension", "project_id", "updated_date", "bug_tracker")
    },
    "tracker_link": lambda row: row["bug_tracker"],
    "owner": lambda row: row["owner"] and row["owner"]["username"],
    "assignee": lambda row: row["assignee"] and row["assignee"]["username"],
    "project_name": lambda row: row["_project_name"],
    "organization_id": lambda row: row["organization_id"],
}


def task_out(site: Site, request: Request, task: Row) -> Row:
    """Outer form; what belongs to the data is missing until there is data, as on the real server."""
    number = task["id"]
    jobs = site.jobs_of(number)
    data = site.data_of(task)
    media = {} if data is None else {key: data[key] for key in ("size", "image_quality")}
    if data is not None:
        media |= {
            "data_chunk_size": data["chunk_size"],
            "data_original_chunk_type": "imageset",
            "data_compressed_chunk_type": "imageset",
            "data_cloud_storage_id": data["cloud_storage_id"],
            "data": data["id"],
        }
    return {
        "url": request.url(f"/api/tasks/{number}"),
        "id": number,
        "name": task["name"],
        "project_id": task["project_id"],
        "mode": "annotation" if data and data["size"] else "",
        "owner": site.basic_user(request, task["owner"]),
        "assignee": site.basic_user(request, task["assignee"]),
        "bug_tracker": task["bug_tracker"],
        "created_date": task["created_date"],
        "updated_date": task["updated_date"],
        "overlap": task["overlap"],
        "segment_size": task["segment_size"],
        "status": status(jobs),
        "guide_id": None,
        **media,
        "dimension": "2d",
        "subset": task["subset"],
        "organization_id": task["organization"],
        "organization": task["organization"],
        "target_storage": task["target_storage"],
        "source_storage": task["source_storage"],
        "jobs": {
            "count": len(jobs),
            "completed": sum(job["stage"] == "acceptance" and job["state"] == "completed" for job in jobs),
            "validation": sum(job["stage"] == "validation" for job in jobs),
            "url": request.url("/api/jobs", task_id=number),
        },
        "labels": {"url": request.url("/api/labels", task_id=number)},
        "assignee_updated_date": task["assignee_updated_date"],
        "validation_mode": None,
        "consensus_enabled": False,
    }


def status(jobs: list[Row]) -> str:
    """Of a task: completed when all jobs are, validation when a job is there, else annotation."""
    states = {job["status"] for job in jobs}
    if states == {"completed"}:
        return "completed"
    return "validation" if states and "annotation" not in states else "annotation"


@route("GET", "/api/tasks")
def list_tasks(site: Site, request: Request) -> Row:
    organization = organization_of(site, request)
    rows = [row for row in site.state.tasks.values() if site.can_see_task(request.user, row)]
    rows = [row for row in rows if organization is None or row["organization"] == organization[0]]
    outer = []
    for row in rows:
        project = site.state.projects.get(row["project_id"])
        outer.append({**task_out(site, request, row), "_project_name": project["name"] if project else None})
    found = listed(
        request, outer, filters=FILTERS, search=("project_name", "name", "owner", "assignee", "status", "subset")
    )
    for row in found["results"]:
        del row["_project_name"]
    return found


@route("POST", "/api/tasks")
def create_task(site: Site, request: Request) -> Response:
    assert request.user
    body = request.json_object()
    check_name(body)
    specs, project = body.get("labels") or [], body.get("project_id")
    if project is not None and specs:
        raise ApiError(400, {"non_field_errors": ["Project must have only one of Label set or project_id"]})
    if project is not None and project not in site.state.projects:
        raise ApiError(400, {"non_field_errors": [f"The specified project #{project} does not exist."]})
    if project is not None:
        site.project(request, project)
    check_new_labels(specs)
    organization = organization_of(site, request)
    number, now = site.state.next_id("task"), site.state.now()
    task: Row = {
        "id": number,
        "name": body["name"],
        "project_id": project,
        "owner": request.user["id"],
        "assignee": site.user_id(body) if "assignee_id" in body else None,
        "assignee_updated_date": None,
        "bug_tracker": body.get("bug_tracker", ""),
        "created_date": now,
        "updated_date": now,
        "overlap": body.get("overlap"),
        "segment_size": body.get("segment_size", 0),
        "subset": body.get("subset", ""),
        "organization": organization[0] if organization else None,
        "target_storage": body.get("target_storage"),
        "source_storage": body.get("source_storage"),
        "data": None,
    }
    site.state.tasks[number] = task
    create_labels(site, specs, {"task_id": number})
    site.touch(site.state.projects.get(project))
    headers = {"Location": request.url(f"/api/tasks/{number}")}
    return Response(task_out(site, request, task), 201, headers)


@route("GET", "/api/tasks/{id}")
def one_task(site: Site, request: Request, id: int) -> Row:
    return task_out(site, request, site.task(request, id))


@route("PATCH", "/api/tasks/{id}")
def patch_task(site: Site, request: Request, id: int) -> Row:
    task, body = site.task(request, id), request.json_object()
    if "name" in body:
        check_name(body)
    if "labels" in body:
        if task["project_id"]:
            raise ApiError(400, {"non_field_errors": ["Labels of a task in a project are those of the project"]})
        check_new_labels(body["labels"])
        update_labels(site, body["labels"], {"task_id": id})
        site.touch(*site.jobs_of(id))
    if "subset" in body:
        task["subset"] = body["subset"]
    update_owner_fields(site, task, body)
    site.touch(task, site.state.projects.get(task["project_id"]))
    return task_out(site, request, task)


@route("DELETE", "/api/tasks/{id}")
def delete_task(site: Site, request: Request, id: int) -> Response:
    site.task(request, id)
    remove_task(site, id)
    return Response(None, 204)


@route("GET", "/api/tasks/{id}/status")
def task_status(site: Site, request: Request, id: int) -> Row:
    """The old way to ask for the creation's state."""
    site.task(request, id)
    row = site.state.requests.get(f"action=create&target=task&target_id={id}")
    if row is None:
        return {"state": "Created", "message": "", "progress": 0}
    return {"state": row["final"].capitalize(), "message": row["message"], "progress": 0}
