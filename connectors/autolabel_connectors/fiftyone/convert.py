"""Pixels to FiftyOne's units and back: relative ``[x, y, width, height]`` and a mask that is cropped to its box.

A round trip gives the same box, and the same mask but for pixels outside the box's pixel window: FiftyOne draws a
mask only inside its box. The window is the box grown to whole px, so a mask is drawn narrower by less than one px.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autolabel.types import Box, Mask
from autolabel_connectors.rle import crop, from_crop

Bools = NDArray[np.bool_]
Size = tuple[int, int]
_ROUNDING_PX = 1e-3  # an edge that is whole in px comes back from shares with less than this added


def to_relative(box: Box, size_wh: Size) -> list[float]:
    """Return ``[x, y, width, height]`` in shares of an image of ``size_wh`` px."""
    width, height = size_wh
    return [box.x_min / width, box.y_min / height, box.width / width, box.height / height]


def from_relative(xywh: Sequence[float], size_wh: Size) -> Box | None:
    """Return the box in px, cut at the image's edges; None when nothing of it lies inside or a value is no number."""
    box = _uncut(xywh, size_wh)
    if not all(math.isfinite(edge) for edge in box.xyxy):
        return None
    width, height = size_wh
    cut = Box(max(box.x_min, 0.0), max(box.y_min, 0.0), min(box.x_max, float(width)), min(box.y_max, float(height)))
    return cut if cut.width > 0 and cut.height > 0 else None


def to_crop(mask: Mask, box: Box) -> Bools:
    """Cut a mask to its box's window: ``(h, w)`` bool."""
    left, top, right, bottom = _window(box)
    pixels, x, y = crop(mask)
    cut = np.zeros((bottom - top, right - left), np.bool_)
    x_min, x_max = max(left, x), min(right, x + pixels.shape[1])
    y_min, y_max = max(top, y), min(bottom, y + pixels.shape[0])
    if x_min < x_max and y_min < y_max:
        cut[y_min - top : y_max - top, x_min - left : x_max - left] = pixels[
            y_min - y : y_max - y, x_min - x : x_max - x
        ]
    return cut


def from_crop_of(pixels: NDArray[Any], xywh: Sequence[float], size_wh: Size) -> Mask | None:
    """Place an ``(h, w)`` crop in the window of its relative box; None where nothing of it lies inside the image.

    Where a person resized the box, the mask is stretched with it, as FiftyOne draws it.
    """
    box = _uncut(xywh, size_wh)
    if pixels.ndim != 2 or 0 in pixels.shape or not all(math.isfinite(edge) for edge in box.xyxy):
        return None
    left, top, right, bottom = _window(box)
    columns, x = _sources(pixels.shape[1], left, right, size_wh[0])
    rows, y = _sources(pixels.shape[0], top, bottom, size_wh[1])
    placed = np.asarray(pixels != 0, np.bool_)[rows][:, columns]
    return from_crop(placed, x, y, size_wh) if placed.any() else None


def _uncut(xywh: Sequence[float], size_wh: Size) -> Box:
    x, y, width, height = (float(value) for value in xywh)
    return Box(x * size_wh[0], y * size_wh[1], (x + width) * size_wh[0], (y + height) * size_wh[1])


def _window(box: Box) -> tuple[int, int, int, int]:
    """Return the whole px that a box touches: ``left, top, right, bottom``, half-open, at least one px each way."""
    left, top = math.floor(box.x_min + _ROUNDING_PX), math.floor(box.y_min + _ROUNDING_PX)
    right = max(left + 1, math.ceil(box.x_max - _ROUNDING_PX))
    bottom = max(top + 1, math.ceil(box.y_max - _ROUNDING_PX))
    return left, top, right, bottom


def _sources(have: int, start: int, end: int, size: int) -> tuple[NDArray[np.int64], int]:
    """Return the source index for each px of ``[start, end)`` inside ``[0, size)``, and the first such px."""
    first = max(start, 0)
    places = np.arange(first, max(first, min(end, size)))
    return ((places - start + 0.5) * have / (end - start)).astype(np.int64), first
