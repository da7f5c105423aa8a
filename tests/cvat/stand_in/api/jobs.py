"""Jobs: how the frames of a task are dealt out, and their stages and states."""

from __future__ import annotations

from ..http import ApiError, Request, Response
from ..listing import Getter, listed
from ..routes import route
from ..site import Site
from ..state import Row
from .extras import organization_of
from .projects import remove_job

STAGES = ("annotation", "validation", "acceptance")
STATES = ("new", "in progress", "completed", "rejected")
PLAIN = ("id", "task_id", "project_id", "stage", "state", "status", "type", "dimension", "updated_date", "start_frame")
FILTERS: dict[str, Getter] = {
    **{key: (lambda row, key=key: row[key]) for key in PLAIN},
    "assignee": lambda row: row["assignee"] and row["assignee"]["username"],
    "task_name": lambda row: row["_task_name"],
    "project_name": lambda row: row["_project_name"],
}


def job_out(site: Site, request: Request, job: Row) -> Row:
    number, task = job["id"], site.state.tasks[job["task_id"]]
    data = site.data_of(task) or {}
    return {
        "url": request.url(f"/api/jobs/{number}"),
        "id": number,
        "task_id": task["id"],
        "project_id": task["project_id"],
        "assignee": site.basic_user(request, job["assignee"]),
        "guide_id": None,
        "dimension": "2d",
        "bug_tracker": task["bug_tracker"],
        "status": job["status"],
        "stage": job["stage"],
        "state": job["state"],
        "mode": "annotation",
        "frame_count": job["stop_frame"] - job["start_frame"] + 1,
        "start_frame": job["start_frame"],
        "stop_frame": job["stop_frame"],
        "data_chunk_size": data.get("chunk_size"),
        "data_compressed_chunk_type": "imageset",
        "data_original_chunk_type": "imageset",
        "created_date": job["created_date"],
        "updated_date": job["updated_date"],
        "issues": {
            "url": request.url("/api/issues", job_id=number),
            "count": sum(issue["job"] == number for issue in site.state.issues.values()),
        },
        "labels": {"url": request.url("/api/labels", job_id=number)},
        "type": job.get("type", "annotation"),
        "organization": task["organization"],
        "target_storage": None,
        "source_storage": None,
        "assignee_updated_date": job["assignee_updated_date"],
        "parent_job_id": None,
        "consensus_replicas": 0,
    }


def deal_out(site: Site, task: Row, data: Row, mapping: list[list[str]] | None = None) -> None:
    """Make the jobs of a task that just got its data."""
    size = data["size"]
    if mapping:
        stops = [sum(len(files) for files in mapping[: n + 1]) - 1 for n in range(len(mapping))]
        segments = list(zip([0, *(stop + 1 for stop in stops)], stops, strict=False))
    else:
        length = task["segment_size"] or size
        overlap = min(task["overlap"] or 0, length // 2)
        task["segment_size"], task["overlap"] = min(length, size), overlap
        starts = range(0, max(1, size - overlap), length - overlap)
        segments = [(start, min(start + length, size) - 1) for start in starts]
    for start, stop in segments:
        number, now = site.state.next_id("job"), site.state.now()
        site.state.jobs[number] = {
            "id": number,
            "task_id": task["id"],
            "assignee": None,
            "assignee_updated_date": None,
            "status": "annotation",
            "stage": "annotation",
            "state": "new",
            "start_frame": start,
            "stop_frame": stop,
            "created_date": now,
            "updated_date": now,
        }
        site.state.annotations[number] = {"tags": {}, "shapes": {}, "tracks": {}}


def change_job(site: Site, job: Row, change: Row) -> None:
    """Set stage, state, assignee; 400 for a value that there is not."""
    for key, choices in (("stage", STAGES), ("state", STATES)):
        if key in change and change[key] not in choices:
            raise ApiError(400, {key: [f'"{change[key]}" is not a valid choice.']})
    before = dict(job)
    if "assignee" in change:
        job["assignee"] = site.user_id(change, "assignee")
        job["assignee_updated_date"] = site.state.now()
    if "stage" in change and change["stage"] != job["stage"]:
        job["stage"] = change["stage"]
        job["state"] = "new"
    job["state"] = change.get("state", job["state"])
    if job["stage"] == "annotation":
        job["status"] = "annotation"
    else:
        done = job["stage"] == "acceptance" and job["state"] == "completed"
        job["status"] = "completed" if done else "validation"
    for key in ("stage", "state", "assignee"):
        if job[key] != before[key]:
            site.tell("update:job", job, obj_name=key, obj_val=str(job[key]), payload={"old_value": before[key]})
    site.touch_job(job)


@route("GET", "/api/jobs")
def list_jobs(site: Site, request: Request) -> Row:
    organization_of(site, request)
    outer = []
    for job in site.state.jobs.values():
        if not site.can_see_job(request.user, job):
            continue
        task = site.state.tasks[job["task_id"]]
        project = site.state.projects.get(task["project_id"])
        names = {"_task_name": task["name"], "_project_name": project["name"] if project else None}
        outer.append({**job_out(site, request, job), **names})
    search = ("task_name", "project_name", "assignee", "state", "stage")
    found = listed(request, outer, filters=FILTERS, search=search)
    for row in found["results"]:
        del row["_task_name"], row["_project_name"]
    return found


@route("GET", "/api/jobs/{id}")
def one_job(site: Site, request: Request, id: int) -> Row:
    return job_out(site, request, site.job(request, id))


@route("POST", "/api/jobs")
def create_job(_site: Site, _request: Request) -> Row:
    raise ApiError(400, ["Only ground truth and consensus jobs can be created, and the stand-in has neither."])


@route("PATCH", "/api/jobs/{id}")
def patch_job(site: Site, request: Request, id: int) -> Row:
    job, change = site.job(request, id), request.json_object()
    if set(change) - {"state"}:
        site.task(request, job["task_id"])  # a job's assignee alone may only say how far it is
    change_job(site, job, change)
    return job_out(site, request, job)


@route("DELETE", "/api/jobs/{id}")
def delete_job(site: Site, request: Request, id: int) -> Response:
    site.task(request, site.job(request, id)["task_id"])
    remove_job(site, id)
    return Response(None, 204)
