"""Where the time of an image goes: ``python -m benchmarks.stages``.

Each step is measured by itself, one after the other: decoding, preprocessing, the forward passes of the three networks
(replayed from a recorded pass), encoding masks, and writing a shard. In a pass the steps around the forward passes
overlap with them; the share says what each would take if nothing did.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _measure
from benchmarks._comparison import options, run_and_keep
from benchmarks._full_size import SIZE_WH
from benchmarks._worker import Ours


def steps(folder: Path, ours: Ours, boxes: int) -> dict[str, Callable[[], object]]:
    """Name the steps over all pictures."""
    import torch

    from autolabel.images import decode
    from autolabel.models.crops import crop
    from autolabel.models.masks import encode_masks

    files = sorted(ours.images.iterdir())
    pictures = [decode(file.read_bytes(), file.name) for file in files]
    models = ours.models
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 500, (boxes, 2))
    places = np.concatenate([corners, corners + rng.uniform(40, 250, (boxes, 2))], axis=1).astype(np.float32)
    y, x = np.mgrid[0:256, 0:256]
    blob = torch.from_numpy(20.0 - np.hypot(x - 100, y - 120) * 0.4).float()[None].repeat(boxes, 1, 1)
    style = models["classifier"]._options.style
    replays = {f"forward: {name}": _replay(ours, calls) for name, calls in ours.calls.items()}
    return {
        "decode": lambda: [decode(file.read_bytes(), file.name) for file in files],
        "preprocess: detect": lambda: [models["detector"].pixel_values(picture) for picture in pictures],
        "preprocess: segment": lambda: [models["segmenter"].pixel_values(picture) for picture in pictures],
        "preprocess: crops": lambda: [crop(picture, box, style, None) for picture in pictures for box in places],
        **replays,
        "encode masks": lambda: [
            encode_masks(blob, (picture.shape[0], picture.shape[1]), None) for picture in pictures
        ],
        "write": _writing(folder, len(files), boxes),
    }


def _replay(ours: Ours, calls: list[Any]) -> Callable[[], object]:
    return lambda: ours._replay(calls)


def _writing(folder: Path, images: int, boxes: int) -> Callable[[], object]:
    """Commit a shard of as many images."""
    from autolabel import shards
    from autolabel.shards import Classified, Detected, ImageRow, Segmented, StageNotes
    from autolabel.store import RunFolder
    from autolabel.types import Mask

    rng = np.random.default_rng(0)
    count = images * boxes
    mask = np.zeros(SIZE_WH[::-1], np.bool_)
    mask[100:300, 200:500] = True
    rows = [ImageRow(f"{n}.jpg", f"{n}.jpg", str(n), f"{n:064x}", *SIZE_WH) for n in range(images)]
    places = np.repeat(np.arange(images), boxes).astype(np.int32)
    detected = Detected(places, rng.random((count, 4), np.float32), rng.random((count, 6), np.float32))
    segmented = Segmented((Mask.encode(mask),) * count, rng.random(count, np.float32))
    classified = Classified(rng.random((count, 6), np.float32), rng.random((count, 512), np.float32))

    def write() -> None:
        with RunFolder(Path(tempfile.mkdtemp(dir=folder))) as run:
            files = {
                "detect-k": (shards.detect_table(detected), StageNotes()),
                "segment-k": (shards.segment_table(segmented), StageNotes()),
                "classify-k": (shards.classify_table(classified, count), StageNotes()),
            }
            run.add_shard(rows, StageNotes(), files)

    return write


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Time every step in turn with the others."""
    with tempfile.TemporaryDirectory() as temporary:
        ours = Ours(folder, arguments.device, arguments.boxes, arguments.cpu)
        ours.record(best=False)  # as the pipeline batches them
        timed = {name: _measure.timed(step) for name, step in steps(Path(temporary), ours, arguments.boxes).items()}
        seconds = _measure.rounds(timed, arguments.rounds)
    middle = {name: _measure.median(values) / arguments.images for name, values in seconds.items()}
    total = sum(middle.values())
    forward = sum(value for name, value in middle.items() if name.startswith("forward"))
    return {
        "stages": {
            name: {"ms_per_image": 1000 * value, "images_per_s": 1 / value, "share": value / total}
            for name, value in middle.items()
        },
        "forward_share": forward / total,
    }


def main(given: Sequence[str] | None = None) -> None:
    """Command line."""
    run_and_keep("stages", measure, options(__doc__), given)


if __name__ == "__main__":
    main()
