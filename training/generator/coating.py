"""Defects of coatings: chips that broke off and blisters that rose. Same contract as ``defects.py``."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from training.generator.defects import Mask, Scenery, ellipse, full_mask, unit_of
from training.generator.fields import Field, fractal, log_uniform
from training.generator.surfaces import Canvas


def chip(rng: np.random.Generator, canvas: Canvas, scenery: Scenery) -> Mask | None:
    """Break a flake off: a hard angular outline, the layer below in another tone, a lit and a shaded edge."""
    height, width = canvas.shape[:2]
    radius = unit_of(canvas) * log_uniform(rng, 0.04, 0.2) / 2
    if radius < 2.5:
        return None
    cx, cy = rng.uniform(0.04, 0.96) * width, rng.uniform(0.04, 0.96) * height
    corners = int(rng.integers(5, 12))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners)) + rng.normal(0, 0.05, corners)
    reach = radius * rng.uniform(0.5, 1.15, corners)
    flat = rng.uniform(0.45, 1.0)
    turn = rng.uniform(0, np.pi)
    along, across = np.cos(angles) * reach, np.sin(angles) * reach * flat
    points = np.stack(
        [cx + along * np.cos(turn) - across * np.sin(turn), cy + along * np.sin(turn) + across * np.cos(turn)], axis=1
    )
    margin = 3 + 0.25 * radius
    x0, y0 = (max(0, int(v)) for v in points.min(axis=0) - margin)
    x1, y1 = (min(limit, int(v) + 1) for v, limit in zip(points.max(axis=0) + margin, (width, height), strict=True))
    if x1 - x0 < 5 or y1 - y0 < 5:
        return None
    scale = 4
    large = np.zeros(((y1 - y0) * scale, (x1 - x0) * scale), np.float32)
    cv2.fillPoly(large, [np.round((points - (x0, y0)) * scale).astype(np.int32)], 1.0)
    inside: Field = cv2.resize(large, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    patch = canvas[y0:y1, x0:x1]
    outer = patch[inside < 0.5]
    mean = outer.mean(axis=0) if len(outer) else patch.reshape(-1, 3).mean(axis=0)
    below = _layer_below(rng, mean)
    tone = 1 + rng.uniform(0.02, 0.08) * fractal(rng, y1 - y0, x1 - x0, max(2.0, radius * 0.5), 3)
    soft = cv2.GaussianBlur(inside, (0, 0), max(0.7, 0.06 * radius))
    gx, gy = cv2.Sobel(soft, cv2.CV_32F, 1, 0, ksize=3), cv2.Sobel(soft, cv2.CV_32F, 0, 1, ksize=3)
    slope = np.cos(scenery.light_rad) * gx + np.sin(scenery.light_rad) * gy
    slope = slope / (np.abs(slope).max() + 1e-6)
    cover = inside[..., None]
    patch[:] = patch * (1 - cover) + below * tone[..., None] * cover
    patch *= 1 + (rng.uniform(0.2, 0.5) * slope)[..., None]
    return full_mask(inside >= 0.5, (x0, y0, x1, y1), canvas)


def _layer_below(rng: np.random.Generator, mean: Canvas) -> Canvas:
    """Colour under a coating: primer, bare metal or the same stuff fresh, clearly lighter or darker."""
    grey = float(mean.mean())
    lighter = rng.random() < (0.8 if grey < 0.4 else 0.2 if grey > 0.72 else 0.5)
    level = grey + rng.uniform(0.18, 0.4) if lighter else grey * rng.uniform(0.35, 0.68)
    tint = mean / max(grey, 1e-3) if rng.random() < 0.4 else 1 + rng.normal(0, 0.03, 3)
    return np.asarray(np.clip(level * tint, 0.03, 0.97), dtype=np.float32)


def blister(rng: np.random.Generator, canvas: Canvas, scenery: Scenery) -> Mask | None:
    """Raise a dome, or a small cluster of them: bright on the lamp's side, with a highlight and a shadow beyond."""
    height, width = canvas.shape[:2]
    many = rng.random() < 0.35
    diameter = unit_of(canvas) * log_uniform(rng, 0.028, 0.07 if many else 0.15)
    first = ellipse(rng, canvas, diameter, 0.75, 0.02)
    if first is None:
        return None
    whole = np.zeros((height, width), bool)
    strength = rng.uniform(0.3, 0.6)
    x0, y0, x1, y1 = first[3]
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    whole |= _dome(canvas, scenery, diameter / 2, centre, strength)
    for _ in range(int(rng.integers(1, 6)) if many else 0):
        offset = rng.normal(0, 0.9, 2) * diameter
        place = centre + offset
        if 0 <= place[0] < width and 0 <= place[1] < height:
            whole |= _dome(canvas, scenery, diameter / 2 * rng.uniform(0.5, 1.0), place, strength)
    return whole if whole.any() else None


def _dome(canvas: Canvas, scenery: Scenery, radius: float, centre: NDArray[np.float64], strength: float) -> Mask:
    """Paint one dome of ``radius`` px at ``centre`` (x, y px) and return its mask."""
    height, width = canvas.shape[:2]
    reach = 1.5 * radius + 3
    x0, y0 = max(0, int(centre[0] - reach)), max(0, int(centre[1] - reach))
    x1, y1 = min(width, int(centre[0] + reach) + 1), min(height, int(centre[1] + reach) + 1)
    xs = (np.arange(x0, x1, dtype=np.float32) + 0.5 - float(centre[0]))[None, :] / radius
    ys = (np.arange(y0, y1, dtype=np.float32) + 0.5 - float(centre[1]))[:, None] / radius
    r = np.sqrt(xs**2 + ys**2)
    inside = np.clip((1 - r) * radius + 0.5, 0, 1)
    facing = np.cos(scenery.light_rad) * xs + np.sin(scenery.light_rad) * ys
    patch = canvas[y0:y1, x0:x1]
    cast = np.hypot(xs + 0.3 * np.cos(scenery.light_rad), ys + 0.3 * np.sin(scenery.light_rad))
    shadow = np.clip((1.05 - cast) * radius + 0.5, 0, 1) * (1 - inside)
    patch *= 1 - (0.55 * strength * shadow)[..., None]
    patch *= 1 + (inside * strength * np.clip(facing, -1, 1) * np.clip(r, 0, 1))[..., None]
    spot_x, spot_y = xs - 0.4 * np.cos(scenery.light_rad), ys - 0.4 * np.sin(scenery.light_rad)
    patch += (inside * 0.8 * strength * np.exp(-(spot_x**2 + spot_y**2) / 0.05))[..., None]
    return full_mask(r < 1, (x0, y0, x1, y1), canvas)
