"""Annotations of tasks and jobs over HTTP."""

from __future__ import annotations

from ..annotations import empty, read_job, read_task, write_job, write_task
from ..http import ApiError, Request, Response
from ..importing import imported
from ..routes import route
from ..shapes import cleaned
from ..site import Site
from ..state import Row
from .requests import enqueue
from .uploads import place, receive

ACTIONS = ("create", "update", "delete")


def body_of(site: Site, request: Request, action: str = "put") -> Row:
    return cleaned(request.json(), scores=site.keeps_scores, action=action)


def action_of(request: Request) -> str:
    action = request.arg("action") or ""
    if action not in ACTIONS:
        raise ApiError(400, ["Please specify a correct 'action' for the request"])
    return action


def task_with_data(site: Site, request: Request, number: int) -> Row:
    task = site.task(request, number)
    if not task["data"]:
        raise ApiError(400, "Exporting annotations from a task without data is not allowed")
    return task


@route("GET", "/api/tasks/{id}/annotations/")
def get_task_annotations(site: Site, request: Request, id: int) -> Row:
    return read_task(site, task_with_data(site, request, id))


@route("PUT", "/api/tasks/{id}/annotations/")
def put_task_annotations(site: Site, request: Request, id: int) -> Row:
    return write_task(site, task_with_data(site, request, id), "put", body_of(site, request))


@route("PATCH", "/api/tasks/{id}/annotations/")
def patch_task_annotations(site: Site, request: Request, id: int) -> Row:
    task, action = task_with_data(site, request, id), action_of(request)
    return write_task(site, task, action, body_of(site, request, action))


@route("DELETE", "/api/tasks/{id}/annotations/")
def delete_task_annotations(site: Site, request: Request, id: int) -> Response:
    write_task(site, task_with_data(site, request, id), "put", empty())
    return Response(None, 204)


@route("POST", "/api/tasks/{id}/annotations/")
def import_task_annotations(site: Site, request: Request, id: int) -> Response:
    task = task_with_data(site, request, id)
    return receive_file(site, request, "task", task, task)


@route("GET", "/api/jobs/{id}/annotations/")
def get_job_annotations(site: Site, request: Request, id: int) -> Row:
    return read_job(site, site.job(request, id))


@route("PUT", "/api/jobs/{id}/annotations/")
def put_job_annotations(site: Site, request: Request, id: int) -> Row:
    return write_job(site, site.job(request, id), "put", body_of(site, request))


@route("PATCH", "/api/jobs/{id}/annotations/")
def patch_job_annotations(site: Site, request: Request, id: int) -> Row:
    job, action = site.job(request, id), action_of(request)
    return write_job(site, job, action, body_of(site, request, action))


@route("DELETE", "/api/jobs/{id}/annotations/")
def delete_job_annotations(site: Site, request: Request, id: int) -> Response:
    write_job(site, site.job(request, id), "put", empty())
    return Response(None, 204)


@route("POST", "/api/jobs/{id}/annotations/")
def import_job_annotations(site: Site, request: Request, id: int) -> Response:
    job = site.job(request, id)
    return receive_file(site, request, "job", job, site.state.tasks[job["task_id"]])


@route("GET", "/api/projects/{id}/annotations/")
def get_project_annotations(site: Site, request: Request, id: int) -> Row:
    site.project(request, id)
    result = empty()
    for task in site.tasks_of(id):
        for kind, rows in read_task(site, task).items():
            if kind != "version":
                result[kind] += rows
    return result


def receive_file(site: Site, request: Request, target: str, row: Row, task: Row) -> Response:
    """Import a file of annotations in place of all that is there."""
    number = row["id"]
    key = place(f"{target}s", number, "annotations")

    def finish(files: dict[str, bytes]) -> Response:
        name, fmt = request.arg("filename") or "", request.arg("format") or ""
        content = files.get(name) or next(iter(files.values()), b"")
        site.state.uploads.pop(key, None)

        def work() -> None:
            data = cleaned(imported(site, task, fmt, content), scores=site.keeps_scores)
            if target == "task":
                write_task(site, row, "put", data)
            else:
                write_job(site, row, "put", data)

        rq_id = f"action=import&target={target}&target_id={number}&subresource=annotations"
        ids = {"project": task["project_id"], "task": task["id"], "job": number if target == "job" else None}
        return enqueue(site, request, rq_id, kind="import:annotations", target=target, ids=ids, work=work, fmt=fmt)

    return receive(site, request, key, finish)
