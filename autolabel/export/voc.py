"""Pascal VOC: one XML file an image, and lists of image stems for the splits.

Coordinates follow the VOC devkit: whole pixels counted from 1, both corners included. A half-open box from 10.0 to 20.0
covers the pixels 10…19 from 0, so it is written as 11 and 20; a reader subtracts 1 from the minima only. Declared
losses: up to half a px a side, masks, scores, opinions and origins.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from xml.sax.saxutils import escape

from autolabel.types import AnnotatedImage, Box

_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class VocWriter:
    """Writes ``Annotations/*.xml``, ``ImageSets/Main/<split>.txt`` and ``sources.csv``."""

    def __init__(self, folder: Path, splits: Iterable[str]) -> None:
        self._folder = folder
        (folder / "Annotations").mkdir()
        lists = folder / "ImageSets" / "Main"
        lists.mkdir(parents=True)
        self._open = ExitStack()
        self._lists = {
            split: self._open.enter_context((lists / f"{split}.txt").open("w", encoding="utf-8", newline="\n"))
            for split in splits
        }
        sources = self._open.enter_context(
            (folder / "sources.csv").open("w", encoding="utf-8", errors="backslashreplace", newline="")
        )
        self._rows = csv.writer(sources, lineterminator="\n")
        self._rows.writerow(("split", "name", "source", "sha256"))

    def add(self, item: AnnotatedImage, split: str, name: str) -> None:
        """Write one image's XML and put its stem on the list of ``split``."""
        size_wh = item.image.width, item.image.height
        lines = [
            "<annotation>",
            _element(1, "folder", "JPEGImages"),
            _element(1, "filename", name),
            "  <source>",
            _element(2, "database", "autolabel"),
            "  </source>",
            "  <size>",
            *(_element(2, tag, value) for tag, value in zip(("width", "height", "depth"), (*size_wh, 3), strict=True)),
            "  </size>",
            _element(1, "segmented", 0),
        ]
        for annotation in item.annotations:
            corners = inclusive_corners(annotation.box, size_wh)
            bounds = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
            lines += [
                "  <object>",
                _element(2, "name", annotation.label),
                _element(2, "pose", "Unspecified"),
                _element(2, "truncated", 0),
                _element(2, "difficult", 0),
                "    <bndbox>",
                *(_element(3, tag, value) for tag, value in bounds),
                "    </bndbox>",
                "  </object>",
            ]
        text = "\n".join([*lines, "</annotation>"])
        target = self._folder / "Annotations" / f"{Path(name).stem}.xml"
        target.write_text(text + "\n", encoding="utf-8", newline="\n")
        self._lists[split].write(f"{Path(name).stem}\n")
        self._rows.writerow((split, name, item.image.path, item.image.id))

    def close(self) -> None:
        """Close the lists."""
        self._open.close()


def inclusive_corners(box: Box, size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return ``xmin, ymin, xmax, ymax`` counted from 1 with both ends included; at least one pixel, in the image."""
    x_min, x_max = _inclusive(box.x_min, box.x_max, size_wh[0])
    y_min, y_max = _inclusive(box.y_min, box.y_max, size_wh[1])
    return x_min, y_min, x_max, y_max


def _inclusive(low: float, high: float, size: int) -> tuple[int, int]:
    first = min(max(int(low + 0.5), 0), size - 1)
    return first + 1, min(max(int(high + 0.5), first + 1), size)


def _element(depth: int, tag: str, value: object) -> str:
    """Write one element on a line of its own, without what XML cannot hold."""
    text = escape(_NOT_XML.sub("", str(value)))
    return f"{'  ' * depth}<{tag}>{text}</{tag}>" if text else f"{'  ' * depth}<{tag} />"
