"""All benchmarks of speed, one after the other: ``python -m benchmarks --quick``, or some: ``... startup cheap``.

Each runs in a process of its own and keeps its figures in ``benchmarks/results/``; at the end ``docs/speed.md`` gets
its tables and its plot anew.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

_FULL = ("reference_loop", "bare_forward", "stages")
QUICK: dict[str, list[str]] = {
    "startup": ["--rounds", "3"],
    "cheap": ["--images", "2000", "--rounds", "3"],
    "growth": ["--images", "50", "200", "1000", "--boxes", "1", "10", "100"],
    **{name: ["--images", "2", "--rounds", "3"] for name in _FULL},
    "memory": ["--sizes", "100", "1000"],
    "codecs": ["--rounds", "3"],
}
# Not here, as they need a server, a database or long: label_studio_push, review, noise, noise_pictures, noise_scale.


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(QUICK)}  [default: all]")
    parser.add_argument("--quick", action="store_true", help="few images and rounds: minutes")
    parser.add_argument("--device", default="cpu", help="of the comparisons with models of full size")
    parser.add_argument("--folder", type=Path, help="keep the checkpoints of full size here (1.5 GB)")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(QUICK)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(QUICK)}")
    failed = []
    for name in arguments.names or QUICK:
        print(f"== {name}", flush=True)
        options = QUICK[name] if arguments.quick else []
        if name in _FULL:
            options = [*options, "--device", arguments.device]
            options += ["--folder", str(arguments.folder)] if arguments.folder else []
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options], check=False)
        if done.returncode:
            failed.append(name)
    subprocess.run([sys.executable, "-m", "benchmarks.speed_page"], check=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
