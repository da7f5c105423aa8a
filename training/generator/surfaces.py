"""Materials: each function paints a clean surface, float32 RGB ``(H, W, 3)`` in 0..1.

``unit`` is sqrt(width * height) px, so that a texture keeps its look at any picture size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from training.generator.fields import Field, fractal, ramp, rgb_of, smooth, streaks, unit_px, white
from training.generator.imagined import imagined

Canvas = NDArray[np.float32]
Surface = Callable[[np.random.Generator, int, int], Canvas]


def _tint(grey: Field, rgb: tuple[float, float, float]) -> Canvas:
    return np.asarray(grey[..., None] * np.asarray(rgb, np.float32), dtype=np.float32)


def _metal_tint(rng: np.random.Generator) -> tuple[float, float, float]:
    warm = rng.uniform(-0.035, 0.035)
    if rng.random() < 0.12:  # brass or copper
        return (1.0, rng.uniform(0.78, 0.9), rng.uniform(0.5, 0.68))
    return (1.0 + warm, 1.0, 1.0 - warm)


def brushed_metal(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """Steel or aluminium with a grain in one direction and a broad sheen."""
    unit = unit_px(height, width)
    angle = 0.0 if rng.random() < 0.5 else float(rng.uniform(-90, 90))
    grain = 0.7 * streaks(rng, height, width, int(unit * rng.uniform(0.06, 0.3)), angle)
    grain += 0.5 * streaks(rng, height, width, int(unit * 0.03), angle)
    grey = rng.uniform(0.45, 0.72) + rng.uniform(0.015, 0.045) * grain
    grey = grey + rng.uniform(0.02, 0.09) * np.cos(np.pi * ramp(height, width, rng.uniform(0, 6.28)))
    return _tint(grey.astype(np.float32), _metal_tint(rng))


def painted(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """Opaque paint with faint orange peel."""
    unit = unit_px(height, width)
    hue, saturation, value = rng.uniform(0, 360), rng.uniform(0.02, 0.75), rng.uniform(0.35, 0.9)
    if rng.random() < 0.35:
        saturation = rng.uniform(0.0, 0.08)
    rgb = rgb_of(hue, saturation, value)
    peel = 1 + rng.uniform(0.005, 0.025) * smooth(rng, height, width, unit * rng.uniform(0.008, 0.02))
    peel += rng.uniform(0.01, 0.03) * fractal(rng, height, width, unit * 0.4, 3)
    return _tint(peel.astype(np.float32), (float(rgb[0]), float(rgb[1]), float(rgb[2])))


def cast(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """Grey casting with an irregular, slightly relief-lit skin."""
    unit = unit_px(height, width)
    relief = fractal(rng, height, width, unit * rng.uniform(0.02, 0.05), 4)
    shade = cv2.Sobel(relief, cv2.CV_32F, 1, 1, ksize=3)
    shade = shade / (shade.std() + 1e-6)
    grey = rng.uniform(0.28, 0.55) + rng.uniform(0.02, 0.045) * shade
    grey = grey + rng.uniform(0.01, 0.03) * fractal(rng, height, width, unit * 0.3, 3)
    return _tint(grey.astype(np.float32), _metal_tint(rng))


def sandblasted(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """Rough blasted metal: fine grain without direction."""
    unit = unit_px(height, width)
    grain = white(rng, height, width)
    cell = max(0.6, unit * rng.uniform(0.0008, 0.0022))
    grain = cv2.GaussianBlur(grain, (0, 0), cell)
    grain = grain / (grain.std() + 1e-6)
    grey = rng.uniform(0.4, 0.68) + rng.uniform(0.025, 0.06) * grain
    grey = grey + rng.uniform(0.005, 0.025) * fractal(rng, height, width, unit * 0.35, 3)
    return _tint(grey.astype(np.float32), _metal_tint(rng))


def glossy(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """Polished coating or plastic that mirrors soft lamps."""
    base = painted(rng, height, width)
    if rng.random() < 0.4:
        base = _tint(np.full((height, width), rng.uniform(0.06, 0.2), np.float32), (1.0, 1.0, 1.03))
    unit = unit_px(height, width)
    lamps = np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        centre = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
        size = (float(unit * rng.uniform(0.1, 0.5)), float(unit * rng.uniform(0.03, 0.14)))
        corners = cv2.boxPoints((centre, size, float(rng.uniform(-40, 40))))
        cv2.fillPoly(lamps, [corners.astype(np.int32)], float(rng.uniform(0.15, 0.45)))
    lamps = cv2.GaussianBlur(lamps, (0, 0), max(1.0, unit * rng.uniform(0.02, 0.06)))
    return np.asarray(base * (1 - 0.6 * lamps[..., None]) + lamps[..., None], dtype=np.float32)


def wood(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """Planed board with rings and fibres."""
    unit = unit_px(height, width)
    warp = fractal(rng, height, width, unit * 0.6, 2)
    along = ramp(height, width, rng.choice([0.0, np.pi / 2]) + rng.uniform(-0.1, 0.1))
    rings = np.sin(rng.uniform(9, 26) * (along + 0.11 * warp))
    upright = bool(abs(along[0, -1] - along[0, 0]) > abs(along[-1, 0] - along[0, 0]))
    fibre = streaks(rng, height, width, int(unit * 0.12), 90.0 if upright else 0.0)
    tone = 1 + rng.uniform(0.03, 0.09) * rings + rng.uniform(0.02, 0.04) * fibre + 0.03 * warp
    dark = rng.uniform(0.55, 1.0)
    rgb = (0.78 * dark, (0.58 + rng.uniform(-0.06, 0.05)) * dark, (0.38 + rng.uniform(-0.08, 0.06)) * dark)
    return _tint(tone.astype(np.float32), rgb)


def concrete(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """Cement with mottling, sand grain and small dark pores too small to be holes."""
    unit = unit_px(height, width)
    grey = rng.uniform(0.5, 0.72) + 0.035 * fractal(rng, height, width, unit * 0.25, 5)
    grain = cv2.GaussianBlur(white(rng, height, width), (0, 0), max(0.6, unit * 0.0012))
    grey = grey + rng.uniform(0.015, 0.035) * grain / (grain.std() + 1e-6)
    return _tint(grey.astype(np.float32), (1.0, rng.uniform(0.96, 1.0), rng.uniform(0.89, 0.98)))


def fabric(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """Woven cloth: crossing threads with small irregularities."""
    unit = unit_px(height, width)
    period = max(3.0, unit * rng.uniform(0.009, 0.018))
    bend = 1.2 * fractal(rng, height, width, unit * 0.3, 2)
    xs = np.arange(width, dtype=np.float32)[None, :] + bend
    ys = np.arange(height, dtype=np.float32)[:, None] + bend
    weave = np.sin(xs * (2 * np.pi / period)) * np.sin(ys * (2 * np.pi / period))
    weave += 0.5 * np.sin(xs * (2 * np.pi / period)) + 0.35 * streaks(rng, height, width, int(unit * 0.05), 0.0)
    tone = 1 + rng.uniform(0.04, 0.1) * weave
    hue, saturation, value = rng.uniform(0, 360), rng.uniform(0.05, 0.5), rng.uniform(0.35, 0.8)
    rgb = rgb_of(hue, saturation, value)
    return _tint(tone.astype(np.float32), (float(rgb[0]), float(rgb[1]), float(rgb[2])))


def ceramic(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """Glazed tiles with grout lines; kept out of training, so that a test shows an unseen material."""
    unit = unit_px(height, width)
    grey = rng.uniform(0.7, 0.88) + 0.02 * fractal(rng, height, width, unit * 0.2, 4)
    tile = _tint(grey.astype(np.float32), (1.0, rng.uniform(0.95, 1.0), rng.uniform(0.88, 1.0)))
    step = int(unit * rng.uniform(0.35, 0.6))
    line = max(1, round(unit * rng.uniform(0.006, 0.012)))
    grout = tuple(float(v) for v in rng.uniform(0.42, 0.55) * np.array([1.0, 0.98, 0.94]))
    for x in range(int(rng.integers(0, step)), width, step):
        cv2.line(tile, (x, 0), (x, height), grout, line, cv2.LINE_AA)
    for y in range(int(rng.integers(0, step)), height, step):
        cv2.line(tile, (0, y), (width, y), grout, line, cv2.LINE_AA)
    return tile


def galvanized(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """Zinc coating with the patchwork of its crystals (spangle)."""
    unit = unit_px(height, width)
    cell = max(4.0, unit * rng.uniform(0.02, 0.06))
    rows, cols = max(2, int(height / cell)), max(2, int(width / cell))
    crystals = rng.standard_normal((rows, cols), dtype=np.float32)
    bend = [cell * 0.8 * smooth(rng, height, width, cell * 0.7) for _ in range(2)]
    grid_x, grid_y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    at_x = np.clip((grid_x + bend[0]) * cols / width, 0, cols - 1)
    at_y = np.clip((grid_y + bend[1]) * rows / height, 0, rows - 1)
    patches = cv2.remap(crystals, np.floor(at_x), np.floor(at_y), cv2.INTER_NEAREST)
    fine = cv2.GaussianBlur(patches, (0, 0), max(0.6, unit * 0.001))
    grey = rng.uniform(0.5, 0.7) + rng.uniform(0.02, 0.05) * fine + 0.02 * fractal(rng, height, width, unit * 0.3, 3)
    return _tint(grey.astype(np.float32), (0.98, 1.0, 1.03))


def turned(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """Face of a turned part: concentric tool marks about a centre, with a rotating sheen."""
    unit = unit_px(height, width)
    cx, cy = rng.uniform(-0.5, 1.5) * width, rng.uniform(-0.5, 1.5) * height
    xs = np.arange(width, dtype=np.float32)[None, :] - np.float32(cx)
    ys = np.arange(height, dtype=np.float32)[:, None] - np.float32(cy)
    radius, angle = np.sqrt(xs**2 + ys**2), np.arctan2(ys, xs)
    profile = rng.standard_normal(int(radius.max()) + 3, dtype=np.float32)
    profile = cv2.GaussianBlur(profile[None, :], (0, 0), max(0.6, unit * rng.uniform(0.0008, 0.003)))[0]
    marks = profile[radius.astype(np.int32)] / (profile.std() + 1e-6)
    grey = rng.uniform(0.45, 0.7) + rng.uniform(0.015, 0.045) * marks
    grey = grey + rng.uniform(0.03, 0.1) * np.cos(2 * angle + rng.uniform(0, 2 * np.pi))
    return _tint(grey.astype(np.float32), _metal_tint(rng))


def grained_plastic(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """Moulded plastic or leather with a pebbled grain."""
    unit = unit_px(height, width)
    relief = smooth(rng, height, width, unit * rng.uniform(0.008, 0.02))
    relief = np.minimum(relief, 0.6) + 0.3 * fractal(rng, height, width, unit * 0.02, 3)
    shade = cv2.Sobel(relief.astype(np.float32), cv2.CV_32F, 1, 1, ksize=3)
    shade = shade / (shade.std() + 1e-6)
    dark = rng.random() < 0.5
    hue, saturation = rng.uniform(0, 360), rng.uniform(0.0, 0.45)
    value = rng.uniform(0.12, 0.3) if dark else rng.uniform(0.4, 0.8)
    rgb = rgb_of(hue, saturation, value)
    tone = 1 + rng.uniform(0.03, 0.09) * shade
    return _tint(tone.astype(np.float32), (float(rgb[0]), float(rgb[1]), float(rgb[2])))


def granite(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """Polished stone of dark, grey and light grains; kept out of training."""
    unit = unit_px(height, width)
    grains = smooth(rng, height, width, unit * rng.uniform(0.008, 0.016)) + 0.6 * smooth(
        rng, height, width, unit * 0.05
    )
    levels = np.interp(grains, [-1.5, -0.5, -0.3, 0.7, 0.9, 2.0], [0.34, 0.38, 0.52, 0.56, 0.68, 0.72])
    return _tint(levels.astype(np.float32), (1.0, rng.uniform(0.94, 1.0), rng.uniform(0.9, 1.0)))


FIRST_SURFACES: Final[dict[str, Surface]] = {
    "brushed_metal": brushed_metal,
    "painted": painted,
    "cast": cast,
    "sandblasted": sandblasted,
    "glossy": glossy,
    "wood": wood,
    "concrete": concrete,
    "fabric": fabric,
}
MORE_SURFACES: Final[dict[str, Surface]] = {
    "galvanized": galvanized,
    "turned": turned,
    "grained_plastic": grained_plastic,
}
TEST_ONLY_SURFACES: Final[dict[str, Surface]] = {"ceramic": ceramic, "granite": granite}
TRAINING_ONLY_SURFACES: Final[dict[str, Surface]] = {"imagined": imagined}
"""Shown by the pictures of training that ask for them by name."""
SURFACES: Final[dict[str, Surface]] = FIRST_SURFACES | MORE_SURFACES | TEST_ONLY_SURFACES | TRAINING_ONLY_SURFACES
