"""What Label Studio's values say about places: percent, turned views, brush codes and pictures, as boxes and masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from autolabel.errors import AutolabelError
from autolabel.runlengths import Bools
from autolabel.types import Image, Mask
from autolabel_connectors.label_studio.brush import decode_bitmask, decode_brush
from autolabel_connectors.raster import Points, ellipse_ring, rectangle_ring, snap, turned
from autolabel_connectors.regions import with_mask, with_ring
from autolabel_connectors.shapes import Region

_TURNS = (90, 180, 270)
_KEYS = {"rle": "brush", "imageDataURL": "bitmask", "radiusX": "ellipse", "points": "polygon"}


def form_of(item: Mapping[str, Any]) -> str | None:
    """Tell the form of a region by what its value holds, as the editor itself decides; None if it holds no shape."""
    value = item.get("value")
    if not isinstance(value, Mapping):
        return None
    for key, form in _KEYS.items():
        if key in value:
            return form
    if "x" in value and "y" in value:
        kind = str(item.get("type", "")).removesuffix("labels")
        return "keypoint" if kind == "keypoint" or "height" not in value else "rectangle"
    return None


def read_geometry(region: Region, item: Mapping[str, Any], value: Mapping[str, Any], image: Image) -> Region:
    """Fill in kind, box and mask."""
    form = form_of(item)
    size_wh = (image.width, image.height)
    if form in ("brush", "bitmask"):
        return with_mask(replace(region, kind="mask"), _pixels(item, value, image))
    frame = _Frame(image, item)
    if form == "rectangle":
        corner = frame.px(value["x"], value["y"])
        far = frame.px(value["x"] + value["width"], value["y"] + value["height"])
        degrees = float(value.get("rotation") or 0.0) % 360
        ring = frame.upright(turned(rectangle_ring(*corner, *far), degrees, corner))
        askew = not np.isclose(degrees % 90, 0, atol=1e-6) and not np.isclose(degrees % 90, 90, atol=1e-6)
        return with_ring(replace(region, kind="box", rotation=degrees), ring, size_wh, filled=askew)
    if form == "ellipse":
        radii = frame.px(value["radiusX"], value["radiusY"])
        ring = ellipse_ring(frame.px(value["x"], value["y"]), radii, float(value.get("rotation") or 0.0))
        return with_ring(replace(region, kind="ellipse"), frame.upright(ring), size_wh, filled=True)
    if form == "polygon":
        points = np.array([frame.px(x, y) for x, y in value["points"]], np.float64).reshape(-1, 2)
        if len(points) < 3:
            raise AutolabelError(f"polygon must have at least 3 points, got {len(points)}; finish or delete it")
        return with_ring(replace(region, kind="polygon"), frame.upright(points), size_wh, filled=True)
    if form == "keypoint":
        x, y = snap(frame.upright(np.array([frame.px(value["x"], value["y"])])))[0]
        place = {**region.attributes, "point": f"{x:g},{y:g}"}
        return replace(
            region,
            kind="point",
            attributes=place,
            problem="a keypoint has no area; draw a box, polygon or mask instead",
        )
    return replace(
        region, problem=f"regions of type {item.get('type')!r} are not supported; draw a box, polygon or mask"
    )


class _Frame:
    """From percent to upright px, also where a person turned the view by quarter turns."""

    def __init__(self, image: Image, item: Mapping[str, Any]) -> None:
        self.turn = int(item.get("image_rotation") or 0) % 360
        if self.turn and self.turn not in _TURNS:
            raise AutolabelError(f"image_rotation must be 0, 90, 180 or 270, got {self.turn}")
        self.size = (image.width, image.height)
        self.seen = self.size if self.turn % 180 == 0 else self.size[::-1]

    def px(self, x: float, y: float) -> tuple[float, float]:
        """From percent to px of the view."""
        return (float(x) * self.seen[0] / 100, float(y) * self.seen[1] / 100)

    def upright(self, points: Points) -> Points:
        """From px of a view turned clockwise to px of the upright image."""
        x, y = points.T
        width, height = self.size
        if self.turn == 90:
            x, y = y, height - x
        elif self.turn == 180:
            x, y = width - x, height - y
        elif self.turn == 270:
            x, y = width - y, x
        return np.stack([x, y], axis=1)


def _pixels(item: Mapping[str, Any], value: Mapping[str, Any], image: Image) -> Mask:
    """Decode a brush or bitmask; one painted on the image in another size is scaled to ours."""
    if "imageDataURL" in value:
        pixels = decode_bitmask(str(value["imageDataURL"]))
        if pixels.shape == (image.height, image.width):
            return Mask.encode(pixels)
        return _scaled(pixels, image)
    width, height = int(item.get("original_width") or image.width), int(item.get("original_height") or image.height)
    mask = decode_brush(value["rle"], height, width)
    if (width, height) == (image.width, image.height):
        return mask
    return _scaled(mask.decode(), image)


def _scaled(pixels: Bools, image: Image) -> Mask:
    """Scale a mask to the image; another shape than the image's is an error, as nobody knows how it was turned."""
    height, width = pixels.shape
    if abs(width * image.height - height * image.width) > max(image.width, image.height, width, height):
        raise AutolabelError(
            f"mask must be for {image.width}x{image.height} px, got {width}x{height}; the task shows another image"
        )
    scaled = cv2.resize(pixels.astype(np.uint8), (image.width, image.height), interpolation=cv2.INTER_NEAREST)
    return Mask.encode(scaled.astype(np.bool_))
