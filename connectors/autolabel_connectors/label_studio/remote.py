"""What a Label Studio project holds, read page by page: tasks with their predictions and annotations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from autolabel_connectors.ahead import Ahead
from autolabel_connectors.label_studio.errors import MissingError
from autolabel_connectors.label_studio.http import Api

IMAGE_ID, PATH = "autolabel_image_id", "path"
"""Keys of a task's data that say which image it shows."""

VERSION_PREFIX = "autolabel-"
PAGE = 100
_PAGES_AHEAD = 2

T = TypeVar("T")
Key = tuple[str, str]
"""Image id and path: what a task is recognised by."""


@dataclass(frozen=True, slots=True)
class RemoteTask:
    """One task as the server holds it; ``key`` is None for a task that we did not make."""

    id: int
    key: Key | None
    data: Mapping[str, Any]
    predictions: tuple[Mapping[str, Any], ...]
    annotations: tuple[Mapping[str, Any], ...]
    drafted: bool
    created_at: str
    comments: int = 0

    @property
    def people(self) -> bool:
        """Whether a person has worked on it: an annotation, a skip, a draft or a comment."""
        return bool(self.annotations or self.drafted or self.comments)

    @property
    def ours(self) -> tuple[Mapping[str, Any], ...]:
        """Predictions that a push made, the oldest first; those of ML backends and of other models are not ours."""
        made = [p for p in self.predictions if str(p.get("model_version") or "").startswith(VERSION_PREFIX)]
        return tuple(sorted((p for p in made if p.get("model") is None), key=lambda p: int(p["id"])))


def read_tasks(api: Api, project: int, ids: Sequence[int] | None = None) -> Iterator[tuple[list[RemoteTask], int]]:
    """Yield pages of a project's tasks in the order they were made, each with the number of tasks there are in all."""
    params: dict[str, Any] = {"project": project, "fields": "all", "page_size": PAGE, "resolve_uri": "false"}
    if ids is not None:
        params["query"] = json.dumps({"selectedItems": {"all": False, "included": list(ids)}})
    seen, page, newest = 0, 1, -1
    while True:
        try:
            answer = api.get("/api/tasks", {**params, "page": page}, doing="read the project's tasks")
        except MissingError:
            if page == 1:
                raise
            return  # tasks were deleted meanwhile, and with them the last page
        # Where a task is deleted meanwhile, later ones move up a page; none is seen twice.
        tasks = [task for task in map(_task, answer["tasks"]) if task.id > newest]
        seen += len(answer["tasks"])
        if tasks:
            newest = tasks[-1].id
        yield tasks, int(answer["total"])
        if seen >= int(answer["total"]) or not answer["tasks"]:
            return
        page += 1


@contextmanager
def pages_ahead(api: Api, project: int) -> Iterator[Iterator[tuple[list[RemoteTask], int]]]:
    """Lend the pages that `read_tasks` yields; the next one is read while one is looked at."""
    with Ahead(((page, 1) for page in read_tasks(api, project)), _PAGES_AHEAD) as pages:
        yield (page for (page,) in iter(partial(pages.take, 1, 1, 1), []))


def chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut a stream into lists of at most ``size``."""
    stream = iter(values)
    while chunk := list(islice(stream, size)):
        yield chunk


def emails(api: Api) -> dict[int, str]:
    """Map user ids to e-mail addresses; empty where the token's user may not see the others."""
    try:
        people: Iterable[Mapping[str, Any]] = api.get("/api/users", doing="read who works here")
    except MissingError:
        return {}
    return {int(person["id"]): str(person.get("email") or person.get("username") or "") for person in people}


def _task(values: Mapping[str, Any]) -> RemoteTask:
    data = values.get("data") or {}
    image_id, path = data.get(IMAGE_ID), data.get(PATH)
    counted = int(values.get("total_annotations") or 0) + int(values.get("cancelled_annotations") or 0)
    annotations = tuple(values.get("annotations") or ())
    return RemoteTask(
        id=int(values["id"]),
        key=(str(image_id), str(path)) if image_id and path else None,
        data=data,
        predictions=tuple(values.get("predictions") or ()),
        annotations=annotations,
        drafted=bool(values.get("draft_exists") or values.get("drafts") or (counted and not annotations)),
        created_at=str(values.get("created_at") or ""),
        comments=int(values.get("comment_count") or 0),
    )
