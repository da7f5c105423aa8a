"""Defects of machined parts: a screw missing from its seat, a burr on an edge. Same contract as ``defects.py``."""

from __future__ import annotations

import cv2
import numpy as np

from training.generator.defects import Mask, Scenery, full_mask, unit_of
from training.generator.fields import Field, log_uniform
from training.generator.surfaces import Canvas


def missing_screw(rng: np.random.Generator, canvas: Canvas, scenery: Scenery) -> Mask | None:
    """Leave a screw's seat empty: a machined ring round a dark threaded bore."""
    height, width = canvas.shape[:2]
    radius = max(4.5, unit_of(canvas) * log_uniform(rng, 0.024, 0.062))
    cx, cy = rng.uniform(0.04, 0.96) * width, rng.uniform(0.04, 0.96) * height
    reach = int(radius * 1.35) + 2
    x0, y0 = max(0, int(cx) - reach), max(0, int(cy) - reach)
    x1, y1 = min(width, int(cx) + reach), min(height, int(cy) + reach)
    if x1 - x0 < 6 or y1 - y0 < 6:
        return None
    xs = (np.arange(x0, x1, dtype=np.float32) + 0.5 - cx)[None, :] / radius
    ys = (np.arange(y0, y1, dtype=np.float32) + 0.5 - cy)[:, None] / radius
    r = np.sqrt(xs**2 + ys**2)
    facing = -(np.cos(scenery.light_rad) * xs + np.sin(scenery.light_rad) * ys)  # of a wall that looks inwards
    patch = canvas[y0:y1, x0:x1]
    seat = np.clip((1 - r) * radius + 0.5, 0, 1)
    bore_at = rng.uniform(0.42, 0.66)
    bore = np.clip((bore_at - r) * radius + 0.5, 0, 1)
    grey = float(patch.mean())
    ring = np.clip(grey * rng.uniform(0.75, 1.25), 0.15, 0.85) * (1 + 0.4 * facing)
    turns = 0.5 + 0.5 * np.sin(r / bore_at * np.pi * rng.uniform(5, 9))
    wall = np.clip(facing / bore_at, 0, 1) * np.clip((r / bore_at - 0.35) / 0.65, 0, 1)
    dark = grey * rng.uniform(0.04, 0.16) + rng.uniform(0.15, 0.4) * grey * wall * turns
    tint = 1 + rng.normal(0, 0.015, 3)
    patch[:] = patch * (1 - seat[..., None]) + (ring * seat)[..., None] * tint
    patch[:] = patch * (1 - bore[..., None]) + (dark * bore)[..., None]
    rim = np.exp(-(((r - 1.0) * radius / 1.2) ** 2)) * rng.uniform(0.15, 0.45)
    patch *= 1 - rim[..., None]
    return full_mask(r < 1, (x0, y0, x1, y1), canvas)


def burr(rng: np.random.Generator, canvas: Canvas, scenery: Scenery) -> Mask | None:
    """Leave ragged metal standing along a short machined edge: bright teeth over a thin dark line."""
    height, width = canvas.shape[:2]
    unit = unit_of(canvas)
    length, tall = unit * log_uniform(rng, 0.1, 0.45), max(2.5, unit * log_uniform(rng, 0.008, 0.028))
    angle = rng.choice([0, 0.5, 1, 1.5]) * np.pi + rng.normal(0, 0.12)
    along, up = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    middle = np.array([rng.uniform(0.12, 0.88) * width, rng.uniform(0.12, 0.88) * height])
    teeth = int(np.clip(length / tall * rng.uniform(1.2, 2.6), 5, 60))
    at = np.sort(np.concatenate([[0, 1], rng.uniform(0, 1, 2 * teeth)]))
    tops = tall * rng.uniform(0.15, 1.0, len(at)) * np.clip(6 * np.minimum(at, 1 - at), 0.1, 1)
    tops[::2] *= rng.uniform(0.3, 0.7)
    base = middle + np.outer((at - 0.5) * length, along)
    points = np.vstack([base + np.outer(tops, up), base[::-1] - up * tall * 0.08])
    x0, y0 = (max(0, int(v)) for v in points.min(axis=0) - tall - 3)
    x1, y1 = (min(limit, int(v) + 1) for v, limit in zip(points.max(axis=0) + tall + 3, (width, height), strict=True))
    if x1 - x0 < 5 or y1 - y0 < 5:
        return None
    teeth_cover = _filled(points, (x0, y0, x1, y1))
    line = np.vstack([base[0] - up * tall * 0.1, base[-1] - up * tall * 0.1])
    foot = _line(line, max(1.0, tall * 0.18), (x0, y0, x1, y1))
    patch = canvas[y0:y1, x0:x1]
    shift = np.array([[1, 0, -np.cos(scenery.light_rad) * tall * 0.3], [0, 1, -np.sin(scenery.light_rad) * tall * 0.3]])
    shade = cv2.warpAffine(teeth_cover, shift.astype(np.float32), (x1 - x0, y1 - y0))
    patch *= 1 - (rng.uniform(0.3, 0.6) * np.clip(shade - teeth_cover, 0, 1))[..., None]
    patch *= 1 - (rng.uniform(0.35, 0.7) * foot)[..., None]
    grey = float(patch.mean())
    bright = np.clip(grey + rng.uniform(0.22, 0.45), 0.45, 0.98) * (1 + rng.normal(0, 0.02, 3))
    sparkle = 1 + rng.uniform(0.05, 0.2) * rng.standard_normal((y1 - y0, x1 - x0, 1), dtype=np.float32)
    cover = (teeth_cover * rng.uniform(0.75, 1.0))[..., None]
    patch[:] = patch * (1 - cover) + bright.astype(np.float32) * sparkle * cover
    return full_mask(teeth_cover >= 0.4, (x0, y0, x1, y1), canvas)


def _filled(points: Field, window: tuple[int, int, int, int], scale: int = 4) -> Field:
    """Anti-aliased polygon ``(N, 2)`` px as coverage 0..1 of a window."""
    x0, y0, x1, y1 = window
    large = np.zeros(((y1 - y0) * scale, (x1 - x0) * scale), np.float32)
    cv2.fillPoly(large, [np.round((points - (x0, y0)) * scale).astype(np.int32)], 1.0)
    return np.asarray(cv2.resize(large, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA), dtype=np.float32)


def _line(points: Field, width_px: float, window: tuple[int, int, int, int], scale: int = 4) -> Field:
    """Anti-aliased straight line as coverage 0..1 of a window."""
    x0, y0, x1, y1 = window
    large = np.zeros(((y1 - y0) * scale, (x1 - x0) * scale), np.float32)
    start, stop = np.round((points - (x0, y0)) * scale).astype(int)
    ends = (int(start[0]), int(start[1])), (int(stop[0]), int(stop[1]))
    cv2.line(large, *ends, 1.0, max(1, round(width_px * scale)))
    return np.asarray(cv2.resize(large, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA), dtype=np.float32)
