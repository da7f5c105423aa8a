"""How often the flags on a run's own labels are right: ``python -m benchmarks.noise_flags FOLDER``.

``FOLDER`` holds ``run`` and ``coco.json`` with exact labels, as `noise_pictures` writes them. Random parts of the run,
20 to 200 pictures, are judged, with and without its second look (``autolabel noise FOLDER/run`` takes it). A flag is
right where no exact box overlaps the label's by 0.5 (for ``label`` and ``swap``: none of its class), an overlooked box
where it overlaps (0.3) an exact box that no label overlaps by 0.5.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from autolabel.dataset import Run
from autolabel.geometry import box_iou
from autolabel.issues import read_issues
from autolabel.quality import NoiseOptions, find_noise
from autolabel.quality.coco_files import read_labels
from autolabel.quality.from_run import pictures_of
from autolabel.quality.material import Evidence

SIZES = {20: 10, 50: 8, 100: 4, 200: 2}
KINDS = ("label", "swap", "location", "spurious", "overlooked")


class Part:
    """A run of which some pictures alone are seen."""

    def __init__(self, run: Run, paths: set[str]) -> None:
        self._run, self._paths = run, paths

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def __iter__(self) -> Iterator[Any]:
        return (item for item in self._run if item.image.path in self._paths)

    def images(self) -> Iterator[Any]:
        """Images of the part."""
        return (image for image in self._run.images() if image.path in self._paths)

    def proposals(self) -> Iterator[Any]:
        """Proposals of the part."""
        return (one for one in self._run.proposals() if one.image.path in self._paths)


def judged(part: Any, truth: dict[str, tuple[Any, Any]]) -> dict[str, tuple[int, int, int, int]]:
    """Count flags, right ones, errors, and errors that were found, by kind; ``any`` is a flag of a label."""
    with tempfile.TemporaryDirectory() as out:
        find_noise(part, out=Path(out), options=NoiseOptions(images=False, masks=False))
        issues = read_issues(Path(out), flagged_only=True)
    off: dict[str, bool] = {}
    misnamed: dict[str, bool] = {}
    missed: dict[str, Any] = {}
    for item in part:
        boxes, labels = truth[item.image.path]
        mine = np.array([a.box.xyxy for a in item.annotations], np.float32).reshape(-1, 4)
        iou = box_iou(mine, boxes)
        missed[item.image.path] = boxes[iou.max(0, initial=0) < 0.5]
        for row, one in enumerate(item.annotations):
            off[one.id] = bool(iou[row].max(initial=0) < 0.5)
            misnamed[one.id] = bool(iou[row][labels == one.label_id].max(initial=0) < 0.5)
    found = {kind: {i.annotation_id for i in issues if i.kind == kind and i.annotation_id in off} for kind in KINDS}
    rows: dict[str, tuple[int, int, int, int]] = {}
    for kind in KINDS[:-1]:
        wrong = misnamed if kind in ("label", "swap") else off
        right = sum(wrong[key] for key in found[kind])  # type: ignore[index]
        rows[kind] = len(found[kind]), right, sum(wrong.values()), right
    anything = set().union(*found.values())
    right = sum(misnamed[key] for key in anything)  # type: ignore[index]
    rows["any"] = len(anything), right, sum(misnamed.values()), right
    doubts = [i for i in issues if i.kind == "overlooked" and i.box is not None]
    hits = [box_iou(np.array([i.box.xyxy], np.float32), missed[i.path])[0] >= 0.3 for i in doubts if i.box]
    seen = {(i.path, int(place)) for i, hit in zip(doubts, hits, strict=True) for place in np.flatnonzero(hit)}
    rows["overlooked"] = len(doubts), sum(bool(h.any()) for h in hits), sum(map(len, missed.values())), len(seen)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    run = Run.open(folder / "run")
    pictures = pictures_of(run)
    labels = read_labels(folder / "coco.json", pictures, run.labels).labels
    truth = {
        path: (labels.boxes_xyxy[labels.image == place], labels.label[labels.image == place])
        for place, path in enumerate(pictures.paths)
    }
    sizes = {size: repeats for size, repeats in SIZES.items() if size < len(pictures)} | {len(pictures): 1}
    sys.stdout.write("| second look | pictures | kind | flags | right | found |\n|---|---|---|---|---|---|\n")
    nothing = mock.patch("autolabel.quality.noise.read_second_look", return_value=Evidence.empty())
    for second in (False, True):
        for size, repeats in sizes.items():
            total: dict[str, Any] = {}
            for number in range(repeats):
                part = Part(run, set(random.Random(1000 * size + number).sample(pictures.paths, size)))
                if second:
                    rows = judged(part, truth)
                else:
                    with nothing:
                        rows = judged(part, truth)
                for kind, row in rows.items():
                    total[kind] = np.add(total.get(kind, 0), row)
            for kind, (flags, right, errors, found) in total.items():
                share = f"{right / flags:.2f}" if flags else ""
                name = "yes" if second else "no"
                sys.stdout.write(f"| {name} | {size} | {kind} | {flags} | {share} | {found / max(errors, 1):.2f} |\n")


if __name__ == "__main__":
    main()
