"""Syncs killed at random moments, people at work between them, and a judge who knows nothing of the connector's rules.

The judge keeps its own book: what people did, shape by shape, and what the models say now. Whatever was killed before,
after a sync that was let finish each image must show exactly people's shapes as they left them, and each of the models'
regions once, where nobody touched it. ``AUTOLABEL_KILL_ROUNDS`` sets how many rounds there are, ``AUTOLABEL_KILL_SEED``
where the dice start.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

import autolabel
from autolabel.types import Annotation, Correction, Review
from autolabel_connectors.cvat.geometry import decode_mask
from tests.cvat.stand_in import Fault
from tests.cvat.sync import Bench, MakeRun

ROUNDS = int(os.environ.get("AUTOLABEL_KILL_ROUNDS", "4"))
SEED = int(os.environ.get("AUTOLABEL_KILL_SEED", "20261121"))
SIZES = {"TASK_IMAGES": 6, "JOB_IMAGES": 3, "MAX_SHAPES": 3, "MAX_CHANGES": 2}
"""Small, so that there are many requests between which a kill may fall."""

SCORES = (0.25, 0.43, 0.45, 0.47, 0.9)
Shape = dict[str, Any]


@dataclass
class Worker:
    """A process that syncs, and may be killed."""

    process: subprocess.Popen[str]
    bench: Bench
    folder: Path
    seconds: float = 0.5
    killed: int = 0

    def sync(self, run: Path, deeds: list[str], options: dict[str, Any]) -> int:
        """Start, and return the process that works."""
        target = self.bench.target
        order = {"folder": str(self.folder), "run": str(run), "project": target.project, "url": target.url}
        order |= {"token": target.token, "sizes": SIZES, "deeds": deeds, "options": options}
        print(json.dumps(order), file=self.stdin, flush=True)
        return int(self.stdout.readline())

    def ended(self) -> int:
        """Wait for the end, and return the exit code."""
        return int(self.stdout.readline())

    def finish(self, *about: Any) -> None:
        start = time.perf_counter()
        self.sync(*about)
        assert self.ended() == 0
        self.seconds = 0.5 * self.seconds + 0.5 * (time.perf_counter() - start)

    def kill_after(self, seconds: float, *about: Any) -> None:
        """Kill it when it has worked for some time."""
        pid = self.sync(*about)
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)  # the worker reaps it only when it is given more to do: the id is still its own
        self.killed += self.ended() != 0

    def kill_at(self, request: int, *about: Any, before: bool) -> None:
        """Kill it when its n-th request arrives, or when that was carried out and is not answered yet."""
        pid: list[int] = []

        def kill() -> None:
            while not pid:
                time.sleep(0)
            os.kill(pid[0], signal.SIGKILL)

        self.bench.server.faults.at(request, (Fault.before if before else Fault.after)(kill))
        pid.append(self.sync(*about))
        self.killed += self.ended() != 0
        self.bench.server.faults.clear()

    @property
    def stdin(self) -> IO[str]:
        assert self.process.stdin
        return self.process.stdin

    @property
    def stdout(self) -> IO[str]:
        assert self.process.stdout
        return self.process.stdout


@pytest.fixture
def worker(bench: Bench, workspace: Path) -> Iterator[Worker]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cvat.pusher"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield Worker(process, bench, workspace)
    assert process.stdin
    process.stdin.close()
    process.wait()


@dataclass
class Judge:
    """Keeps a book of what people did, and compares it with the server and with the run."""

    bench: Bench
    rng: np.random.Generator
    theirs: dict[int, Shape] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    owners: dict[int, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    frozen: dict[int, list[Shape]] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)

    # people -----------------------------------------------------------------------------------------

    def work(self, paths: list[str]) -> None:
        """Have people do a few things."""
        human = self.bench.server.human
        for _ in range(int(self.rng.integers(0, 4))):
            path = str(self.rng.choice(paths))
            try:
                task, frame = self.bench.place(path)
                job = self.bench.job_of(path)
            except (KeyError, StopIteration):
                continue  # it is not there yet
            if job in self.frozen:
                continue
            # What appeared in a cut sync and was not seen complete yet may be edited, but a deletion of all of it would
            # leave no trace that it ever was there.
            shapes = self.bench.shapes(path)
            deed = str(self.rng.choice(["add", "move", "relabel", "delete", "mark", "complete"], p=PROBABLE))
            if deed == "complete":
                human.complete_job(job)
                self.frozen[job] = self.of_job(job)
            elif deed == "add" or not shapes:
                x, y = int(self.rng.integers(0, 24)), int(self.rng.integers(28, 38))
                label = str(self.rng.choice(["scratch", "dent"]))
                self.keep(human.add(task, frame, label, (x, y, x + 8, y + 7)))
            else:
                self.change(deed, self.rng.choice([shape["id"] for shape in shapes]))

    def change(self, deed: str, uid: Any) -> None:
        human, uid = self.bench.server.human, int(uid)
        owner = self.bench.attributes(human.shape(uid)).get("annotation_id", "none")
        if deed == "delete":
            if uid not in self.settled | self.theirs.keys():
                return
            human.delete(uid)
            self.theirs.pop(uid, None)
            self.removed.add(uid)
            if owner := self.owners.get(uid, owner if owner != "none" else ""):
                self.refused[owner] = deed
            return
        if deed == "move":
            human.move(uid, int(self.rng.integers(1, 3)), 1)
        elif deed == "relabel":
            human.relabel(uid, str(self.rng.choice(["scratch", "dent"])))
        else:
            human.change(uid, occluded=True)
        if owner != "none":
            self.owners[uid] = owner
        self.keep(uid)

    def keep(self, uid: int) -> None:
        self.theirs[uid] = self.bench.server.human.shape(uid)

    def of_job(self, job: int) -> list[Shape]:
        row = self.bench.server.state.jobs[job]
        shapes = self.bench.server.human.shapes(row["task_id"])
        return [s for s in shapes if row["start_frame"] <= s["frame"] <= row["stop_frame"]]

    # judgement --------------------------------------------------------------------------------------

    def judge(self, run: autolabel.Run, shape: str) -> None:
        """Compare the server with the book and the models, region by region."""
        held = {s["id"]: s for task in self.bench.tasks for s in self.bench.server.human.shapes(task)}
        assert not self.removed & held.keys()
        for uid, expected in self.theirs.items():
            assert held[uid] == expected
        for job, shapes in self.frozen.items():
            assert self.of_job(job) == shapes
        touched = {self.owners[uid] for uid in self.theirs if uid in self.owners} | self.refused.keys()
        names = self.bench.labels()
        for item in run.predicted():
            if self.bench.job_of(item.image.path) in self.frozen:
                continue
            wanted = {a.id: a for a in item.annotations if a.id not in touched}
            machine = [s for s in self.bench.shapes(item.image.path) if s["id"] not in self.theirs]
            assert sorted(self.bench.attributes(s)["annotation_id"] for s in machine) == sorted(wanted)
            for made in machine:
                annotation = wanted[self.bench.attributes(made)["annotation_id"]]
                assert names[made["label_id"]] == annotation.label
                assert made["source"] == "auto"
                same_outline(made, annotation, shape, (item.image.width, item.image.height))
        self.settled = set(held)

    def judge_corrections(self, run: autolabel.Run) -> None:
        """Compare what was pulled with the book."""
        opened = autolabel.Run.open(run.path)
        found = {c.annotation_id: c for c in opened.corrections() if isinstance(c, Correction)}
        complete = {review.path for review in opened.reviews() if isinstance(review, Review)}
        paths = [item.image.path for item in run.predicted()]
        assert complete == {path for path in paths if self.bench.job_of(path) in self.frozen}
        for owner in self.refused:
            assert found[owner].action == "deleted"
        names = self.bench.labels()
        added = [c for c in found.values() if c.action == "added"]
        drawn = [s for uid, s in self.theirs.items() if uid not in self.owners]
        assert sorted((c.label, c.box.xyxy) for c in added if c.box) == sorted(
            (names[s["label_id"]], tuple(s["points"])) for s in drawn
        )
        for uid, owner in self.owners.items():
            if uid in self.theirs and owner in found:
                expected, correction = self.theirs[uid], found[owner]
                assert correction.action in ("edited", "accepted")
                assert correction.label == names[expected["label_id"]]
                if expected["type"] == "rectangle" and correction.iou != 1.0:
                    assert correction.box is not None
                    assert correction.box.xyxy == tuple(expected["points"])


PROBABLE = (0.25, 0.25, 0.15, 0.2, 0.1, 0.05)


def same_outline(made: Shape, annotation: Annotation, shape: str, size_wh: tuple[int, int]) -> None:
    if shape == "box" or annotation.mask is None:
        assert made["type"] == "rectangle"
        assert np.abs(np.subtract(made["points"], annotation.box.xyxy)).max() <= 0.011
    else:
        assert made["type"] == "mask"
        assert decode_mask(made["points"], size_wh) == annotation.mask


@pytest.mark.slow
def test_syncs_are_killed_at_random_moments_and_people_lose_nothing(
    bench: Bench, make_run: MakeRun, worker: Worker
) -> None:
    rng = np.random.default_rng(SEED)
    judge = Judge(bench, rng)
    requests = 40
    for number in range(ROUNDS):
        count = min(16, 4 + 2 * number)
        for _ in range(int(rng.integers(1, 4))):
            run = make_run(count, thresholds={"min_score": float(rng.choice(SCORES))})
            options = {"shape": str(rng.choice(["box", "mask"]))}
            deeds = [["push"], ["pull"], ["pull", "push"]][int(rng.integers(3)) if number else 0]
            if rng.random() < 0.5:
                worker.kill_after(float(rng.uniform(0, worker.seconds)), run.path, deeds, options)
            else:
                before = bool(rng.integers(2))
                worker.kill_at(int(rng.integers(1, requests)), run.path, deeds, options, before=before)
            judge.work([image.path for image in run.images()])
        shape = str(rng.choice(["box", "mask"]))
        bench.server.log.clear()
        worker.finish(run.path, ["push"], {"shape": shape})
        requests = max(8, len(bench.server.log))
        judge.judge(run, shape)
        worker.finish(run.path, ["pull"], {})
        judge.judge_corrections(run)
        assert bench.writes(lambda run=run, shape=shape: worker.finish(run.path, ["push"], {"shape": shape})) == 0
        judge.judge(run, shape)
    assert worker.killed > ROUNDS // 3
