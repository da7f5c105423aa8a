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
from xml.etree import ElementTree as Tree

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
        root = Tree.Element("annotation")
        _text(root, "folder", "JPEGImages")
        _text(root, "filename", name)
        _text(Tree.SubElement(root, "source"), "database", "autolabel")
        size = Tree.SubElement(root, "size")
        for tag, value in (("width", item.image.width), ("height", item.image.height), ("depth", 3)):
            _text(size, tag, value)
        _text(root, "segmented", 0)
        for annotation in item.annotations:
            entry = Tree.SubElement(root, "object")
            _text(entry, "name", annotation.label)
            _text(entry, "pose", "Unspecified")
            _text(entry, "truncated", 0)
            _text(entry, "difficult", 0)
            bounds = Tree.SubElement(entry, "bndbox")
            corners = inclusive_corners(annotation.box, (item.image.width, item.image.height))
            for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
                _text(bounds, tag, value)
        Tree.indent(root)
        text = Tree.tostring(root, encoding="unicode")
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


def _text(parent: Tree.Element, tag: str, value: object) -> None:
    Tree.SubElement(parent, tag).text = _NOT_XML.sub("", str(value))
