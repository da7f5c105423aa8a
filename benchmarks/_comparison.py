"""What the comparisons with models of official size share: their options, and the folder they work in."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks._full_size import make_checkpoints, make_pictures


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every comparison."""
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--boxes", type=int, default=10, help="boxes of an image")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--cpu", choices=["eager", "openvino"], default="eager", help="how our side runs on a CPU")
    parser.add_argument("--folder", type=Path, help="keep checkpoints here (1.5 GB) for the next time")


@contextmanager
def prepared(arguments: argparse.Namespace) -> Iterator[Path]:
    """Offer a folder with checkpoints and pictures; it is removed afterwards unless ``--folder`` keeps it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        make_checkpoints(folder)
        make_pictures(folder / "images", arguments.images)
        yield folder


def named(benchmark: str, arguments: argparse.Namespace) -> str:
    """Name a result so that devices, and other ways to run on a CPU, lie side by side."""
    if arguments.device != "cpu":
        return f"{benchmark}-{arguments.device.partition(':')[0]}"
    return benchmark if arguments.cpu == "eager" else f"{benchmark}-{arguments.cpu}"
