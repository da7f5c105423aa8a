"""Random scalar fields on a pixel grid: the raw material of surfaces and blobs. All are float32, ``(H, W)``."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a size between two sizes, small and large ones alike."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def unit_px(height: int, width: int) -> float:
    """Side px of a square as large as the picture: what sizes are fractions of."""
    return float(np.sqrt(height * width))


def rgb_of(hue_deg: float, saturation: float, value: float) -> NDArray[np.float32]:
    """Colour ``(3,)`` in 0..1 of a hue, a saturation and a value."""
    hsv = np.array([[[hue_deg, saturation, value]]], np.float32)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0], np.float32)


def white(rng: np.random.Generator, height: int, width: int) -> Field:
    """Gaussian white noise, mean 0, standard deviation 1."""
    return rng.standard_normal((height, width), dtype=np.float32)


def smooth(rng: np.random.Generator, height: int, width: int, cell_px: float) -> Field:
    """Noise whose bumps are about ``cell_px`` wide, scaled to mean 0, standard deviation 1."""
    rows = max(2, round(height / max(cell_px, 1.0)) + 1)
    cols = max(2, round(width / max(cell_px, 1.0)) + 1)
    coarse = rng.standard_normal((rows, cols), dtype=np.float32)
    field = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), dtype=np.float32)


def fractal(rng: np.random.Generator, height: int, width: int, cell_px: float, octaves: int = 4) -> Field:
    """Sum of ``smooth`` noises, each octave half as wide and 0.55 times as strong; standard deviation 1."""
    total = np.zeros((height, width), np.float32)
    weight = 1.0
    for octave in range(octaves):
        cell = cell_px / 2**octave
        if cell < 1.0:
            break
        total += weight * smooth(rng, height, width, cell)
        weight *= 0.55
    return np.asarray(total / (total.std() + 1e-6), dtype=np.float32)


def streaks(rng: np.random.Generator, height: int, width: int, length_px: int, angle_deg: float) -> Field:
    """White noise smeared along a direction (brush marks); standard deviation about 1."""
    length = max(3, length_px | 1)
    if abs(angle_deg) < 1e-3:
        field = cv2.blur(white(rng, height, width), (length, 1))
    else:
        side = int(np.hypot(height, width)) + 2
        flat = cv2.blur(white(rng, side, side), (length, 1))
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), angle_deg, 1.0)
        turn[:, 2] += (width / 2 - side / 2, height / 2 - side / 2)
        field = cv2.warpAffine(flat, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(field / (field.std() + 1e-6), dtype=np.float32)


def ramp(height: int, width: int, angle_rad: float) -> Field:
    """Linear ramp from -1 to 1 across the picture in the given direction."""
    xs = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    ys = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    field = np.cos(angle_rad) * xs + np.sin(angle_rad) * ys
    return np.asarray(field / np.abs(field).max(), dtype=np.float32)
