"""Masks between the server's row-major runs inside a box and whole bitmaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Bitmap = NDArray[np.bool_]


def decoded(points: Sequence[float], width: int, height: int) -> Bitmap:
    """Bitmap ``(height, width)`` of a mask's points: runs that begin with zeros, then left, top, right, bottom."""
    *runs, left, top, right, bottom = (int(value) for value in points)
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(bottom - top + 1, right - left + 1)
    bitmap = np.zeros((height, width), bool)
    bitmap[top : bottom + 1, left : right + 1] = inside
    return bitmap


def encoded(bitmap: Bitmap) -> list[float]:
    """Points of a bitmap that is not empty."""
    ys, xs = np.nonzero(bitmap)
    left, top, right, bottom = xs.min(), ys.min(), xs.max(), ys.max()
    runs = run_lengths(bitmap[top : bottom + 1, left : right + 1].ravel())
    return [float(value) for value in (*runs, left, top, right, bottom)]


def run_lengths(flat: Bitmap) -> list[int]:
    """Lengths of zeros, ones, zeros and so on; the first is 0 when the bitmap begins with a one."""
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    return [0, *runs] if flat[0] else runs
