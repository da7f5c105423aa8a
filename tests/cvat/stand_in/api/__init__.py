"""The endpoints, one module for each part of the API."""

from . import (
    annotations,
    auth,
    data,
    events,
    exports,
    extras,
    functions,
    issues,
    jobs,
    labels,
    projects,
    requests,
    tasks,
    uploads,
)

__all__ = [
    "annotations",
    "auth",
    "data",
    "events",
    "exports",
    "extras",
    "functions",
    "issues",
    "jobs",
    "labels",
    "projects",
    "requests",
    "tasks",
    "uploads",
]
