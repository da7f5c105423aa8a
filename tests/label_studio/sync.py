"""What the sync tests share: pushes and pulls of a run, and what the server holds afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import autolabel
from autolabel.connect import PullReport, PushOptions, PushReport, Target
from autolabel_connectors.label_studio import connector
from tests.label_studio.server import LabelStudioServer


def quiet(what: str, done: int, total: int) -> None:
    """Show no progress."""


@dataclass
class Bench:
    """One run and one project of it on a server; ``url`` may be that of a proxy."""

    server: LabelStudioServer
    title: str
    url: str

    @classmethod
    def of(cls, server: LabelStudioServer, url: str = "") -> Bench:
        """A project that nobody has yet."""
        return cls(server, f"sync {secrets.token_hex(5)}", url or server.url)

    @property
    def target(self) -> Target:
        return Target("label-studio", self.title, self.url, self.server.token)

    def push(self, run: autolabel.Run, **options: Any) -> PushReport:
        return connector().push(autolabel.Run.open(run.path), self.target, PushOptions(**options), quiet)

    def pull(self, run: autolabel.Run, **options: Any) -> PullReport:
        return connector().pull(autolabel.Run.open(run.path), self.target, quiet, **options)

    def get(self, path: str, **params: Any) -> Any:
        with self.server.http() as http:
            return http.get(path, params=params).raise_for_status().json()

    def send(self, method: str, path: str, body: Any = None, token: str | None = None, **params: Any) -> Any:
        with self.server.http(token) as http:
            answer = http.request(method, path, json=body, params=params).raise_for_status()
            return answer.json() if answer.content else None

    @property
    def project(self) -> Mapping[str, Any]:
        """The one project of the title."""
        found = [p for p in self.get("/api/projects", title=self.title)["results"] if p["title"] == self.title]
        assert len(found) == 1, f"{len(found)} projects"
        return self.get(f"/api/projects/{found[0]['id']}")

    def tasks(self) -> list[dict[str, Any]]:
        """All tasks with predictions and annotations, as the server made them."""
        answer = self.get("/api/tasks", project=self.project["id"], fields="all", page_size=1000, resolve_uri="false")
        return list(answer["tasks"])

    def task(self, path: str) -> dict[str, Any]:
        """The one task of an image."""
        (found,) = (task for task in self.tasks() if task["data"]["path"] == path)
        return found

    def annotate(self, path: str, result: list[Any] | None = None, token: str | None = None, **more: Any) -> Any:
        """Submit an annotation as the editor does: the prediction's regions unless ``result`` says otherwise."""
        task = self.task(path)
        if result is None:
            result = [{**part, "origin": "prediction"} for p in task["predictions"] for part in p["result"]]
        body = {"result": result, "lead_time": 12.5, **more}
        return self.send("POST", f"/api/tasks/{task['id']}/annotations/", body, token)

    def state(self) -> Any:
        """Everything that a push may write, to be compared before and after."""
        return [(t["id"], t["data"], t["updated_at"], t["predictions"], t["annotations"]) for t in self.tasks()] + [
            self.project["label_config"],
            self.project["model_version"],
        ]
