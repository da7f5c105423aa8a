"""Pillow's many modes to RGB: depth, alpha and orientation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autolabel.types import RGB

_PHOTOMETRIC_TAG = 262
_GREY_BIT_DEPTHS = (8, 10, 12, 14, 16)


def upright(pixels: RGB, orientation: int) -> RGB:
    """Undo what the EXIF orientation says was done: 2–4 mirror or turn by 180°, 5–8 also swap rows and columns."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def to_rgb(picture: Image.Image) -> RGB:
    """Return a loaded picture's pixels as ``(H, W, 3)`` uint8, whatever its mode; the rules are ``decode``'s."""
    mode = picture.mode
    if mode.startswith("I;16") or mode in ("I", "F"):
        grey = _grey_to_uint8(np.asarray(picture))
        if _min_is_white(picture):
            grey = 255 - grey
        return np.repeat(grey[:, :, None], 3, axis=2)
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        return _on_white(np.asarray(picture.convert("RGBA")))
    return np.array(picture.convert("RGB"))


def _grey_to_uint8(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale an ``(H, W)`` grey image deeper than 8 bits to uint8, by the rules in ``decode``."""
    if np.issubdtype(values.dtype, np.floating):
        return _float_to_uint8(values.astype(np.float64))
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 1 << _GREY_BIT_DEPTHS[-1]:
        return _float_to_uint8(values.astype(np.float64), unit_range=False)
    full = next((1 << bits) - 1 for bits in _GREY_BIT_DEPTHS if high < 1 << bits)
    scaled: NDArray[np.float32] = values.astype(np.float32) * np.float32(255 / full)
    return np.rint(scaled).astype(np.uint8)


def _float_to_uint8(values: NDArray[np.float64], *, unit_range: bool = True) -> NDArray[np.uint8]:
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("no finite pixel values")
    low, high = float(values[finite].min()), float(values[finite].max())
    if unit_range and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scaled = (np.where(finite, values, low) - low) * (255.0 / (high - low) if high > low else 0.0)
    return np.rint(scaled).astype(np.uint8)


def _min_is_white(picture: Image.Image) -> bool:
    """Pillow inverts white-is-zero TIFFs of up to 8 bits itself, but not deeper ones."""
    tags = getattr(picture, "tag_v2", None)
    return tags is not None and tags.get(_PHOTOMETRIC_TAG) == 0


def _on_white(rgba: NDArray[np.uint8]) -> RGB:
    """Composite straight-alpha ``(H, W, 4)`` on white."""
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    if not alpha.any() or (alpha == 255).all():
        return colour
    weight = alpha.astype(np.uint16)
    return ((colour * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)
