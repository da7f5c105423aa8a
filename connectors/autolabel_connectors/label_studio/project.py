"""Finding, making and checking a project."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autolabel.connect import Shape
from autolabel.errors import UsageError
from autolabel.ontology import Ontology
from autolabel_connectors.label_studio.errors import MissingError, ServerError, UnsureError
from autolabel_connectors.label_studio.http import Api
from autolabel_connectors.label_studio.label_config import Controls, check_label_config, label_config
from autolabel_connectors.label_studio.remote import VERSION_PREFIX

_TITLE_LENGTHS = (3, 50)
_LISTED = "id,title,description,task_number"
"""What is read of each project: to count annotations and the like too takes the server twice as long."""

_MARK = re.compile(r"autolabel run .* \([0-9a-f]{8}\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Project:
    """A project and how regions are drawn in it; ``id`` is 0 for one that a dry run would make."""

    id: int
    title: str
    label_config: str
    controls: Controls
    created_at: str = ""
    model_version: str = ""
    made: bool = False

    @property
    def identity(self) -> str:
        """Tells it from a later project of the same number, on a server that was set up anew."""
        return f"{self.id}@{self.created_at}"

    def draws_like(self, other: Project) -> bool:
        """Whether what was composed for the other one is right for this one."""
        return (self.controls, self.label_config) == (other.controls, other.label_config)

    def url(self, api: Api) -> str:
        """Address for a browser."""
        return f"{api.url}/projects/{self.id}/data" if self.id else api.url


def find_project(api: Api, title: str) -> Mapping[str, Any] | None:
    """Return the one project of this title, None where there is none; raises UsageError for several."""
    found = _titled(api, title)
    if len(found) > 1:
        # A push that was killed may have left the empty twin of a request that the network delivered twice.
        fullest = max(found, key=lambda project: (int(project.get("task_number") or 0), -int(project["id"])))
        twins = _twins(found, fullest)
        found = [project for project in found if project not in twins]
    if len(found) > 1:
        listed = ", ".join(str(project["id"]) for project in found)
        raise UsageError(
            f"{api.url} has {len(found)} projects called {title!r} (ids {listed}); rename all but one there, or give "
            "another --project"
        )
    return found[0] if found else None


def plan_project(title: str, labels: Ontology, shape: Shape) -> Project:
    """Say how a new project would be: of number 0 and ``made``."""
    config = label_config(labels, shape)
    return Project(0, title, config, check_label_config(config, labels, shape)[0], made=True)


def look_up_project(api: Api, planned: Project, labels: Ontology, shape: Shape) -> Project:
    """Find the project of the planned one's title and check it; where there is none, the plan stands.

    Changes nothing. Raises UsageError that says what does not fit.
    """
    found = find_project(api, planned.title)
    if found is None:
        _check_title(planned.title)
        return planned
    return _project(get_project(api, int(found["id"])), labels, shape, made=False)


def make_project(api: Api, planned: Project, labels: Ontology, shape: Shape, about: str) -> Project:
    """Make a project that `look_up_project` did not find."""
    return _project(_create(api, planned.title, planned.label_config, about), labels, shape, made=True)


def get_project(api: Api, project: int) -> Mapping[str, Any]:
    """Read one project; where it is gone, the error says how to go on."""
    try:
        values = api.get(f"/api/projects/{project}", doing=f"read project {project}")
    except MissingError:
        raise gone(api, project) from None
    return dict(values)


def gone(api: Api, project: int) -> ServerError:
    """Return the error of a project that was deleted while it was in use."""
    return ServerError(
        f"project {project} is no longer at {api.url}, or this token's user may not see it; run push again to make it "
        "anew (corrections that were pulled are kept in the run), or restore it there first",
        404,
    )


def read_controls(values: Mapping[str, Any], labels: Ontology) -> Controls:
    """How a project's regions are drawn, whatever does not fit."""
    return check_label_config(str(values["label_config"]), labels)[0]


def show_version(api: Api, project: Project, version: str, *, dry_run: bool) -> tuple[str, str]:
    """Have the project show our predictions, where it shows none or an older version of ours.

    Returns what was done, and a warning, each empty where there is none.
    """
    shown = project.model_version
    if shown in ("", version):
        return "", ""  # Label Studio itself shows the first predictions that come with tasks
    if not shown.startswith(VERSION_PREFIX):
        return "", (
            f"people are shown the predictions of {shown!r}; to show these, choose {version!r} under Settings → "
            "Annotation → Live Predictions"
        )
    if not dry_run:
        try:
            api.request(
                "PATCH", f"/api/projects/{project.id}/", body={"model_version": version}, doing="show predictions"
            )
        except ServerError as error:
            if error.status != 400:
                raise
            return "", ""  # it has no predictions of this version
    return f"show predictions of {version}", ""


def _project(values: Mapping[str, Any], labels: Ontology, shape: Shape, *, made: bool) -> Project:
    config = str(values["label_config"])
    controls, problems = check_label_config(config, labels, shape)
    if problems:
        listed = "\n  - ".join(problems)
        raise UsageError(
            f"project {values['title']!r} does not fit this run:\n  - {listed}\nChange that in its settings (Labeling "
            "Interface), push with another --shape, or give another --project"
        )
    return Project(
        int(values["id"]),
        str(values["title"]),
        config,
        controls,
        str(values.get("created_at") or ""),
        str(values.get("model_version") or ""),
        made,
    )


def _check_title(title: str) -> None:
    shortest, longest = _TITLE_LENGTHS
    if not shortest <= len(title) <= longest:
        raise UsageError(
            f"Label Studio takes project names of {shortest} to {longest} letters, got {len(title)} ({title!r}); give "
            "another --project"
        )


def _titled(api: Api, title: str) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    page = 1
    while True:
        query = {"title": title, "include": _LISTED, "page": page, "page_size": 100}
        answer = api.get("/api/projects", query, doing="read the list of projects")
        if not isinstance(answer, dict) or "results" not in answer:
            raise ServerError(f"{api.url} does not answer as Label Studio does; check the address")
        found += [project for project in answer["results"] if project["title"] == title]
        if not answer.get("next"):
            return found
        page += 1


def _create(api: Api, title: str, config: str, about: str) -> Mapping[str, Any]:
    """Make a project once: a mark in its description tells ours, whatever became of the answer."""
    mark = f"{about} ({secrets.token_hex(4)})"
    lost = ServerError(f"create the project: {api.url} made none; run the same command again")
    body = {"title": title, "label_config": config, "description": mark}
    for _ in range(3):
        try:
            return dict(api.request("POST", "/api/projects/", body=body, doing="create the project"))
        except UnsureError as error:
            lost = error
        made = _titled(api, title)
        if found := [project for project in made if project.get("description") == mark] or made:
            return get_project(api, int(found[0]["id"]))
    raise lost


def count_tasks(api: Api, project: Project) -> int:
    """Ask how many tasks a project has; one that the network made twice loses its empty twin."""
    if project.made:
        same = _titled(api, project.title)
        ours = next((found for found in same if int(found["id"]) == project.id), None)
        if ours is not None:
            for twin in _twins(same, ours):
                api.request("DELETE", f"/api/projects/{twin['id']}", doing="remove a project that was made twice")
            return int(ours.get("task_number") or 0)
    return int(get_project(api, project.id).get("task_number") or 0)


def _twins(projects: Sequence[Mapping[str, Any]], ours: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the projects that a doubled request made beside ``ours``: with the same mark, and empty."""
    mark = str(ours.get("description") or "")
    if not _MARK.fullmatch(mark):
        return []
    same = (project for project in projects if project.get("description") == mark and project["id"] != ours["id"])
    return [project for project in same if not project.get("task_number")]
