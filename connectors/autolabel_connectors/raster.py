"""Outlines to pixels: a pixel is inside if its centre is, by the even-odd rule, so that exact outlines are exact."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from autolabel.types import Mask
from autolabel_connectors.rle import from_row_runs

Points = NDArray[np.float64]
GRID = 100
"""Places to a px that coordinates are sent and compared in: 0.01 px."""


def snap(points: Points | Sequence[float]) -> Points:
    """Round px coordinates to 0.01 px, so that what a server's arithmetic adds in the 12th digit is no edit."""
    return np.round(np.asarray(points, np.float64) * GRID) / GRID


def rasterise(rings: Iterable[Points], size_wh: tuple[int, int]) -> Mask:
    """Fill closed rings ``(N, 2)`` px in an image of ``size_wh`` px; what lies outside the image is cut off."""
    width, height = size_wh
    closed = [np.asarray(ring, np.float64) for ring in rings if len(ring) >= 3]
    if not closed:
        return from_row_runs(np.zeros(0, np.int64), np.zeros(0, np.int64), size_wh)
    a = np.concatenate(closed)
    b = np.concatenate([part for ring in closed for part in (ring[1:], ring[:1])])
    # Edges run downwards, so that the two directions of a bridge between rings cross a line at the very same place.
    down = (a[:, 1] < b[:, 1])[:, None]
    upper, lower = np.where(down, a, b), np.where(down, b, a)
    first = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(np.int64)
    count = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(np.int64) - first
    edge = np.repeat(np.arange(len(a)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    (x0, y0), (x1, y1) = upper[edge].T, lower[edge].T
    x = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    order = np.lexsort((column, row))
    flat = row[order] * width + column[order]
    return from_row_runs(flat[0::2], flat[1::2], size_wh)


def turned(points: Points, degrees: float, centre_xy: tuple[float, float]) -> Points:
    """Turn points clockwise on the screen (y down) around a centre, all in px."""
    angle = np.deg2rad(degrees)
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    x, y = (np.asarray(points, np.float64) - np.array(centre_xy)).T
    return np.stack([centre_xy[0] + x * cos - y * sin, centre_xy[1] + x * sin + y * cos], axis=1)


def rectangle_ring(x_min: float, y_min: float, x_max: float, y_max: float) -> Points:
    """Corners ``(4, 2)`` px of a rectangle."""
    return np.array([[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max]], np.float64)


def ellipse_ring(centre_xy: tuple[float, float], radii_xy: tuple[float, float], degrees: float = 0.0) -> Points:
    """Outline ``(N, 2)`` px of an ellipse, with so many vertices that it is nowhere off by more than 0.05 px."""
    count = int(np.clip(np.pi * np.sqrt(max(abs(radii_xy[0]), abs(radii_xy[1]), 1.0) / 0.1), 16, 1000)) // 4 * 4
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    ring = np.stack([centre_xy[0] + radii_xy[0] * np.cos(angle), centre_xy[1] + radii_xy[1] * np.sin(angle)], axis=1)
    return turned(ring, degrees, centre_xy)
