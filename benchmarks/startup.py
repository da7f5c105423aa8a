"""How long a user waits: ``python -m benchmarks.startup``.

Each command runs in a process of its own, in turn with the others. The ratio is to a Python that does nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks import _measure

PROMPT = "scratch. dent. crack. rust. hole. stain."
NO_TORCH = "import autolabel, sys; sys.exit('torch' in sys.modules)"


def run(*arguments: str, cwd: Path | None = None) -> float:
    """Time a process from its start to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=cwd)
    return time.perf_counter() - started


def labelling(picture: Path) -> tuple[str, ...]:
    """Arguments that label one picture with the bundled models, as a user types them."""
    return ("-m", "autolabel.cli", "run", str(picture), "--prompt", PROMPT, "--no-noise", "--quiet", "--offline")


def first_label(picture: Path) -> float:
    """Label one picture into a new run folder."""
    with tempfile.TemporaryDirectory() as folder:
        return run(*labelling(picture), cwd=Path(folder))


def main(given: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(given)
    described = _measure.machine()
    picture = sorted((Path(__file__).parents[1] / "sample_data" / "images").iterdir())[0]
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder)
        sides: dict[str, Callable[[], float]] = {
            "python": partial(run, "-c", "pass"),
            "import autolabel": partial(run, "-c", NO_TORCH),
            "autolabel --help": partial(run, "-m", "autolabel.cli", "--help"),
            "import torch": partial(run, "-c", "import torch"),
            "first label": partial(first_label, picture),
            "the same command again": partial(run, *labelling(picture), cwd=kept),
            "autolabel show": partial(run, "-m", "autolabel.cli", "show", cwd=kept),
            "autolabel report": partial(run, "-m", "autolabel.cli", "report", cwd=kept),
        }
        for side in sides.values():
            side()  # files into the system's cache, and a run to go on with
        seconds = _measure.rounds(sides, arguments.rounds)
    limits = {"import autolabel": 0.1, "autolabel --help": 0.3, "first label": 10.0}
    result = {
        "tasks": {
            name: {
                "seconds": _measure.median(values),
                "best_s": min(values),
                "times_of_python": _measure.median(values) / _measure.median(seconds["python"]),
                "limit_s": limits.get(name),
            }
            for name, values in seconds.items()
        }
    }
    _measure.keep("startup", result, described)


if __name__ == "__main__":
    main()
