"""What people do in the web interface, as methods: the same state, the same rules, no HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .annotations import copied, outer, read_task, write_job
from .api.functions import ask
from .api.issues import add_comment, add_issue, remove_issue
from .api.jobs import change_job
from .api.labels import change_label, create_labels, delete_label
from .api.projects import add_project, remove_project, remove_task, touch_whole
from .http import ApiError
from .masks import Bitmap, encoded
from .shapes import cleaned
from .site import Site
from .state import Row


class Human:
    """A person at work. Shapes and tags go by their id, labels and attributes by their name.

    An edit keeps the id and, as the web interface does, turns the source ``auto`` into ``semi-auto``; what the
    person draws anew is ``manual``.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    @contextmanager
    def working_as(self, user: int) -> Iterator[None]:
        """Do what follows as a user of this id; else it is the first administrator who does it."""
        before, self._site.acting = self._site.acting, user
        try:
            yield
        finally:
            self._site.acting = before

    def work(self, job: int, seconds: float) -> None:
        """Spend time on a job, as the web interface reports it."""
        with self._site.lock:
            milliseconds = round(seconds * 1000)
            row = self._site.state.jobs[job]
            payload = {"working_time": milliseconds}
            self._site.tell("send:working_time", row, count=1, duration=milliseconds, payload=payload)

    # looking --------------------------------------------------------------------------------------

    def shapes(self, task: int) -> list[Row]:
        """All shapes of a task in their outer form."""
        with self._site.lock:
            return read_task(self._site, self._site.state.tasks[task])["shapes"]

    def tags(self, task: int) -> list[Row]:
        with self._site.lock:
            return read_task(self._site, self._site.state.tasks[task])["tags"]

    def shape(self, shape: int) -> Row:
        """One shape in its outer form; KeyError when it is gone."""
        with self._site.lock:
            _, row = self._find("shapes", shape)
            return outer("shapes", row, self._site.state.labels[row["label_id"]], self._site.keeps_scores)

    # drawing --------------------------------------------------------------------------------------

    def add(
        self,
        task: int,
        frame: int,
        label: str,
        points: Sequence[float] | Bitmap,
        *,
        type: str = "rectangle",
        attributes: dict[str, str] | None = None,
        **fields: Any,
    ) -> int:
        """Draw a shape and return its id; a bitmap ``(H, W)`` makes a mask."""
        drawn = {"type": type, "points": list(points)} if not hasattr(points, "dtype") else self._mask(points)
        return self._create("shapes", task, frame, label, attributes, {**drawn, **fields})

    def tag(self, task: int, frame: int, label: str, attributes: dict[str, str] | None = None) -> int:
        """Tag a whole frame and return the tag's id."""
        return self._create("tags", task, frame, label, attributes, {})

    def set_points(self, shape: int, points: Sequence[float]) -> None:
        """Draw a shape's outline anew."""
        self._edit("shapes", shape, points=[float(value) for value in points])

    def move(self, shape: int, dx: float, dy: float) -> None:
        """Move a shape by whole or part pixels (masks by whole ones)."""
        points = self.shape(shape)["points"]
        if self.shape(shape)["type"] == "mask":
            shifted = [*points[:-4], points[-4] + dx, points[-3] + dy, points[-2] + dx, points[-1] + dy]
        else:
            shifted = [value + (dy if place % 2 else dx) for place, value in enumerate(points)]
        self.set_points(shape, shifted)

    def paint(self, shape: int, bitmap: Bitmap) -> None:
        """Replace a mask by a bitmap ``(H, W)``."""
        self._edit("shapes", shape, **self._mask(bitmap))

    def relabel(self, shape: int, label: str, *, kind: str = "shapes") -> None:
        """Give another label; attributes keep their value where the new label has one of that name."""
        with self._site.lock:
            job, row = self._find(kind, shape)
            old = {spec["id"]: spec["name"] for spec in self._site.state.labels[row["label_id"]]["attributes"]}
            new = self._label(job, label)
            kept = {old[a["spec_id"]]: a["value"] for a in row["attributes"] if a["spec_id"] in old}
            attributes = [
                {"spec_id": spec["id"], "value": kept.get(spec["name"], spec["default_value"])}
                for spec in new["attributes"]
            ]
            self._edit(kind, shape, label_id=new["id"], attributes=attributes)

    def set_attribute(self, shape: int, name: str, value: str, *, kind: str = "shapes") -> None:
        """Change one attribute."""
        with self._site.lock:
            _, row = self._find(kind, shape)
            specs = {spec["name"]: spec["id"] for spec in self._site.state.labels[row["label_id"]]["attributes"]}
            others = [a for a in row["attributes"] if a["spec_id"] != specs[name]]
            self._edit(kind, shape, attributes=[*others, {"spec_id": specs[name], "value": value}])

    def change(self, shape: int, **fields: Any) -> None:
        """Change fields as they are on the wire, e.g. ``occluded=True``."""
        self._edit("shapes", shape, **fields)

    def delete(self, shape: int, *, kind: str = "shapes") -> None:
        """Delete a shape, or with ``kind="tags"`` a tag."""
        with self._site.lock:
            job, row = self._find(kind, shape)
            self._write(job, "delete", kind, row)

    # jobs, issues, labels, tasks ------------------------------------------------------------------

    def set_job(self, job: int, **change: Any) -> None:
        """Set ``stage``, ``state`` or ``assignee`` (a user's id) of a job."""
        with self._site.lock:
            change_job(self._site, self._site.state.jobs[job], change)

    def complete(self, task: int) -> None:
        """Accept all jobs of a task."""
        with self._site.lock:
            for job in self._site.jobs_of(task):
                change_job(self._site, job, {"stage": "acceptance", "state": "completed"})

    def complete_job(self, job: int) -> None:
        """Accept one job."""
        self.set_job(job, stage="acceptance", state="completed")

    def raise_issue(self, job: int, frame: int, position: Sequence[float], message: str) -> int:
        with self._site.lock:
            return add_issue(self._site, job, frame, list(position), message, 1)["id"]

    def comment(self, issue: int, message: str) -> int:
        with self._site.lock:
            return add_comment(self._site, issue, message, 1)["id"]

    def resolve(self, issue: int) -> None:
        with self._site.lock:
            row = self._site.state.issues[issue]
            row["resolved"] = True
            self._site.touch(row)

    def delete_issue(self, issue: int) -> None:
        with self._site.lock:
            remove_issue(self._site, issue)

    def create_project(self, name: str, labels: Sequence[str] = ()) -> int:
        """A project that some other tool or person made."""
        with self._site.lock:
            project = add_project(self._site, {"name": name}, owner=1)
            create_labels(self._site, [{"name": label} for label in labels], {"project_id": project["id"]})
            return project["id"]

    def rename_label(self, label: int, name: str) -> None:
        with self._site.lock:
            row = self._site.state.labels[label]
            owner = {key: row[key] for key in ("project_id", "task_id") if key in row}
            change_label(self._site, {"id": label, "name": name, "color": row["color"]}, owner)
            if "project_id" in row:
                touch_whole(self._site, row["project_id"])

    def delete_label(self, label: int) -> None:
        """Delete a label with all that bears it."""
        with self._site.lock:
            delete_label(self._site, label)

    def ask_function(
        self,
        function: int,
        task: int,
        mapping: dict[str, str],
        *,
        threshold: float | None = None,
        cleanup: bool = False,
    ) -> str:
        """Have an agent's function annotate a task, its labels mapped to the task's; the id of the request."""
        params = {
            "type": "annotate_task",
            "task": task,
            "mapping": {theirs: {"name": ours} for theirs, ours in mapping.items()},
            "threshold": threshold,
            "conv_mask_to_poly": False,
        }
        with self._site.lock:
            return ask(self._site, function, params, cleanup=cleanup)

    def delete_frame(self, task: int, frame: int) -> None:
        """Mark a frame as deleted; its annotations stay."""
        with self._site.lock:
            row = self._site.state.tasks[task]
            data = self._site.data_of(row)
            assert data is not None
            data["deleted_frames"] = sorted({*data["deleted_frames"], frame})
            self._site.touch(row)

    def delete_project(self, project: int) -> None:
        with self._site.lock:
            remove_project(self._site, project)

    def delete_task(self, task: int) -> None:
        with self._site.lock:
            remove_task(self._site, task)

    # inside ---------------------------------------------------------------------------------------

    @staticmethod
    def _mask(bitmap: Any) -> Row:
        return {"type": "mask", "points": encoded(bitmap)}

    def _find(self, kind: str, number: int) -> tuple[Row, Row]:
        for job, stored in self._site.state.annotations.items():
            if number in stored[kind]:
                return self._site.state.jobs[job], stored[kind][number]
        raise KeyError(f"no {kind.removesuffix('s')} {number} on the stand-in")

    def _label(self, job: Row, name: str) -> Row:
        labels = self._site.labels_of_task(self._site.state.tasks[job["task_id"]])
        return next(label for label in labels if label["name"] == name)

    def _create(
        self, kind: str, task: int, frame: int, label: str, attributes: dict[str, str] | None, fields: Row
    ) -> int:
        with self._site.lock:
            jobs = self._site.jobs_of(task)
            job = next(job for job in jobs if job["start_frame"] <= frame <= job["stop_frame"])
            row = self._label(job, label)
            values = {spec["name"]: spec["default_value"] for spec in row["attributes"]} | (attributes or {})
            specs = {spec["name"]: spec["id"] for spec in row["attributes"]}
            given = [{"spec_id": specs[name], "value": value} for name, value in values.items()]
            fields = {"frame": frame, "label_id": row["id"], "source": "manual", "attributes": given, **fields}
            return self._write(job, "create", kind, fields)[kind][0]["id"]

    def _edit(self, kind: str, number: int, **change: Any) -> None:
        with self._site.lock:
            job, row = self._find(kind, number)
            label = self._site.state.labels[change.get("label_id", row["label_id"])]
            edited = outer(kind, {**copied(row), **change}, label, self._site.keeps_scores)
            if row["source"] in {"auto", "semi-auto"} and "source" not in change:
                edited["source"] = "semi-auto"
            elif "source" not in change:
                edited["source"] = "manual"
            self._write(job, "update", kind, edited)

    def _write(self, job: Row, action: str, kind: str, row: Row) -> Row:
        try:
            return write_job(
                self._site, job, action, cleaned({kind: [row]}, scores=self._site.keeps_scores, action=action)
            )
        except ApiError as error:
            raise ValueError(f"the stand-in would refuse this edit: {error}") from error
