"""What the comparisons with models of official size share: their options, and the folder they work in."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import _measure
from benchmarks._full_size import SIZE_WH, make_checkpoints, make_pictures


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of every comparison."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--boxes", type=int, default=10, help="boxes of an image")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--cpu", choices=["eager", "openvino"], default="eager", help="how our side runs on a CPU")
    parser.add_argument("--folder", type=Path, help="keep checkpoints here (1.5 GB) for the next time")
    return parser


def run_and_keep(
    benchmark: str,
    measure: Callable[[Path, argparse.Namespace], Mapping[str, Any]],
    parser: argparse.ArgumentParser,
    given: Sequence[str] | None,
) -> None:
    """Run a comparison as its command line says, and keep its result with what it was measured on."""
    arguments = parser.parse_args(given)
    described = _measure.machine()
    with _prepared(arguments) as folder:
        result = measure(folder, arguments)
    setting = {
        "images": arguments.images,
        "boxes_per_image": arguments.boxes,
        "size_wh": SIZE_WH,
        "device": arguments.device,
    }
    _measure.keep(_named(benchmark, arguments), {**setting, **result}, described)


@contextmanager
def _prepared(arguments: argparse.Namespace) -> Iterator[Path]:
    """Offer a folder with checkpoints and pictures; it is removed afterwards unless ``--folder`` keeps it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        make_checkpoints(folder)
        make_pictures(folder / "images", arguments.images)
        yield folder


def _named(benchmark: str, arguments: argparse.Namespace) -> str:
    """Name a result so that devices, and other ways to run on a CPU, lie side by side."""
    if arguments.device != "cpu":
        return f"{benchmark}-{arguments.device.partition(':')[0]}"
    return benchmark if arguments.cpu == "eager" else f"{benchmark}-{arguments.cpu}"
