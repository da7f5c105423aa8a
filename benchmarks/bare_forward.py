"""The pipeline against its models' forward passes and nothing else: ``python -m benchmarks.bare_forward``.

One pass is recorded; then the same inputs are sent through the same networks again, in batches of the size that is
quickest for each, without reading, resizing, masks, crops, files or Python in between. The share says how much of the
pipeline's time is spent where it has to be. Above 1: stages overlap, or the replay was unlucky with the machine's load.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import _measure
from benchmarks._comparison import options, run_and_keep
from benchmarks._worker import Worker


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Let the pipeline and the replay take turns."""
    worker = Worker("ours", folder, device=arguments.device, boxes=arguments.boxes, cpu=arguments.cpu)
    batches = worker.ask("record")
    last: dict[str, Any] = {}

    def side(command: str) -> float:
        last[command] = worker.ask(command)
        return float(last[command]["seconds"])

    side("run")
    sides = {"pipeline": lambda: side("run"), "bare": lambda: side("bare")}
    seconds = _measure.rounds(sides, arguments.rounds)
    worker.close()
    return {
        "rounds_s": seconds,
        "share_of_bare": _measure.ratio(seconds["bare"], seconds["pipeline"]),
        "pipeline_images_per_s": arguments.images / _measure.median(seconds["pipeline"]),
        "bare_images_per_s": arguments.images / _measure.median(seconds["bare"]),
        "bare_parts_s": last["bare"]["parts"],
        "batches": {name: value for name, value in batches.items() if name != "peak_mb"},
        "peak_mb": last["run"]["peak_mb"],
    }


def main(given: Sequence[str] | None = None) -> None:
    """Command line."""
    run_and_keep("bare_forward", measure, options(__doc__), given)


if __name__ == "__main__":
    main()
