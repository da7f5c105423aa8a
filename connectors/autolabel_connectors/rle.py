"""Runs of mask pixels, column by column as COCO stores them and row by row as annotation tools do.

All work is done on runs or on the crop that holds pixels, so that a small object in a large photo costs little. A run
is ``[start, end)`` in flat pixel indices of the whole image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autolabel.types import Box, Mask

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def column_runs(mask: Mask) -> tuple[Ints, Ints]:
    """Return the starts and ends of set pixels in column-major order, read from the compressed counts."""
    code = np.frombuffer(mask.counts, np.uint8).astype(np.int64) - 48
    if not len(code):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    last = (code & 32) == 0
    number = np.concatenate([[0], np.cumsum(last)[:-1]])
    first = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    digit = np.arange(len(code)) - first[number]
    counts = np.zeros(int(number[-1]) + 1, np.int64)
    np.add.at(counts, number, (code & 31) << (5 * digit))
    negative = last & ((code & 16) != 0)
    counts[number[negative]] -= np.int64(1) << (5 * (digit[negative] + 1))
    # From the third on, a count is stored as its difference to the last one of its kind.
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    bounds = np.cumsum(counts)
    ends = bounds[1::2]
    starts = bounds[0::2][: len(ends)]
    kept = ends > starts
    return starts[kept], ends[kept]


def crop(mask: Mask) -> tuple[Bools, int, int]:
    """Return the smallest ``(h, w)`` bool crop that holds all pixels, with its left and top px; empty: ``(0, 0)``."""
    starts, ends = column_runs(mask)
    if not len(starts):
        return np.zeros((0, 0), np.bool_), 0, 0
    height = mask.height
    left, right = int(starts[0]) // height, (int(ends[-1]) - 1) // height + 1
    block = _fill(starts - left * height, ends - left * height, (right - left) * height)
    columns = block.reshape(right - left, height)
    rows = np.flatnonzero(columns.any(axis=0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return np.ascontiguousarray(columns[:, top:bottom].T), left, top


def from_crop(pixels: Bools, left: int, top: int, size_wh: tuple[int, int]) -> Mask:
    """Place an ``(h, w)`` bool crop at ``left, top`` px of an image of ``size_wh`` px; it must lie inside."""
    width, height = size_wh
    starts, ends = _row_runs(np.ascontiguousarray(pixels.T), top, left, height)
    bounds = np.empty(2 * len(starts) + 2, np.int64)
    bounds[0], bounds[1:-1:2], bounds[2:-1:2], bounds[-1] = 0, starts, ends, width * height
    counts = np.diff(bounds)
    if counts[-1] == 0:  # pycocotools writes no empty run at the end, and equal masks must have equal counts
        counts = counts[:-1]
    return Mask(height, width, _compress(counts))


def row_runs(mask: Mask) -> tuple[Ints, Ints]:
    """Return the starts and ends of set pixels in row-major order; runs that meet over a line's end are one."""
    pixels, left, top = crop(mask)
    return _row_runs(pixels, left, top, mask.width)


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
    values = np.arange(2 * len(starts) + 1) % 2 == 1
    return np.repeat(values, np.diff(bounds))


def _row_runs(pixels: Bools, left: int, top: int, width: int) -> tuple[Ints, Ints]:
    """Find the runs of a crop at ``left, top`` in an image ``width`` px wide; runs that meet are one."""
    if not pixels.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    padded = np.zeros((pixels.shape[0], pixels.shape[1] + 2), np.bool_)
    padded[:, 1:-1] = pixels
    changes = np.flatnonzero(padded[:, 1:] != padded[:, :-1])
    row, column = np.divmod(changes, pixels.shape[1] + 1)
    flat = (row + top) * width + column + left
    starts, ends = flat[0::2], flat[1::2]
    apart = starts[1:] != ends[:-1]
    return starts[np.concatenate([[True], apart])], ends[np.concatenate([apart, [True]])]


def _compress(counts: Ints) -> bytes:
    """Write counts as COCO's compressed string: differences from the third on, five bits to a letter."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    letters = np.zeros((len(values), 8), np.uint8)
    used = np.zeros((len(values), 8), np.bool_)
    going = np.ones(len(values), np.bool_)
    for digit in range(8):
        low = values & 31
        values = values >> 5
        more = np.where((low & 16) != 0, values != -1, values != 0)
        letters[:, digit] = low + 32 * more + 48
        used[:, digit] = going
        going &= more
    return letters[used].tobytes()
