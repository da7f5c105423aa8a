"""What the sync tests share: pushes and pulls of a run, and what the stand-in holds afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import autolabel
from autolabel.connect import PullReport, PushOptions, PushReport, Target
from autolabel.types import AnnotatedImage, Correction, Image
from autolabel_connectors.cvat import CvatConnector
from tests.cvat.stand_in import StandIn

MakeRun = Callable[..., autolabel.Run]


def quiet(what: str, done: int, total: int) -> None:
    """Show no progress."""


@dataclass
class Bench:
    """One run's project on a stand-in."""

    server: StandIn
    project: str = "defects"
    patience_s: float = 5.0
    token: str = ""

    @property
    def target(self) -> Target:
        self.token = self.token or self.server.token()
        return Target("cvat", self.project, self.server.url, self.token)

    def connector(self) -> CvatConnector:
        return CvatConnector(self.patience_s, pace=0.01)

    def push(self, run: autolabel.Run, **options: Any) -> PushReport:
        return self.connector().push(autolabel.Run.open(run.path), self.target, PushOptions(**options), quiet)

    def pull(self, run: autolabel.Run, **options: Any) -> PullReport:
        return self.connector().pull(autolabel.Run.open(run.path), self.target, quiet, **options)

    def pulled(self, run: autolabel.Run) -> dict[str, list[Correction]]:
        """Pull, and return the corrections by path."""
        self.pull(run)
        found: dict[str, list[Correction]] = {}
        for correction in autolabel.Run.open(run.path).corrections():
            found.setdefault(correction.path, []).append(correction)
        return found

    def writes(self, work: Callable[[], object]) -> int:
        """How many requests of ``work`` could change something."""
        self.server.log.clear()
        work()
        return len(self.server.log.writes())

    # what the server holds --------------------------------------------------------------------------

    @property
    def tasks(self) -> list[int]:
        return sorted(self.server.state.tasks)

    def place(self, image: Image | str) -> tuple[int, int]:
        """Task and frame of an image, by the name of the frame."""
        path = image if isinstance(image, str) else image.path
        stem = path.rsplit(".", 1)[0]
        for task in self.tasks:
            data = self.server.site.data_of(self.server.state.tasks[task])
            for number, frame in enumerate(data["frames"] if data else ()):
                if frame["name"].rsplit("/", 1)[-1].startswith(f"{stem}-") or frame["name"].endswith(path):
                    return task, number
        raise KeyError(path)

    def shapes(self, path: str) -> list[dict[str, Any]]:
        """Shapes of an image, the oldest first."""
        task, frame = self.place(path)
        return sorted((s for s in self.server.human.shapes(task) if s["frame"] == frame), key=lambda s: s["id"])

    def labels(self) -> dict[int, str]:
        return {uid: row["name"] for uid, row in self.server.state.labels.items()}

    def attributes(self, shape: dict[str, Any]) -> dict[str, str]:
        specs = {a["id"]: a["name"] for row in self.server.state.labels.values() for a in row["attributes"]}
        return {specs[a["spec_id"]]: a["value"] for a in shape["attributes"]}

    def shape_of(self, annotation_id: str) -> dict[str, Any]:
        """The one shape of an annotation."""
        rows = [s for task in self.tasks for s in self.server.human.shapes(task)]
        (found,) = (s for s in rows if self.attributes(s).get("annotation_id") == annotation_id)
        return found

    def job_of(self, path: str) -> int:
        task, frame = self.place(path)
        jobs = self.server.site.jobs_of(task)
        return next(job["id"] for job in jobs if job["start_frame"] <= frame <= job["stop_frame"])

    def essence(self) -> Any:
        """All that a push makes, without ids and dates: to compare a disturbed push with an undisturbed one."""
        names = self.labels()
        state = self.server.state
        return (
            sorted(row["name"] for row in state.projects.values()),
            sorted(row["name"] for row in state.labels.values()),
            sorted(row["name"] for row in state.tasks.values()),
            sorted(
                (
                    self.server.site.data_of(state.tasks[task])["frames"][s["frame"]]["name"],
                    names[s["label_id"]],
                    s["type"],
                    tuple(s["points"]),
                    s["source"],
                    s["group"] or 0,
                    tuple(sorted(self.attributes(s).items())),
                )
                for task in self.tasks
                for s in self.server.human.shapes(task)
            ),
            sorted((row["frame"], tuple(row["position"]), row["resolved"]) for row in state.issues.values()),
        )


def expected_ids(items: list[AnnotatedImage]) -> list[str]:
    return sorted(annotation.id for item in items for annotation in item.annotations)
