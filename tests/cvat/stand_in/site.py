"""The site: its state, its settings, and rows that every part of the API looks up."""

from __future__ import annotations

import mimetypes
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .http import ApiError, Request, forbidden, not_found
from .state import Row, State

mimetypes.add_type("image/webp", ".webp")


@dataclass
class Site:
    """Everything a handler needs. ``polls``: what a background request reports before its end.

    ``acting`` is who a change is of, 1 being the first administrator.
    """

    state: State
    version: str = "2.54.1"
    share: Path | None = None
    buckets: dict[str, Path] = field(default_factory=dict)
    polls: tuple[str, ...] = ("started",)
    analytics: bool = True
    acting: int = 1
    lock: threading.RLock = field(default_factory=threading.RLock)
    changed: threading.Condition = field(init=False)

    def __post_init__(self) -> None:
        self.changed = threading.Condition(self.lock)

    @property
    def keeps_scores(self) -> bool:
        """Servers from 2.57 on keep the ``score`` of a shape, older ones drop it without a word."""
        major, minor = self.version.split(".")[:2]
        return (int(major), int(minor)) >= (2, 57)

    # rows, checked for existence and for who asks -------------------------------------------------

    def project(self, request: Request, number: int) -> Row:
        """A project that the user may see, or change if the request is a write; 404 or 403."""
        row = self.state.projects.get(number)
        if row is None:
            raise not_found("Project")
        reads = request.method == "GET" or request.path.endswith("/export")
        self.check(self.can_see_project(request.user, row) if reads else is_staff(request.user, row))
        return row

    def task(self, request: Request, number: int) -> Row:
        """A task that the user may see, or change if the request is a write; 404 or 403."""
        row = self.state.tasks.get(number)
        if row is None:
            raise not_found("Task")
        project = self.state.projects.get(row["project_id"])
        reads = request.method == "GET" or request.path.endswith("/export")
        self.check(self.can_see_task(request.user, row) if reads else is_staff(request.user, row, project))
        return row

    def job(self, request: Request, number: int) -> Row:
        row = self.state.jobs.get(number)
        if row is None:
            raise not_found("Job")
        self.check(self.can_see_job(request.user, row))
        return row

    @staticmethod
    def check(allowed: bool) -> None:
        if not allowed:
            raise forbidden()

    def can_see_project(self, user: Row | None, project: Row) -> bool:
        tasks = self.tasks_of(project["id"])
        return is_staff(user, project, *tasks) or any(self.can_see_task(user, task, alone=True) for task in tasks)

    def can_see_task(self, user: Row | None, task: Row, *, alone: bool = False) -> bool:
        project = None if alone else self.state.projects.get(task["project_id"])
        return is_staff(user, task, project) or any(job["assignee"] == user["id"] for job in self.jobs_of(task["id"]))

    def can_see_job(self, user: Row | None, job: Row) -> bool:
        if user is not None and job["assignee"] == user["id"]:
            return True
        return self.can_see_task(user, self.state.tasks[job["task_id"]])

    # relations ------------------------------------------------------------------------------------

    def tasks_of(self, project: int) -> list[Row]:
        return [task for task in self.state.tasks.values() if task["project_id"] == project]

    def jobs_of(self, task: int) -> list[Row]:
        return [job for job in self.state.jobs.values() if job["task_id"] == task]

    def labels_of_task(self, task: Row) -> list[Row]:
        key, owner = ("project_id", task["project_id"]) if task["project_id"] else ("task_id", task["id"])
        return [label for label in self.state.labels.values() if label.get(key) == owner]

    def data_of(self, task: Row) -> Row | None:
        return self.state.data.get(task["data"]) if task["data"] else None

    def tell(self, scope: str, job: Row, **event: Any) -> None:
        """Write an event about a job into the log."""
        task, user = self.state.tasks[job["task_id"]], self.state.users[self.acting]
        self.state.events.append(
            {
                "scope": scope,
                "timestamp": self.state.now(),
                "project_id": task["project_id"],
                "task_id": task["id"],
                "job_id": job["id"],
                "user_id": user["id"],
                "user_name": user["username"],
                "user_email": user["email"],
                **event,
            }
        )

    def touch(self, *rows: Row | None) -> None:
        """Give rows a new ``updated_date``."""
        for row in rows:
            if row is not None:
                row["updated_date"] = self.state.now()

    def touch_job(self, job: Row) -> None:
        task = self.state.tasks[job["task_id"]]
        self.touch(job, task, self.state.projects.get(task["project_id"]))

    def basic_user(self, request: Request, number: int | None) -> Row | None:
        user = self.state.users.get(number or 0)
        if user is None:
            return None
        outer = {key: user[key] for key in ("id", "username", "first_name", "last_name")}
        return {"url": request.url(f"/api/users/{user['id']}"), **outer}

    def user_id(self, body: Row, key: str = "assignee_id") -> int | None:
        """A user named in a body; 400 when there is none of that id."""
        number: Any = body[key]
        if number is not None and number not in self.state.users:
            raise ApiError(400, {key: [f'Invalid pk "{number}" - object does not exist.']})
        return number


def is_staff(user: Row | None, *rows: Row | None) -> bool:
    """Whether a user is an admin, or owner or assignee of one of the rows; who asks from inside may do all."""
    if user is None or user["is_superuser"]:
        return True
    return any(user["id"] in {row["owner"], row["assignee"]} for row in rows if row is not None)
