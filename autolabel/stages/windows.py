"""Masks of large images are made in windows round their boxes; those of thin things once more, in closer ones.

A segmenter makes coarse masks of what it is shown (SAM 2's has a cell for four px of its input), so a scratch of two
pixels breaks up in a mask of a whole photograph, and in one of a long box too. Windows are ``(left, top, right,
bottom)`` in whole px of the image, half-open.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from autolabel.geometry import mask_boxes
from autolabel.runlengths import crop_of, runs_of
from autolabel.stages.tiles import Tiles, Window, chunks, cut
from autolabel.types import RGB, Float, Mask, Segments

WINDOW_ZOOM: Final = 2.0
"""Side of a window in longer sides of its box."""
THIN: Final = 0.05
"""A mask with a smaller area than this share of a square with its length is of something thin."""
_SPLIT: Final = 0.75
"""A thin mask is looked at in two parts along each side of its box that is longer than this many least windows."""
_OVERLAP: Final = 0.25
"""What a part has of its neighbour, as a share of its own side, and two px more."""
_LEAST_AREA_PX: Final = 4
"""A part with less of the mask prompts nothing."""


def segment_in_views(
    model: Any, images: Sequence[RGB], boxes_xyxy: Sequence[Float], tiles: Tiles
) -> Sequence[Segments]:
    """Segment boxes; in large images in windows round them, so that a thin mask keeps its resolution.

    A segmenter may ask for windows smaller than its input, ``window_px``, and tighter ones, ``window_zoom``.
    """
    least_px: int | None = getattr(model, "window_px", None) or getattr(model, "input_px", None)
    zoom = float(getattr(model, "window_zoom", None) or WINDOW_ZOOM)
    sizes_wh = [(image.shape[1], image.shape[0]) for image in images]
    whole = [place for place, size_wh in enumerate(sizes_wh) if not tiles.windows(size_wh, least_px)]
    if len(whole) == len(images) or least_px is None:
        answers: Sequence[Segments] = model.predict_batch(images, boxes_xyxy)
        return answers
    answers = model.predict_batch([images[p] for p in whole], [boxes_xyxy[p] for p in whole]) if whole else []
    results = dict(zip(whole, answers, strict=True))
    for place, (image, boxes) in enumerate(zip(images, boxes_xyxy, strict=True)):
        if place not in results:
            first = _in_windows(model, image, boxes, least_px, zoom)
            results[place] = _look_closer(model, image, first, least_px, zoom)
    return [results[place] for place in range(len(images))]


def _in_windows(model: Any, image: RGB, boxes_xyxy: Float, least_px: int, zoom: float) -> Segments:
    windows, owners = share_windows(boxes_xyxy, (image.shape[1], image.shape[0]), least_px, zoom)
    masks: list[Mask | None] = [None] * len(boxes_xyxy)
    scores = np.zeros(len(boxes_xyxy), np.float32)
    for part in chunks(range(len(windows))):
        mine = [np.flatnonzero(owners == w) for w in part]
        local = [
            boxes_xyxy[rows] - np.array(windows[w][:2] * 2, np.float32) for w, rows in zip(part, mine, strict=True)
        ]
        answered = model.predict_batch([cut(image, windows[w]) for w in part], local)
        for w, rows, segments in zip(part, mine, answered, strict=True):
            scores[rows] = segments.scores
            for row, mask in zip(rows.tolist(), segments.masks, strict=True):
                masks[row] = _placed(mask, windows[w], image.shape[:2])
    return Segments(tuple(mask for mask in masks if mask is not None), scores)


def _look_closer(model: Any, image: RGB, first: Segments, least_px: int, zoom: float) -> Segments:
    """Make the masks of long, thin things again, each in parts that are prompted by what the first one shows there.

    A mask is then all its parts, its score their mean.
    """
    from pycocotools import mask as coco_mask

    parts: list[Float] = []
    owners: list[int] = []
    for row, mask in enumerate(first.masks):
        found = parts_of_thin(mask, least_px)
        parts += found
        owners += [row] * len(found)
    if not parts:
        return first
    second = _in_windows(model, image, np.stack(parts), least_px, zoom)
    masks, scores = list(first.masks), first.scores.copy()
    for row in sorted(set(owners)):
        mine = [place for place, owner in enumerate(owners) if owner == row]
        together = coco_mask.merge([second.masks[place].to_coco() for place in mine])
        if coco_mask.area(together):
            masks[row] = Mask(first.masks[row].height, first.masks[row].width, bytes(together["counts"]))
            scores[row] = second.scores[mine].mean()
    return Segments(tuple(masks), scores)


def parts_of_thin(mask: Mask, least_px: int) -> list[Float]:
    """Boxes ``(4,)`` px round the parts of a mask in the halves of its box, or quarters; none unless long and thin.

    It is long if it fills most of a window: a closer one shows more of it.
    """
    box = mask_boxes([mask])[0]
    if np.isnan(box).any():
        return []
    low = box[:2].astype(int)
    extent = box[2:].astype(int) - low
    if extent.max() <= _SPLIT * least_px or mask.area >= THIN * float(extent.max()) ** 2:
        return []
    x0, y0, x1, y1 = box.astype(int).tolist()
    inside = crop_of(mask, runs_of(mask), (x0, y0, x1, y1))
    columns, rows = (_spans(int(length), 2 if length > _SPLIT * least_px else 1) for length in extent)
    parts: list[Float] = []
    for top, bottom in rows:
        for left, right in columns:
            piece = inside[top:bottom, left:right]
            if np.count_nonzero(piece) < _LEAST_AREA_PX:
                continue
            y, x = np.flatnonzero(piece.any(axis=1)), np.flatnonzero(piece.any(axis=0))
            around = np.array([left + x[0], top + y[0], left + x[-1] + 1, top + y[-1] + 1]) + np.tile(low, 2)
            around += np.array([-1, -1, 1, 1])
            parts.append(np.clip(around, 0, np.tile([mask.width, mask.height], 2)).astype(np.float32))
    return parts


def _spans(length: int, count: int) -> list[tuple[int, int]]:
    """Divide a length into equal spans that reach a little into their neighbours."""
    if count == 1:
        return [(0, length)]
    borders = np.linspace(0, length, count + 1)
    reach = _OVERLAP * length / count + 2
    return [
        (max(0, int(start - reach)), min(length, int(np.ceil(end + reach))))
        for start, end in pairwise(borders.tolist())
    ]


def share_windows(
    boxes_xyxy: Float, size_wh: tuple[int, int], least_px: int, zoom: float = WINDOW_ZOOM
) -> tuple[list[Window], NDArray[np.int64]]:
    """Windows for ``(N, 4)`` px boxes, and the window of each box ``(N,)``.

    A window has ``zoom`` times the longer side of a box, never less than ``least_px`` and never more than the image.
    A box goes into an earlier window that holds it with some margin and is not much larger than its own.
    """
    windows: list[Window] = []
    owners = np.zeros(len(boxes_xyxy), np.int64)
    sides = np.clip(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 1, None).max(axis=1) if len(boxes_xyxy) else np.zeros(0)
    for place in np.argsort(-sides, kind="stable"):
        own = _round_box(boxes_xyxy[place], size_wh, least_px, zoom)
        x0, y0, x1, y1 = boxes_xyxy[place]
        margin = 0.1 * float(sides[place])
        for number, (left, top, right, bottom) in enumerate(windows):
            fits = (
                (left == 0 or left <= x0 - margin)
                and (top == 0 or top <= y0 - margin)
                and (right == size_wh[0] or right >= x1 + margin)
                and (bottom == size_wh[1] or bottom >= y1 + margin)
            )
            if fits and max(right - left, bottom - top) <= 1.6 * max(own[2] - own[0], own[3] - own[1]):
                owners[place] = number
                break
        else:
            owners[place] = len(windows)
            windows.append(own)
    return windows, owners


def _round_box(box_xyxy: Float, size_wh: tuple[int, int], least_px: int, zoom: float) -> Window:
    """Window of a box: ``zoom`` times its longer side, at least ``least_px``, shifted into the image."""
    x0, y0, x1, y1 = (float(v) for v in box_xyxy)
    side = max(zoom * max(x1 - x0, y1 - y0), float(least_px))
    spans = []
    for low, high, extent in ((x0, x1, size_wh[0]), (y0, y1, size_wh[1])):
        length = min(round(side), extent)
        start = int(np.clip(round((low + high - length) / 2), 0, extent - length))
        spans.append((start, start + length))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def _placed(mask: Mask, window: Window, size_hw: tuple[int, ...]) -> Mask:
    """Put a window's mask into the image."""
    left, top, right, bottom = window
    if (right - left, bottom - top) == (size_hw[1], size_hw[0]):
        return mask
    full = np.zeros(size_hw[:2], np.bool_)
    full[top:bottom, left:right] = mask.decode()
    return Mask.encode(full)
