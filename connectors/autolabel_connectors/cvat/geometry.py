"""CVAT's points as boxes and masks: a mask is row-major runs in a crop, closed by its inclusive corners.

Coordinates are px of the upright image, as ours. A turned rectangle or ellipse turns clockwise around its centre; an
ellipse is its centre, its right edge and its upper edge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autolabel.errors import AutolabelError
from autolabel.types import Image, Mask
from autolabel_connectors.raster import ellipse_ring, rectangle_ring, snap, turned
from autolabel_connectors.regions import with_mask, with_ring
from autolabel_connectors.rle import crop, from_crop
from autolabel_connectors.shapes import Region, RegionKind

_NO_AREA: Mapping[str, tuple[RegionKind, str]] = {
    "points": ("point", "points have no area"),
    "polyline": ("line", "a polyline has no area"),
    "skeleton": ("unknown", "a skeleton has no outline"),
    "cuboid": ("unknown", "a cuboid is no region of the image"),
}


def encode_mask(mask: Mask) -> list[int]:
    """Write a mask as CVAT's points, the same as ``cvat_sdk.masks.encode_mask``; raises AutolabelError if empty."""
    pixels, left, top = crop(mask)
    if not pixels.size:
        raise AutolabelError("mask must have at least one pixel; an empty one cannot be sent to CVAT")
    flat = pixels.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate([[0], changes, [len(flat)]])
    runs: list[int] = np.diff(bounds).tolist()
    height, width = pixels.shape
    lead = [0] if flat[0] else []
    return [*lead, *runs, left, top, left + width - 1, top + height - 1]


def decode_mask(points: Sequence[float], size_wh: tuple[int, int]) -> Mask:
    """Read CVAT's points of a mask on an image of ``size_wh`` px; what lies outside the image is cut off.

    Raises AutolabelError if the runs do not fill the crop.
    """
    numbers = np.asarray(points, np.float64)
    if len(numbers) < 5 or not np.isfinite(numbers).all() or np.any(numbers != np.round(numbers)):
        raise AutolabelError(f"a mask must be whole numbers, runs and four corners, got {len(numbers)} numbers")
    whole = numbers.astype(np.int64)
    runs, (left, top, right, bottom) = whole[:-4], (int(value) for value in whole[-4:])
    width, height = right - left + 1, bottom - top + 1
    if width <= 0 or height <= 0 or np.any(runs < 0) or int(runs.sum()) != width * height:
        raise AutolabelError(f"the runs of a mask must fill its crop of {width}x{height} px, got {int(runs.sum())} px")
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    inside = pixels[
        max(0, -top) : max(0, min(height, size_wh[1] - top)), max(0, -left) : max(0, min(width, size_wh[0] - left))
    ]
    return from_crop(inside, max(0, left), max(0, top), size_wh)


def read_geometry(region: Region, shape: Mapping[str, Any], image: Image) -> Region:
    """Fill in kind, box and mask of a region from a shape."""
    size_wh = (image.width, image.height)
    kind = str(shape.get("type"))
    if kind == "mask":
        return with_mask(replace(region, kind="mask"), decode_mask(shape["points"], size_wh))
    if kind in _NO_AREA:
        found, reason = _NO_AREA[kind]
        numbers = [*(shape.get("points") or ()), *(n for part in shape.get("elements") or () for n in part["points"])]
        places = {**region.attributes, "points": ",".join(f"{value:g}" for value in snap(numbers))}
        return replace(region, kind=found, attributes=places, problem=f"{reason}; draw a box, polygon or mask instead")
    points = np.asarray(shape.get("points") or (), np.float64)
    degrees = float(shape.get("rotation") or 0.0) % 360
    if kind in ("rectangle", "ellipse"):
        if len(points) != 4:
            raise AutolabelError(f"{kind} must have 4 numbers, got {len(points)}")
        x0, y0, x1, y1 = (float(value) for value in points)
        if kind == "ellipse":
            ring = ellipse_ring((x0, y0), (x1 - x0, y0 - y1), degrees)
            return with_ring(replace(region, kind="ellipse"), ring, size_wh, filled=True)
        ring = turned(rectangle_ring(x0, y0, x1, y1), degrees, ((x0 + x1) / 2, (y0 + y1) / 2))
        quarter = round(degrees / 90) * 90
        askew = abs(degrees - quarter) > 1e-6
        return with_ring(replace(region, kind="box", rotation=degrees), ring, size_wh, filled=askew)
    if kind == "polygon":
        if len(points) < 6 or len(points) % 2:
            raise AutolabelError(f"polygon must have at least 3 points, got {len(points)} numbers; finish or delete it")
        return with_ring(replace(region, kind="polygon"), points.reshape(-1, 2), size_wh, filled=True)
    return replace(region, problem=f"shapes of type {kind!r} are not supported; draw a box, polygon or mask")
