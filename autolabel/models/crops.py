"""Cutting regions out of an image for a classifier: with context, whole even for a 1-px box, square if wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageFilter

from autolabel.types import RGB, Mask

Background = Literal["keep", "blur", "grey"]
Square = Literal["expand", "pad", "off"]
BACKGROUNDS: tuple[Background, ...] = ("keep", "blur", "grey")
SQUARES: tuple[Square, ...] = ("expand", "pad", "off")


@dataclass(frozen=True, slots=True)
class CropStyle:
    """How regions are cut.

    ``context``: margin on every side, as a share of the box's longer side. ``square``: ``expand`` takes in more of
    the image until the crop is square (and fills what lies outside the image), ``pad`` fills the shorter sides,
    ``off`` leaves the box's shape. ``background``: what happens to pixels outside the mask, where there is one.
    ``fill`` is the colour outside the image, 0–255 RGB.
    """

    context: float
    square: Square
    background: Background
    fill: tuple[int, int, int]


def crop_window(box_xyxy: NDArray[np.float32], context: float, square: bool) -> tuple[int, int, int, int]:
    """Whole-px window ``(left, top, right, bottom)`` around a box, at least 1 px each way; may leave the image."""
    x_min, y_min, x_max, y_max = (float(v) for v in box_xyxy)
    margin = context * max(x_max - x_min, y_max - y_min)
    left, top = int(np.floor(x_min - margin)), int(np.floor(y_min - margin))
    right, bottom = max(left + 1, int(np.ceil(x_max + margin))), max(top + 1, int(np.ceil(y_max + margin)))
    if square:
        width, height = right - left, bottom - top
        side = max(width, height)
        left, top = left - (side - width) // 2, top - (side - height) // 2
        right, bottom = left + side, top + side
    return left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a crop comes from and what it becomes: the part of the image, the canvas, and the part's place on it."""

    inside: tuple[int, int, int, int]
    canvas_wh: tuple[int, int]
    offset: tuple[int, int]


def plan_cut(box_xyxy: NDArray[np.float32], size_wh: tuple[int, int], style: CropStyle) -> Cut:
    """Plan how a region is cut out of an image of ``size_wh`` px."""
    window = crop_window(box_xyxy, style.context, style.square == "expand")
    inside = _inside(window, *size_wh)
    width, height = inside[2] - inside[0], inside[3] - inside[1]
    if style.square == "off":
        return Cut(inside, (width, height), (0, 0))
    if style.square == "pad":
        side = max(width, height)
        return Cut(inside, (side, side), ((side - width) // 2, (side - height) // 2))
    side = window[2] - window[0]
    return Cut(inside, (side, side), (inside[0] - window[0], inside[1] - window[1]))


def crop(image: RGB, box_xyxy: NDArray[np.float32], style: CropStyle, mask: NDArray[np.bool_] | None) -> PILImage.Image:
    """Cut one region out of an ``(H, W, 3)`` image as an RGB PIL image."""
    cut = plan_cut(box_xyxy, (image.shape[1], image.shape[0]), style)
    left, top, right, bottom = cut.inside
    patch = image[top:bottom, left:right]
    if mask is not None and style.background != "keep":
        patch = _hide(patch, mask[top:bottom, left:right], style)
    part = PILImage.fromarray(np.ascontiguousarray(patch))
    if cut.canvas_wh == part.size:
        return part
    canvas = PILImage.new("RGB", cut.canvas_wh, style.fill)
    canvas.paste(part, cut.offset)
    return canvas


def _inside(window: tuple[int, int, int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """Part of the window inside the image, never empty: a box on the very edge keeps the nearest pixel."""
    left, top = min(max(window[0], 0), width - 1), min(max(window[1], 0), height - 1)
    return left, top, max(left + 1, min(window[2], width)), max(top + 1, min(window[3], height))


def _hide(patch: RGB, mask: NDArray[np.bool_], style: CropStyle) -> RGB:
    if not mask.any():
        # A segmenter may find nothing in a box; hiding everything would leave nothing to classify.
        return patch
    if style.background == "grey":
        hidden: RGB = np.broadcast_to(np.array(style.fill, np.uint8), patch.shape)
    else:
        radius = max(2.0, max(patch.shape[:2]) / 16)
        blurred = PILImage.fromarray(np.ascontiguousarray(patch)).filter(ImageFilter.GaussianBlur(radius))
        hidden = np.asarray(blurred)
    shown: RGB = np.where(mask[..., None], patch, hidden).astype(np.uint8)
    return shown


def region_crop(image: RGB, box_xyxy: NDArray[np.float32], mask: Mask | None, style: CropStyle) -> PILImage.Image:
    """Cut one region; its mask is decoded only if the style hides the background."""
    pixels = mask.decode() if mask is not None and style.background != "keep" else None
    return crop(image, box_xyxy, style, pixels)
