"""From a painted scene to a photograph: light, vignette, blur, sensor noise, JPEG."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from training.generator.fields import ramp, smooth
from training.generator.surfaces import Canvas


def light(rng: np.random.Generator, canvas: Canvas) -> Canvas:
    """Multiply by a light gradient, soft patches, a vignette and a white balance."""
    height, width = canvas.shape[:2]
    field = 1 + rng.uniform(0.0, 0.3) * ramp(height, width, rng.uniform(0, 2 * np.pi))
    if rng.random() < 0.4:
        field += rng.uniform(0.02, 0.08) * smooth(rng, height, width, 0.5 * max(height, width))
    if rng.random() < 0.6:
        xs = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        ys = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        field *= 1 - rng.uniform(0.05, 0.3) * (xs**2 + ys**2) / 2
    balance = 1 + rng.normal(0, 0.02, 3)
    exposure = rng.uniform(0.75, 1.2)
    return np.asarray(canvas * field[..., None] * (exposure * balance).astype(np.float32), dtype=np.float32)


def expose(rng: np.random.Generator, canvas: Canvas, jpeg: bool = True, sharp: bool = False) -> NDArray[np.uint8]:
    """Blur, add noise and quantise to uint8 RGB ``(H, W, 3)``; ``jpeg`` adds compression marks.

    Blur grows with the picture; ``sharp`` keeps it below a pixel, as it would wipe out what is a pixel wide.
    """
    height, width = canvas.shape[:2]
    unit = float(np.sqrt(height * width))
    if rng.random() < 0.5:
        sigma = max(0.3, unit * rng.uniform(0.0006, 0.0022))
        canvas = cv2.GaussianBlur(canvas, (0, 0), min(sigma, 1.0) if sharp else sigma)
    sigma = rng.uniform(0.002, 0.022) if rng.random() < 0.8 else 0.0
    if sigma > 0:
        canvas = canvas + sigma * rng.standard_normal(canvas.shape, dtype=np.float32)
    image = np.clip(canvas * 255, 0, 255).astype(np.uint8)
    if jpeg and rng.random() < 0.5:
        quality = int(rng.integers(60, 96))
        _, blob = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.asarray(cv2.imdecode(blob, cv2.IMREAD_COLOR), dtype=np.uint8)[..., ::-1]
    return np.ascontiguousarray(image)
