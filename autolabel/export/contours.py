"""Outlines of masks along pixel edges: exact rings, simplified rings, and one ring out of many.

Vertices lie on pixel corners in px, so that a mask of the pixels 10…19 runs from 10 to 20 and agrees with half-open
boxes; contours through pixel centres, as image libraries return them, lose a pixel to the right and at the bottom.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from autolabel.runlengths import crop_of, runs_of
from autolabel.types import Mask

Points = NDArray[np.float64]
_MAX_ENDS = 1000


@dataclass(frozen=True, slots=True)
class Ring:
    """A closed outline, ``(N, 2)`` px without the first point repeated; ``hole`` says that it bounds a hole."""

    points: Points
    hole: bool

    @property
    def area(self) -> float:
        """Enclosed area in px²."""
        if not len(self.points):
            return 0.0
        x, y = self.points.T
        around = np.dot(x[:-1], y[1:]) - np.dot(y[:-1], x[1:]) + x[-1] * y[0] - y[-1] * x[0]
        return float(abs(around) / 2)


def mask_rings(mask: Mask) -> list[Ring]:
    """Trace every part and every hole of a mask exactly, largest area first; an empty mask has no rings."""
    return _largest_first([ring for part in mask_parts(mask) for ring in part])


def mask_parts(mask: Mask) -> list[list[Ring]]:
    """Trace a mask part by part: each is its outline followed by its holes; the largest part comes first.

    Pixels that touch at a corner belong to one part.
    """
    from pycocotools import mask as coco_mask

    x, y, w, h = (int(v) for v in coco_mask.toBbox(mask.to_coco()))
    if w == 0 or h == 0:
        return []
    return crop_parts(crop_of(mask, runs_of(mask), (x, y, x + w, y + h)), x, y)


def crop_parts(crop: NDArray[Any], x: int, y: int) -> list[list[Ring]]:
    """Trace the parts of a mask as `mask_parts` does, given its pixels ``(h, w)`` from ``x, y`` px on, 0 or 1."""
    h, w = crop.shape
    # Doubled, every pixel has an even and an odd half: a contour on a left or upper half is even and on a right or
    # lower half odd, so that (v + 1) // 2 turns pixel indices into the edges they lie on, for parts and holes alike.
    doubled = np.zeros((2 * h + 4, 2 * w + 4), np.uint8)
    doubled[2:-2:2, 2:-2:2] = doubled[3:-2:2, 2:-2:2] = doubled[2:-2:2, 3:-2:2] = doubled[3:-2:2, 3:-2:2] = crop
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts: dict[int, list[Ring]] = {place: [] for place, link in enumerate(hierarchy[0]) if link[3] < 0}
    for place, (contour, (_, _, _, parent)) in enumerate(zip(contours, hierarchy[0], strict=True)):
        points = (contour[:, 0, :].astype(np.int64) - 2 + 1) // 2 + np.array([x, y])
        corners = _corners(points)
        if len(corners) >= 4:
            ring = Ring(corners.astype(np.float64), hole=bool(parent >= 0))
            parts[int(parent) if ring.hole else place].append(ring)
    ordered = [
        [*(ring for ring in part if not ring.hole), *_largest_first([ring for ring in part if ring.hole])]
        for part in parts.values()
    ]
    return sorted(ordered, key=lambda part: _by_area(part[0])) if len(ordered) > 1 else ordered


def simplify(ring: Ring, tolerance_px: float, max_area_change: float = 0.05) -> Ring:
    """Drop vertices within ``tolerance_px`` of the outline; keep a ring whose area would change by more than a share.

    The guard is for thin structures: a scratch two pixels wide may not lose one of them to a tolerance.
    """
    if tolerance_px <= 0 or len(ring.points) <= 4:
        return ring
    points = cv2.approxPolyDP(ring.points.astype(np.float32)[:, None, :], tolerance_px, closed=True)[:, 0, :]
    if len(points) < 3:
        return ring
    simpler = Ring(points.astype(np.float64), ring.hole)
    return simpler if abs(simpler.area - ring.area) <= max_area_change * ring.area else ring


def join(rings: list[Ring]) -> Points:
    """Join parts and holes into one ring ``(N, 2)`` by zero-width bridges between nearest vertices.

    A format with one polygon to an annotation keeps the area this way; filled by the even-odd rule, parts stay parts
    and holes stay holes.
    """
    if not rings:
        return np.zeros((0, 2))
    joined = rings[0].points
    for ring in rings[1:]:
        # Any two vertices make a valid bridge; of long outlines every n-th is looked at, to bound the table of gaps.
        every, each = len(joined) // _MAX_ENDS + 1, len(ring.points) // _MAX_ENDS + 1
        gaps = ((joined[::every, None, :] - ring.points[None, ::each, :]) ** 2).sum(axis=2)
        row, column = np.unravel_index(int(gaps.argmin()), gaps.shape)
        here, there = int(row) * every, int(column) * each
        loop = np.concatenate([ring.points[there:], ring.points[: there + 1]])
        joined = np.concatenate([joined[: here + 1], loop, joined[here:]])
    return joined


def svg_path(rings: list[Ring], scale: float = 1.0) -> str:
    """Write rings as the ``d`` of an SVG path in px times ``scale``, to be filled by the even-odd rule."""
    parts = []
    for ring in rings:
        points = np.round(ring.points * scale, 1)
        steps = [f"M{_number(points[0, 0])} {_number(points[0, 1])}"]
        steps += [
            f"l{_number(x1 - x0)} {_number(y1 - y0)}"
            for (x0, y0), (x1, y1) in pairwise(points.tolist())
            if (x0, y0) != (x1, y1)
        ]
        parts.append("".join(steps) + "z")
    return "".join(parts)


def _largest_first(rings: list[Ring]) -> list[Ring]:
    # Most masks are one ring, and to work out its area for nothing takes as long as to trace it.
    return sorted(rings, key=_by_area) if len(rings) > 1 else rings


def _by_area(ring: Ring) -> tuple[float, float, float]:
    """Order rings by area, the largest first, and by place where areas are equal."""
    return (-ring.area, float(ring.points[:, 1].min()), float(ring.points[:, 0].min()))


def _corners(points: NDArray[np.int64]) -> NDArray[np.int64]:
    """Remove repeated points and points on a straight line."""
    points = points[(points != points[_earlier(len(points))]).any(axis=1)]
    before = points - points[_earlier(len(points))]
    after = np.concatenate([before[1:], before[:1]])
    bends: NDArray[np.bool_] = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return points[bends]


def _earlier(count: int) -> NDArray[np.int64]:
    """Return the place before each of ``count`` places on a ring."""
    return np.arange(-1, count - 1)


def _number(value: float) -> str:
    """Write a coordinate with at most one decimal."""
    return f"{round(value, 1) + 0.0:g}"
