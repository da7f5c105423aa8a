"""Time and memory as a pass grows: ``python -m benchmarks.growth --images 100 1000 10000 --boxes 1 10 100 300``.

Models that answer by arithmetic, so what is seen to grow is the pipeline itself. Each size runs in a process of its
own. Seconds of the processor stand beside those of the clock, as they hang less on what else runs. Linear time is a
ratio near 1 of what a further image takes among many and among few, flat memory a ratio near 1 of the peaks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _measure, memory

_BOX_IMAGES = 64
_SIDE = 640


class ManyBoxes:
    """Answers with as many boxes as it was told, anywhere."""

    def __init__(self, count: int) -> None:
        self.count = count

    def predict_batch(self, images: Sequence[Any], phrases: Sequence[str], min_score: float) -> list[Any]:
        """Return boxes of 8 to 60 px."""
        from autolabel.types import Detections

        rng = np.random.default_rng(self.count)
        corners = rng.uniform(0, _SIDE - 60, (self.count, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(8, 60, (self.count, 2))], axis=1).astype(np.float32)
        scores = rng.uniform(0.4, 0.9, (self.count, len(phrases))).astype(np.float32)
        return [Detections(boxes, scores) for _ in images]


def label_boxes(images: str, path: str, boxes: int) -> dict[str, float]:
    """Label pictures with ``boxes`` boxes each; seconds of the pass and the peak of this process."""
    import pandas as pd  # noqa: F401 - pyarrow imports it on first use; starting up is not what is measured

    import autolabel
    from autolabel import runner  # noqa: F401 - as above
    from tests.fakes import BoxSegmenter, ColourClassifier

    models = {"detector": ManyBoxes(boxes), "segmenter": BoxSegmenter(), "classifier": ColourClassifier()}
    limits = {"proposals": {"limit": boxes, "iou": 1.0}, "thresholds": {"nms_iou": 1.0, "cross_class_iou": 1.0}}
    started, cpu = time.perf_counter(), time.process_time()
    run = autolabel.run(images, prompt="scratch. dent.", path=path, tiles={"mode": "off"}, **limits, **models)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    if run.manifest.counts["annotations"] != boxes * _BOX_IMAGES:
        raise SystemExit(f"expected {boxes * _BOX_IMAGES} annotations, got {run.manifest.counts['annotations']}")
    return {"seconds": seconds, "cpu_s": cpu, "peak_mb": _measure.peak_mb()}


def measure_boxes(boxes: int) -> dict[str, float]:
    """Run `label_boxes` in a process of its own."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        for number in range(_BOX_IMAGES):
            Image.new("RGB", (_SIDE, _SIDE), (number, 200, 200)).save(images / f"{number:03d}.png")
        command = [sys.executable, "-m", "benchmarks.growth", "--label", str(images), f"{folder}/run", str(boxes)]
        values: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return values


def marginal(seconds: dict[int, float]) -> list[float]:
    """Return what each further image takes from one size to the next, ms; what a pass takes once is not in it."""
    sizes = list(seconds)
    return [1000 * (seconds[b] - seconds[a]) / (b - a) for a, b in pairwise(sizes)]


def main(given: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--boxes", type=int, nargs="+", default=[1, 10, 100, 300])
    parser.add_argument("--label", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.label:
        images, path, boxes = arguments.label
        sys.stdout.write(json.dumps(label_boxes(images, path, int(boxes))))
        return
    described = _measure.machine()
    by_images = {count: memory.measure(count) for count in sorted(arguments.images)}
    by_boxes = {count: measure_boxes(count) for count in sorted(arguments.boxes)}
    few, *_, many = by_images.values()
    more = marginal({count: values["label_cpu_s"] for count, values in by_images.items()})
    result = {
        "images": by_images,
        "cpu_ms_per_further_image": more,
        "time_of_an_image_ratio": more[-1] / more[0],
        "peak_ratio": many["peak_mb"] / few["peak_mb"],
        "boxes": {
            count: {
                **values,
                "ms_per_image": 1000 * values["seconds"] / _BOX_IMAGES,
                "cpu_ms_per_image": 1000 * values["cpu_s"] / _BOX_IMAGES,
                "cpu_ms_per_box": 1000 * values["cpu_s"] / _BOX_IMAGES / count,
            }
            for count, values in by_boxes.items()
        },
        "images_at_each_number_of_boxes": _BOX_IMAGES,
    }
    _measure.keep("growth", result, described)


if __name__ == "__main__":
    main()
