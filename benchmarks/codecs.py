"""Our mask codecs beside those of the tools' own packages: ``python -m benchmarks.codecs``.

Each row is one size and kind of mask. Encoders start from what they take: ours from COCO runs as a run
stores them, the others from pixels that are at hand (not counted). Decoders end with COCO runs. They take turns in one
process and are checked to give the same answer. Prints JSON: milliseconds (the median) and how many times faster ours
is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from autolabel.types import Mask
from autolabel_connectors.cvat.geometry import decode_mask, encode_mask
from autolabel_connectors.label_studio.brush import decode_brush, encode_brush

SIZES = {"480p": (480, 640), "1080p": (1080, 1920), "12 MP": (3000, 4000)}


def masks(height: int, width: int) -> dict[str, NDArray[np.bool_]]:
    """Return a disc, many scratches, and a small spot, in an image of this size."""
    y, x = np.mgrid[0:height, 0:width]
    disc = np.hypot(x - width / 2, y - height / 2) < height * 0.3
    scratches = (np.abs((x * 0.6 + y * 1.3) % 90 - 45) < 2) & disc
    spot = np.hypot(x - width * 0.7, y - height * 0.2) < height * 0.02
    return {"disc": disc, "scratches": scratches, "spot": spot}


def race(runners: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Time each runner in turn, ``rounds`` times, and return the medians in ms."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, runner in runners.items():
            started = time.perf_counter()
            runner()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) * 1000 for name, values in times.items()}


def measure(mask: NDArray[np.bool_], rounds: int) -> dict[str, dict[str, float]]:
    """Race the codecs of both tools on one mask."""
    from cvat_sdk import masks as cvat
    from label_studio_sdk.converter import brush

    height, width = mask.shape
    coded, grey = Mask.encode(mask), mask.astype(np.uint8) * 255
    code, points = encode_brush(coded), encode_mask(coded)
    if code != brush.mask2rle(grey) or points != cvat.encode_mask(mask):
        raise SystemExit("the codecs disagree")
    rows = {
        "brush encode": (lambda: encode_brush(coded), lambda: brush.mask2rle(grey)),
        "brush decode": (
            lambda: decode_brush(code, height, width),
            lambda: Mask.encode(brush.decode_rle(code).reshape(height, width, 4)[..., 3] > 127),
        ),
        "cvat encode": (lambda: encode_mask(coded), lambda: cvat.encode_mask(mask)),
        "cvat decode": (
            lambda: decode_mask(points, (width, height)),
            lambda: Mask.encode(cvat.decode_mask(points, image_width=width, image_height=height)),
        ),
    }
    results = {}
    for name, (ours, theirs) in rows.items():
        times = race({"ours_ms": ours, "theirs_ms": theirs}, rounds)
        times["times_faster"] = times["theirs_ms"] / times["ours_ms"]
        results[name] = {key: round(value, 3) for key, value in times.items()}
    return results


def main() -> None:
    """Measure all sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    for size, shape in SIZES.items():
        for kind, mask in masks(*shape).items():
            print(json.dumps({"size": size, "mask": kind, **measure(mask, rounds)}))


if __name__ == "__main__":
    main()
