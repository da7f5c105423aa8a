"""Make the starter weights from nothing: ``python -m training.train_all``. Every step is resumable."""

from __future__ import annotations

import argparse
import subprocess
import sys


def commands(minutes: float, processes: int) -> list[list[str]]:
    """List the modules to run, in order, with their arguments; ``minutes`` is the time for the detector."""
    return [
        ["training.dataset", "--workers", str(processes)],
        ["training.classifier_data", "--workers", str(processes)],
        ["training.train_detector", "--minutes", str(minutes), "--processes", str(processes)],
        ["training.train_segmenter", "--minutes", str(minutes), "--threads", str(processes)],
        ["training.train_classifier", "--minutes", str(minutes / 2), "--threads", str(processes)],
        ["training.evaluate", "--write"],
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train and measure all three starter models (resumable).")
    parser.add_argument("--minutes", type=float, default=60, help="for detector and segmenter each")
    parser.add_argument("--processes", type=int, default=4)
    arguments = parser.parse_args()
    for module, *options in commands(arguments.minutes, arguments.processes):
        subprocess.run([sys.executable, "-m", module, *options], check=True)


if __name__ == "__main__":
    main()
