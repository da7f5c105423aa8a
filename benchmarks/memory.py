"""Peak memory of a pass over few and over many small images: ``python -m benchmarks.memory``.

Each size runs in a process of its own with models that answer by arithmetic, so what grows is autolabel itself:
listings, indexes, shards, the ledger and the export. Prints JSON with the peaks in MB and their ratio.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def label(images: str, path: str) -> dict[str, float]:
    """Label and export ``images``, and return the peak memory (MB) and the time (s) of this process."""
    import pandas as pd  # noqa: F401 - pyarrow imports it on first use; starting up is not what is measured

    import autolabel
    from autolabel import runner  # noqa: F401 - as above
    from autolabel.export import export_run
    from tests.fakes import BoxSegmenter, ColourClassifier, SquareDetector

    started, cpu = time.perf_counter(), time.process_time()
    run = autolabel.run(
        images,
        prompt="scratch. dent.",
        path=path,
        detector=SquareDetector(),
        segmenter=BoxSegmenter(),
        classifier=ColourClassifier(),
    )
    labelled, label_cpu = time.perf_counter(), time.process_time() - cpu
    export_run(run, "coco", Path(path) / "coco")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "peak_mb": peak,
        "label_s": labelled - started,
        "label_cpu_s": label_cpu,
        "export_s": time.perf_counter() - labelled,
    }


def measure(count: int) -> dict[str, float]:
    """Label ``count`` small pictures in a fresh process."""
    from PIL import Image

    from tests.fakes import picture

    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        for number in range(count):
            squares = (("scratch", number % 50, number // 50 % 30, 12), ("dent", 5, 30, 7))
            Image.fromarray(picture(*squares)).save(images / f"{number:06d}.png")
        command = [sys.executable, "-m", "benchmarks.memory", "--label", str(images), str(Path(folder) / "run")]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        values: dict[str, float] = json.loads(answer.stdout)
        return values


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs=2, default=(1_000, 10_000))
    parser.add_argument("--label", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.label:
        sys.stdout.write(json.dumps(label(*arguments.label)))
        return
    few, many = (measure(size) for size in arguments.sizes)
    result = {
        "sizes": list(arguments.sizes),
        "few": few,
        "many": many,
        "peak_ratio": many["peak_mb"] / few["peak_mb"],
        "label_s_per_image_ratio": many["label_s"] / few["label_s"] * arguments.sizes[0] / arguments.sizes[1],
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
