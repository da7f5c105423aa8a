"""Finding, making and checking a project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autolabel.connect import Shape
from autolabel.errors import ServerError, UsageError
from autolabel.ontology import Ontology
from autolabel_connectors.cvat.client import Cvat, Row
from autolabel_connectors.cvat.errors import GoneError, UncertainError
from autolabel_connectors.cvat.frames import known_tasks
from autolabel_connectors.cvat.labels import ANNOTATION_ID, AttributeSpec, Labels, LabelSpec, check_labels, label_specs
from autolabel_connectors.receipts import Receipts

_TRIES = 5
_TASK_NOTES = ("task", "intended", "issues", "answered")


@dataclass(frozen=True, slots=True)
class Project:
    """A project and its labels; ``id`` is 0 for one that a dry run would make. ``warnings``: what fits only partly."""

    id: int
    name: str
    labels: Labels
    created: str = ""
    made: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """Tells it from a later project of the same number, on a server that was set up anew."""
        return _identity(self.id, self.created)

    def url(self, server: Cvat) -> str:
        """Address for a browser."""
        return server.web(f"projects/{self.id}") if self.id else server.url


def find_project(server: Cvat, name: str) -> Row | None:
    """Return the one project of this name, None where there is none; raises UsageError for several."""
    found = _named(server, name)
    if len(found) > 1:
        listed = ", ".join(str(row["id"]) for row in found)
        raise UsageError(
            f"{server.url} has {len(found)} projects called {name!r} (ids {listed}); rename all but one there, or give "
            "another --project"
        )
    return found[0] if found else None


def open_project(
    server: Cvat, name: str, ontology: Ontology, shape: Shape, receipts: Receipts, *, dry_run: bool
) -> Project:
    """Find or make the project; an existing one is checked and never changed.

    Raises UsageError that says what does not fit.
    """
    row = find_project(server, name)
    if row is not None:
        return _checked(server, row, ontology, shape, receipts, made=False)
    if dry_run:
        return Project(0, name, _labels_to_be(ontology), made=True)
    return _checked(server, _create(server, name, ontology), ontology, shape, receipts, made=True)


def read_project(server: Cvat, row: Row, ontology: Ontology, receipts: Receipts) -> Project:
    """Read a project's labels, whatever does not fit."""
    server.enter(row)
    labels, _ = check_labels(_labels(server, int(row["id"])), ontology, known=_known_labels(row, receipts))
    return Project(int(row["id"]), str(row["name"]), labels, str(row.get("created_date") or ""))


def gone(server: Cvat, project: Project, error: GoneError) -> ServerError:
    """Say of something that is not there whether the whole project was deleted meanwhile."""
    if server.find(f"/api/projects/{project.id}") is None:
        return GoneError(
            f"project {project.id} is no longer at {server.url}, or this user may not see it; run push again to make "
            "it anew (corrections that were pulled are kept in the run)"
        )
    return GoneError(f"{error}; run the same command again to go on with what is there")


def remember_project(project: Project, receipts: Receipts) -> None:
    """Note which project a run is pushed to; receipts of one that was deleted say nothing about it."""
    if receipts.noted("project") != project.identity:
        receipts.drop(list(receipts))
        # A server that was set up anew numbers its tasks from one again.
        about = [f"{kind}:{task}" for task in known_tasks(receipts) for kind in _TASK_NOTES]
        receipts.note_all({key: None for key in about if receipts.noted(key) is not None})
        receipts.note("tasks", [])
        receipts.note("project", project.identity)
    receipts.note("labels", {name: spec.id for name, spec in project.labels.by_name.items()})


def _known_labels(row: Row, receipts: Receipts) -> Mapping[str, int]:
    """Which label was which class at the last push to this very project."""
    same = receipts.noted("project") == _identity(int(row["id"]), str(row.get("created_date") or ""))
    return receipts.noted("labels", {}) if same else {}


def _identity(number: int, created: str) -> str:
    return f"{number}@{created}"


def _checked(server: Cvat, row: Row, ontology: Ontology, shape: Shape, receipts: Receipts, *, made: bool) -> Project:
    server.enter(row)
    known = _known_labels(row, receipts)
    labels, problems = check_labels(_labels(server, int(row["id"])), ontology, shape, known)
    missing = [name for name in ontology.names if name not in labels.by_name]
    if missing:
        listed = "\n  - ".join(problems)
        raise UsageError(
            f"project {row['name']!r} does not fit this run:\n  - {listed}\nChange that in its settings, or give "
            "another --project"
        )
    return Project(int(row["id"]), str(row["name"]), labels, str(row.get("created_date") or ""), made, tuple(problems))


def _create(server: Cvat, name: str, ontology: Ontology) -> Row:
    """Make a project once, whatever becomes of the answer."""
    body = {"name": name, "labels": label_specs(ontology)}
    lost: ServerError | None = None
    for _ in range(_TRIES):
        try:
            server.call("POST", "/api/projects", body=body)
        except UncertainError as error:
            lost = error
        found = _named(server, name)
        mine = [row for row in found if (row.get("owner") or {}).get("id") in (None, server.user.get("id"))]
        for twin in sorted(mine, key=lambda row: int(row["id"]))[1:]:
            # There was none a moment ago; the network delivered the request twice. The second is empty and nobody's.
            if len(mine) == len(found) and not (twin.get("tasks") or {}).get("count"):
                server.call("DELETE", f"/api/projects/{twin['id']}")
        if found:
            row = find_project(server, name)
            if row is not None:
                return row
    raise lost or ServerError(f"{server.url} made no project {name!r}; run the same command again")


def _named(server: Cvat, name: str) -> list[Row]:
    return [row for row in server.listed("/api/projects", name=name) if row["name"] == name]


def _labels(server: Cvat, project: int) -> list[Row]:
    return list(server.listed("/api/labels", project_id=project))


def _labels_to_be(ontology: Ontology) -> Labels:
    """Labels that a project would get; a dry run composes with them."""
    specs = {
        name: LabelSpec(number, name, attributes={ANNOTATION_ID: AttributeSpec(number, ANNOTATION_ID)})
        for number, name in enumerate(ontology.names, 1)
    }
    by_id = {spec.id: spec for spec in specs.values()}
    return Labels(specs, by_id, {uid: spec.name for uid, spec in by_id.items()})
