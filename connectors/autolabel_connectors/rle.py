"""Runs of mask pixels, column by column as COCO stores them and row by row as annotation tools do.

All work is done on runs or on the crop that holds pixels, so that a small object in a large photo costs little. A run
is ``[start, end)`` in flat pixel indices of the whole image.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from autolabel.runlengths import Bools, Ints, counts_of, from_runs, line_runs, runs_of
from autolabel.types import Box, Mask


def canonical(mask: Mask) -> Mask:
    """Return the same pixels in the one form that every mask read back has: no empty runs but the first."""
    counts = counts_of(mask)
    if len(counts) and counts[1:].all() and int(counts.sum()) == mask.width * mask.height:
        return mask
    return from_crop(*crop(mask), (mask.width, mask.height))


@lru_cache(maxsize=4)
def crop(mask: Mask) -> tuple[Bools, int, int]:
    """Return the smallest ``(h, w)`` bool crop that holds all pixels, with its left and top px; empty: ``(0, 0)``.

    The crop is shared by all who ask in a row, and must not be written to.
    """
    starts, ends = runs_of(mask)
    if not len(starts):
        return np.zeros((0, 0), np.bool_), 0, 0
    height = mask.height
    left, right = int(starts[0]) // height, (int(ends[-1]) - 1) // height + 1
    block = _fill(starts - left * height, ends - left * height, (right - left) * height)
    columns = block.reshape(right - left, height)
    rows = np.flatnonzero(columns.any(axis=0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    pixels = np.ascontiguousarray(columns[:, top:bottom].T)
    pixels.flags.writeable = False
    return pixels, left, top


def from_crop(pixels: Bools, left: int, top: int, size_wh: tuple[int, int]) -> Mask:
    """Place an ``(h, w)`` bool crop at ``left, top`` px of an image of ``size_wh`` px; it must lie inside."""
    width, height = size_wh
    return from_runs(*line_runs(np.ascontiguousarray(pixels.T), left, top, height), height, width)


def row_runs(mask: Mask) -> tuple[Ints, Ints]:
    """Return the starts and ends of set pixels in row-major order; runs that meet over a line's end are one."""
    pixels, left, top = crop(mask)
    return line_runs(pixels, top, left, mask.width)


def from_row_runs(starts: Ints, ends: Ints, size_wh: tuple[int, int]) -> Mask:
    """Build a mask from sorted, disjoint row-major runs inside an image of ``size_wh`` px."""
    width, height = size_wh
    kept = ends > starts
    starts, ends = starts[kept], ends[kept]
    if not len(starts):
        return from_crop(np.zeros((0, 0), np.bool_), 0, 0, (width, height))
    top, bottom = int(starts[0]) // width, (int(ends[-1]) - 1) // width + 1
    rows = _fill(starts - top * width, ends - top * width, (bottom - top) * width).reshape(bottom - top, width)
    lines, last_lines = starts // width, (ends - 1) // width
    if np.any(lines != last_lines):
        return from_crop(rows, 0, top, size_wh)
    left, right = int((starts - lines * width).min()), int((ends - lines * width).max())
    return from_crop(rows[:, left:right], left, top, size_wh)


def mask_box(mask: Mask) -> Box | None:
    """Return the smallest box around all pixels, or None if there are none."""
    counts = counts_of(mask)
    if counts[1:].all():
        from pycocotools import mask as coco_mask

        x, y, width, height = coco_mask.toBbox(mask.to_coco()).tolist()  # it takes an empty run for a pixel
        return Box(x, y, x + width, y + height) if width and height else None
    pixels, left, top = crop(mask)
    if not pixels.size:
        return None
    return Box(float(left), float(top), float(left + pixels.shape[1]), float(top + pixels.shape[0]))


def union(masks: list[Mask]) -> Mask:
    """Return the pixels that are in any of ``masks``, which must have one size."""
    from pycocotools import mask as coco_mask

    if len(masks) == 1:
        return masks[0]
    merged = coco_mask.merge([mask.to_coco() for mask in masks], intersect=False)
    return Mask(masks[0].height, masks[0].width, bytes(merged["counts"]))


def mask_iou(a: Mask, b: Mask) -> float:
    """Intersection over union of two masks of one size; 1 if both are empty."""
    from pycocotools import mask as coco_mask

    if a.counts == b.counts:
        return 1.0
    return float(coco_mask.iou([a.to_coco()], [b.to_coco()], [0])[0, 0])


def _fill(starts: Ints, ends: Ints, size: int) -> Bools:
    """Expand runs to a flat bool array of ``size``."""
    bounds = np.empty(2 * len(starts) + 2, np.int64)
    bounds[0], bounds[1:-1:2], bounds[2:-1:2], bounds[-1] = 0, starts, ends, size
    values = np.zeros(2 * len(starts) + 1, np.bool_)
    values[1::2] = True
    return np.repeat(values, bounds[1:] - bounds[:-1])
