"""Make the starter weights from nothing: ``python -m training.train_all``. Every step is resumable.

With a GPU the three trainings share it side by side: each alone leaves it waiting for its many small kernels. On a
CPU they follow one another. ``--stop-after-s`` ends a call early, whatever it does; the next call goes on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from training import runtime

SHARES: Final = {"detector": 1.0, "segmenter": 1.0, "classifier": 0.5}
"""Minutes of each training on a CPU, as shares of ``--minutes``."""
LAST_WORDS_S: Final = 60.0
"""What a training is given for its last evaluation and checkpoint."""


@dataclass(frozen=True, slots=True)
class Job:
    """A module to run with its arguments."""

    module: str
    arguments: tuple[str, ...]

    def start(self) -> subprocess.Popen[bytes]:
        """Start it in a process of its own."""
        return subprocess.Popen([sys.executable, "-m", self.module, *self.arguments])


class Deadline:
    """When this call must have ended; ``left_s`` is None where it has all the time."""

    def __init__(self, stop_after_s: float | None) -> None:
        self._until = None if stop_after_s is None else time.monotonic() + stop_after_s

    def left_s(self) -> float | None:
        """Seconds that are left."""
        return None if self._until is None else self._until - time.monotonic()

    def passed(self) -> bool:
        """Tell whether it is time to stop."""
        left = self.left_s()
        return left is not None and left <= 0


def data_jobs(workers: int, pictures: int, crops: int) -> list[Job]:
    """List the steps before the trainings; they follow one another, each using all ``workers``."""
    return [
        Job("training.dataset", ("--workers", str(workers), "--pictures", str(pictures))),
        Job("training.classifier_data", ("--workers", str(workers), "--pictures", str(crops))),
        Job("training.natural", ("--workers", str(workers), "--pictures", "100")),
    ]


def training_jobs(arguments: argparse.Namespace, gpu: bool, left_s: float | None) -> list[Job]:
    """Give the three trainings ``--minutes`` each on a GPU, else their share of it, and what is left of this call."""
    jobs = []
    for name, share in SHARES.items():
        options = ["--minutes", str(arguments.minutes * (1.0 if gpu else share)), "--seed", str(arguments.seed)]
        if arguments.steps:
            options = ["--steps", str(arguments.steps), "--seed", str(arguments.seed)]
        if left_s is not None:
            options += ["--stop-after-s", str(max(1.0, left_s - LAST_WORDS_S))]
        if arguments.tiny:
            options += ["--tiny", "--pictures", "4"]
        if gpu:
            options += ["--evaluate-every-s", "240"]
        elif name == "detector":
            options += ["--processes", str(arguments.workers)]
        else:
            options += ["--threads", str(arguments.workers)]
        jobs.append(Job(f"training.train_{name}", tuple(options)))
    return jobs


def run(jobs: Sequence[Job], deadline: Deadline, together: bool = False) -> bool:
    """Run jobs; false when the deadline passed before they were done. Raises RuntimeError when one fails."""
    groups = [list(jobs)] if together else [[job] for job in jobs]
    for group in groups:
        running = [(job, job.start()) for job in group]
        try:
            for job, process in running:
                left = deadline.left_s()
                if process.wait(timeout=None if left is None else max(1.0, left)):
                    raise RuntimeError(f"{job.module} {' '.join(job.arguments)} failed")
        except subprocess.TimeoutExpired:
            return False
        finally:
            for _, process in running:
                if process.poll() is None:
                    process.terminate()
    return True


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train and measure all three starter models (resumable).")
    parser.add_argument("--minutes", type=float, help="of training; default: 12 on a GPU, 60 on a CPU")
    parser.add_argument("--steps", type=int, help="steps of each training instead of minutes: repeatable")
    parser.add_argument("--stop-after-s", type=float, help="end this call by then; the next goes on")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--pictures", type=int, default=32_000, help="stored training pictures")
    parser.add_argument("--crops", type=int, default=4000, help="natural-size pictures that crops are cut from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device")
    parser.add_argument("--tiny", action="store_true", help="smallest batches, for tests")
    arguments = parser.parse_args()
    gpu = runtime.pick_device(arguments.device).type == "cuda"
    arguments.minutes = arguments.minutes or (12.0 if gpu else 60.0)
    deadline = Deadline(arguments.stop_after_s)
    steps = [
        lambda: run(data_jobs(arguments.workers, arguments.pictures, arguments.crops), deadline),
        lambda: run(training_jobs(arguments, gpu, deadline.left_s()), deadline, together=gpu),
    ]
    for step in steps:
        if deadline.passed() or not step():
            print("stopped; the same command goes on")
            return
    print(f"weights are in {runtime.WORK / 'trained'}; 'python -m training.publish' measures them and moves them in")


if __name__ == "__main__":
    main()
