"""A material that does not exist, in training pictures alone: what stays the same on all of them are the defects.

Models that see a dozen materials learn those materials. Random ones make them look for what is done to a surface
(domain randomisation, Tobin et al. 2017, https://arxiv.org/abs/1703.06907).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from training.generator.fields import Field, fractal, log_uniform, ramp, rgb_of, smooth, streaks, unit_px, white

FieldMaker = Callable[[np.random.Generator, int, int], Field]


def grains(rng: np.random.Generator, height: int, width: int) -> Field:
    """Fine noise without direction."""
    return cv2.GaussianBlur(
        white(rng, height, width), (0, 0), log_uniform(rng, 0.5, max(1.0, 0.006 * unit_px(height, width)))
    )


def bumps(rng: np.random.Generator, height: int, width: int) -> Field:
    """Bumps of one size."""
    return smooth(rng, height, width, unit_px(height, width) * log_uniform(rng, 0.006, 0.2))


def clouds(rng: np.random.Generator, height: int, width: int) -> Field:
    """Mottling of all sizes."""
    return fractal(rng, height, width, unit_px(height, width) * log_uniform(rng, 0.03, 0.6), int(rng.integers(2, 6)))


def relief(rng: np.random.Generator, height: int, width: int) -> Field:
    """Uneven skin lit from one side."""
    ground = (bumps, clouds)[int(rng.integers(2))](rng, height, width)
    across, down = ((1, 0), (0, 1), (1, 1))[int(rng.integers(3))]
    return np.asarray(cv2.Sobel(ground, cv2.CV_32F, across, down, ksize=3), np.float32)


def marks(rng: np.random.Generator, height: int, width: int) -> Field:
    """Tool marks or fibres in one direction."""
    return streaks(
        rng, height, width, int(unit_px(height, width) * log_uniform(rng, 0.01, 0.4)), float(rng.uniform(-90, 90))
    )


def ripples(rng: np.random.Generator, height: int, width: int) -> Field:
    """Bent waves of one direction."""
    unit = unit_px(height, width)
    along = ramp(height, width, float(rng.uniform(0, 2 * np.pi)))
    bend = log_uniform(rng, 0.003, 0.3) * fractal(rng, height, width, unit * log_uniform(rng, 0.1, 0.8), 2)
    waves = np.sin(log_uniform(rng, 8, 160) * (along + bend))
    return np.asarray(np.sign(waves) * np.abs(waves) ** log_uniform(rng, 0.3, 2.0), np.float32)


def weave(rng: np.random.Generator, height: int, width: int) -> Field:
    """Waves of two directions crossed: cloth, mesh, embossed sheet."""
    return np.asarray(ripples(rng, height, width) * ripples(rng, height, width), np.float32)


def contours(rng: np.random.Generator, height: int, width: int) -> Field:
    """Bands that follow hills, as in burl, marble and agate."""
    hills = fractal(rng, height, width, unit_px(height, width) * log_uniform(rng, 0.1, 0.8), int(rng.integers(2, 5)))
    return np.asarray(np.sin(log_uniform(rng, 2, 14) * hills), np.float32)


def cells(rng: np.random.Generator, height: int, width: int) -> Field:
    """Patches about random points, or the way to the nearest of them (Worley 1996)."""
    points = np.ones((height, width), np.uint8)
    count = int(log_uniform(rng, 15, 1500))
    points[rng.integers(0, height, count), rng.integers(0, width, count)] = 0
    distance, nearest = cv2.distanceTransformWithLabels(points, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    if rng.random() < 0.5:
        return np.asarray(distance, np.float32)
    patches = rng.standard_normal(int(nearest.max()) + 1, dtype=np.float32)[nearest]
    return cv2.GaussianBlur(patches, (0, 0), log_uniform(rng, 0.5, max(1.0, 0.01 * unit_px(height, width))))


FIELDS: Final[tuple[FieldMaker, ...]] = (
    grains, bumps, clouds, relief, marks, ripples, weave, contours, cells,
)  # fmt: skip
MOST: Final = 0.14
"""Standard deviation of all fields together in 0..1, at most: beyond it a faint defect is drowned."""


def imagined(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """One to four random fields of random strength over a random colour, float32 RGB ``(H, W, 3)`` in 0..1."""
    layers = int(rng.integers(1, 5))
    strengths = np.array([log_uniform(rng, 0.008, 0.11) for _ in range(layers)])
    strengths *= min(1.0, MOST / float(np.sqrt((strengths**2).sum())))
    colour = rgb_of(rng.uniform(0, 360), rng.beta(1.0, 2.5), rng.uniform(0.15, 0.9))
    canvas = np.broadcast_to(colour, (height, width, 3)).astype(np.float32)
    for strength in strengths:
        field = FIELDS[int(rng.integers(len(FIELDS)))](rng, height, width)
        field = np.clip((field - field.mean()) / (field.std() + 1e-6), -2.5, 2.5)
        tint = np.clip(1 + rng.normal(0, 0.25 if rng.random() < 0.4 else 0.04, 3), 0.2, 1.8)
        canvas += (strength * field)[..., None] * tint.astype(np.float32)
    return np.clip(canvas, 0.0, 1.0)
