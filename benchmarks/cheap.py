"""What must cost little on a large run: ``python -m benchmarks.cheap --images 10000``.

Other thresholds, the noise pass, exports, the report and reading, on a run of invented answers in shards of 16 images.
Each is set beside the time to read all of the run's files once, which is the least that any of them could take; seconds
of the processor stand beside those of the clock, as they hang less on what else runs.

``--only`` measures some tasks and keeps what was measured of the others in the same way; with ``--stored`` the run that
is measured stays. So a machine that is free for minutes at a time can do all of it::

    python -m benchmarks.cheap --stored /tmp/stored --only "read all files" re-resolve
    python -m benchmarks.cheap --stored /tmp/stored --only noise --rounds 1
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import _measure
from benchmarks._stored import stored_run

TASKS = (
    "read all files",
    "re-resolve",
    "open and count",
    "read annotations",
    "export coco",
    "export yolo",
    "export yolo-seg",
    "export voc",
    "report",
    "noise",
)


def read_files(path: Path) -> int:
    """Read every byte of a run's shards and annotations."""
    return sum(len(file.read_bytes()) for folder in ("shards", "annotations") for file in (path / folder).rglob("*.*"))


def tasks(path: Path, scratch: Path) -> dict[str, Callable[[], object]]:
    """Name what is measured."""
    from autolabel.dataset import Run
    from autolabel.export import export_run
    from autolabel.report import write_report
    from autolabel.runner import resolve_run

    thresholds = iter([0.45, 0.3, 0.5, 0.35] * 1000)

    def export(fmt: Any) -> None:
        shutil.rmtree(scratch / "export", ignore_errors=True)
        export_run(Run.open(path), fmt, scratch / "export")

    def judge() -> None:
        from autolabel.quality import find_noise

        find_noise(Run.open(path))

    return {
        "read all files": partial(read_files, path),
        "re-resolve": lambda: resolve_run(Run.open(path), {"thresholds": {"min_score": next(thresholds)}}),
        "open and count": lambda: len(Run.open(path)),
        "read annotations": lambda: sum(len(item.annotations) for item in Run.open(path)),
        "export coco": partial(export, "coco"),
        "export yolo": partial(export, "yolo"),
        "export yolo-seg": partial(export, "yolo-seg"),
        "export voc": partial(export, "voc"),
        "report": lambda: write_report(Run.open(path), scratch / "report.html"),
        "noise": judge,
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time each task ``rounds`` times, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        path = _run_in(arguments.stored or Path(folder), arguments)
        named = {name: task for name, task in tasks(path, Path(folder)).items() if name in arguments.only}
        read_files(path)
        seconds = {name: list[float]() for name in named}
        busy = {name: list[float]() for name in named}
        peaks = {}
        for _ in range(arguments.rounds):
            for name, task in named.items():
                cpu = time.process_time()
                seconds[name].append(_measure.timed(task)())
                busy[name].append(time.process_time() - cpu)
                peaks[name] = _measure.peak_mb()
                print(
                    f"{name}: {seconds[name][-1]:.2f} s, processor {busy[name][-1]:.2f} s", file=sys.stderr, flush=True
                )
    return {
        name: {
            "rounds": arguments.rounds,
            "seconds": _measure.median(values),
            "images_per_s": arguments.images / _measure.median(values),
            "best_images_per_s": arguments.images / min(values),
            "cpu_s": _measure.median(busy[name]),
            "images_per_cpu_s": arguments.images / _measure.median(busy[name]),
            "peak_mb_so_far": peaks[name],
        }
        for name, values in seconds.items()
    }


def _run_in(folder: Path, arguments: argparse.Namespace) -> Path:
    """Path of the run in ``folder``; it is made where there is none."""
    path = folder / "run"
    return path if (path / "manifest.json").is_file() else stored_run(folder, arguments.images, boxes=arguments.boxes)


def main(given: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--boxes", type=int, default=10, help="proposals of an image")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="TASK", choices=TASKS, default=TASKS, help=", ".join(TASKS))
    parser.add_argument("--stored", type=Path, help="folder of the run that is measured; it is made there, and stays")
    arguments = parser.parse_args(given)
    described = _measure.machine()
    measured = measure(arguments)
    setting = {"images": arguments.images, "boxes_per_image": arguments.boxes, "images_per_shard": 16}
    before = _measure.kept("cheap") or {}
    alike = all(before.get(name) == value for name, value in setting.items())
    alike = alike and (before.get("machine") or {}).get("processor") == described["processor"]
    every = {**(before["tasks"] if alike else {}), **measured}
    _measure.keep("cheap", {**setting, "tasks": {name: every[name] for name in TASKS if name in every}}, described)


if __name__ == "__main__":
    main()
