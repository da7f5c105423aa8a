"""What a CVAT task holds: its shapes by frame, and the jobs that show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autolabel_connectors.cvat.client import Cvat, Row


@dataclass(frozen=True, slots=True)
class HeldTask:
    """All that was read of a task: shapes by frame, how many tags and tracks there are by frame, its jobs."""

    id: int
    shapes: Mapping[int, list[Row]]
    others: Mapping[int, int]
    jobs: tuple[Row, ...]

    def job_of(self, frame: int) -> Row | None:
        """Return the job that shows a frame, the first of several."""
        return next(iter(self._jobs_of(frame)), None)

    def closed(self, frame: int) -> bool:
        """Whether a push leaves a frame alone: people are done with it, or at reviewing it.

        So it does with a frame that no job for annotation shows (validation frames), or more than one: jobs that
        overlap hold a copy of each shape, and the server takes no change of both.
        """
        job = self.job_of(frame)
        if job is None or self.shared(frame):
            return True
        return bool(job["state"] == "completed" or job["stage"] in ("validation", "acceptance"))

    def shared(self, frame: int) -> bool:
        """Whether several jobs show a frame."""
        return len(self._jobs_of(frame)) > 1

    def complete(self, frame: int) -> bool:
        """Whether a person said that all on a frame is as it should be."""
        jobs = self._jobs_of(frame)
        return bool(jobs) and all(
            job["state"] != "rejected" and (job["state"] == "completed" or job["stage"] == "acceptance") for job in jobs
        )

    def _jobs_of(self, frame: int) -> list[Row]:
        return [job for job in self.jobs if job["start_frame"] <= frame <= job["stop_frame"]]


def read_task(server: Cvat, task: int) -> HeldTask:
    """Read a task; jobs that hold consensus replicas or ground truth are not ours to look at."""
    jobs = [job for job in server.listed("/api/jobs", task_id=task) if job.get("type") in (None, "annotation")]
    values = server.annotations(task)
    shapes: dict[int, list[Row]] = {}
    for shape in values.get("shapes") or ():
        shapes.setdefault(int(shape["frame"]), []).append(shape)
    others: dict[int, int] = {}
    for row in (*(values.get("tags") or ()), *(values.get("tracks") or ())):
        others[int(row["frame"])] = others.get(int(row["frame"]), 0) + 1
    first = {}
    for job in jobs:
        if not job.get("parent_job_id"):
            first[job["start_frame"], job["stop_frame"]] = job
    return HeldTask(task, shapes, others, tuple(first.values()))
