"""How much masks lose where they are shown as polygons; a push says so."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from autolabel.wording import counted
from autolabel_connectors.shapes import Drawing


@dataclass(slots=True)
class Losses:
    """IoU of each region's polygons with its mask, by image: an image that is composed twice counts once."""

    ious: dict[str, list[float]] = field(default_factory=dict)

    def take(self, path: str, drawings: Iterable[Drawing]) -> None:
        """Take in how one image's regions are drawn."""
        found = [drawing.iou for drawing in drawings if drawing.kind == "polygon"]
        if found:
            self.ious[path] = found

    def said(self) -> str:
        """Say it in one sentence; empty where nothing is drawn as polygons."""
        ious = [iou for found in self.ious.values() for iou in found]
        if not ious:
            return ""
        worst, path = min((min(found), path) for path, found in self.ious.items())
        return (
            f"{counted(len(ious), 'regions')} shown as polygons: IoU with their masks {statistics.median(ious):.3f} in "
            f"the median, {worst:.3f} at worst ({path})"
        )
