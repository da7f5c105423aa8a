"""Thin things: paths, and their anti-aliased drawing with a width that varies along the way."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from training.generator.fields import Field

Path = NDArray[np.float32]
"""Points ``(N, 2)``, x and y in px."""


def bent_line(rng: np.random.Generator, start_xy: tuple[float, float], length_px: float, angle_rad: float) -> Path:
    """Draw a slightly curved stroke of about ``length_px`` from a start point, 40 points."""
    direction = np.array([np.cos(angle_rad), np.sin(angle_rad)])
    normal = np.array([-direction[1], direction[0]])
    t = np.linspace(0, 1, 40)[:, None]
    bend = length_px * rng.normal(0, 0.07)
    wobble = length_px * 0.006 * np.cumsum(rng.normal(0, 0.25, (40, 1)), axis=0)
    path = np.array(start_xy) + length_px * t * direction + (4 * bend * t * (1 - t) + wobble) * normal
    return np.asarray(path, dtype=np.float32)


def jagged_line(rng: np.random.Generator, start_xy: tuple[float, float], length_px: float, angle_rad: float) -> Path:
    """Walk a crack's path: short straight pieces whose direction jumps about a slowly drifting heading."""
    steps = int(rng.integers(14, 34))
    drift = np.cumsum(rng.normal(0, 0.10, steps))
    headings = angle_rad + drift + rng.normal(0, rng.uniform(0.35, 0.75), steps)
    lengths = rng.uniform(0.4, 1.6, steps) * length_px / steps
    moves = np.stack([np.cos(headings) * lengths, np.sin(headings) * lengths], axis=1)
    return np.asarray(np.vstack([[0, 0], np.cumsum(moves, axis=0)]) + np.array(start_xy), dtype=np.float32)


def draw(coverage: Field, path: Path, widths_px: NDArray[np.float32], origin_xy: tuple[int, int], scale: int) -> None:
    """Paint a stroke of 1.0 into ``coverage``, a patch enlarged ``scale`` times whose corner is ``origin_xy``."""
    points = (path - np.array(origin_xy, np.float32)) * scale
    fixed = np.round(points * 16).astype(np.int32)
    for index in range(len(points) - 1):
        width = max(1, round(float(widths_px[index]) * scale))
        start = (int(fixed[index, 0]), int(fixed[index, 1]))
        stop = (int(fixed[index + 1, 0]), int(fixed[index + 1, 1]))
        cv2.line(coverage, start, stop, 1.0, width, cv2.LINE_AA, shift=4)


def taper(rng: np.random.Generator, count: int, width_px: float) -> NDArray[np.float32]:
    """Widths ``(count,)`` px along a stroke: thin at both ends, irregular between."""
    t = np.linspace(0, 1, count)
    ends = np.clip(np.minimum(t / rng.uniform(0.05, 0.3), (1 - t) / rng.uniform(0.05, 0.3)), 0.35, 1)
    irregular = np.interp(t, np.linspace(0, 1, 7), rng.uniform(0.65, 1.2, 7))
    return np.asarray(width_px * ends * irregular, dtype=np.float32)


def patch_of(paths: list[Path], margin_px: float, height: int, width: int) -> tuple[int, int, int, int] | None:
    """Window ``(x0, y0, x1, y1)`` px round the paths, cut to the picture; None where too little is inside."""
    points = np.vstack(paths)
    x0, y0 = np.floor(points.min(axis=0) - margin_px).astype(int)
    x1, y1 = np.ceil(points.max(axis=0) + margin_px).astype(int) + 1
    x0, y0, x1, y1 = max(0, int(x0)), max(0, int(y0)), min(width, int(x1)), min(height, int(y1))
    if x1 - x0 < 4 or y1 - y0 < 4:
        return None
    return x0, y0, x1, y1


def supersampling(unit: float) -> int:
    """How many times a patch is enlarged for drawing: small pictures need it for widths near one pixel."""
    return int(np.clip(np.ceil(1200 / unit), 1, 4))
