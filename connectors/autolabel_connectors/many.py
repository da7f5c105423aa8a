"""Many masks at once: where they lie, their pixels, and their runs row by row.

A mask of a few thousand pixels is a few microseconds of work, and some fifty calls of numpy that each cost as much. So
all masks of a batch are laid out behind each other, and each call is made once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from autolabel.errors import AutolabelError
from autolabel.runlengths import Bools, Ints
from autolabel.types import Mask

_CHUNK_PX = 2**18
"""Pixels of crops that are held at a time, but for one crop that is larger."""


@dataclass(frozen=True, slots=True)
class Crops:
    """Pixels of some masks, each cut to its box, behind each other; column by column, as COCO counts.

    Of the masks from ``first`` on: ``boxes_xyxy`` ``(N, 4)`` px, ``widths`` ``(N,)`` of their images in px, and
    ``offsets`` ``(N + 1,)`` into ``pixels``.
    """

    first: int
    boxes_xyxy: Ints
    widths: Ints
    pixels: Bools
    offsets: Ints

    def crop(self, place: int) -> Bools:
        """Return the pixels ``(h, w)`` inside the box of the mask at ``place`` of these."""
        x0, y0, x1, y1 = self.boxes_xyxy[place].tolist()
        columns = self.pixels[self.offsets[place] : self.offsets[place + 1]].reshape(x1 - x0, y1 - y0)
        return columns.T

    def row_runs(self) -> tuple[Ints, Ints, Ints]:
        """Return starts and ends of runs, row by row in flat pixels of the image, and how many each mask has ``(N,)``.

        Runs that meet over a line's end are one.
        """
        x0, y0, x1, y1 = self.boxes_xyxy.T
        pitch = x1 - x0 + 1  # an unset pixel before each row keeps rows apart
        places = np.concatenate([[0], np.cumsum((y1 - y0) * pitch)])
        rows = np.zeros(int(places[-1]) + 1, np.bool_)
        for place in range(len(pitch)):
            into = rows[places[place] : places[place + 1]].reshape(-1, pitch[place])
            into[:, 1:] = self.crop(place)
        changes = np.flatnonzero(rows[1:] != rows[:-1]) + 1
        of = np.searchsorted(places, changes[0::2], "right") - 1
        line, column = np.divmod(changes[0::2] - places[of], pitch[of])
        starts = (line + y0[of]) * self.widths[of] + column - 1 + x0[of]
        ends = starts + (changes[1::2] - changes[0::2])
        apart = np.ones(len(starts) + 1, np.bool_)
        apart[1:-1] = (starts[1:] != ends[:-1]) | (of[1:] != of[:-1])
        return starts[apart[:-1]], ends[apart[1:]], np.bincount(of[apart[:-1]], minlength=len(pitch))


@dataclass(frozen=True, slots=True)
class ManyMasks:
    """Masks read together: ``boxes_xyxy`` ``(N, 4)`` px around their pixels, all 0 for a mask without any.

    ``canonical`` ``(N,)`` tells whether a mask is in the one form that every mask read back has: no empty runs but the
    first. ``starts`` and ``ends`` are the runs of all, down the columns in flat pixels; ``firsts`` ``(N + 1,)`` says
    where those of each begin.
    """

    heights: Ints
    widths: Ints
    boxes_xyxy: Ints
    canonical: Bools
    starts: Ints
    ends: Ints
    firsts: Ints

    def crops(self) -> Iterator[Crops]:
        """Yield the masks' pixels, so many masks at a time that memory stays small."""
        x0, y0, x1, y1 = self.boxes_xyxy.T
        areas = (x1 - x0) * (y1 - y0)
        total = np.concatenate([[0], np.cumsum(areas)])
        first = 0
        while first < len(areas):
            last = int(np.searchsorted(total, total[first] + _CHUNK_PX, "right")) - 1
            last = max(last, first + 1)
            yield self._filled(first, last, total[first : last + 1] - total[first])
            first = last

    def _filled(self, first: int, last: int, offsets: Ints) -> Crops:
        runs = slice(int(self.firsts[first]), int(self.firsts[last]))
        of = np.repeat(np.arange(first, last), np.diff(self.firsts[first : last + 1]))
        x0, y0, _, y1 = self.boxes_xyxy[of].T
        starts, ends = self.starts[runs], self.ends[runs]
        column = starts // self.heights[of]
        # A run that goes on in the next column makes the box as high as the image, and stays one run in it.
        begin = starts - column * self.heights[of] - y0 + (column - x0) * (y1 - y0) + offsets[of - first]
        bounds = np.zeros(2 * len(starts) + 2, np.int64)
        bounds[1:-1:2], bounds[2:-1:2], bounds[-1] = begin, begin + (ends - starts), offsets[-1]
        values = np.zeros(len(bounds) - 1, np.bool_)
        values[1::2] = True
        pixels = np.repeat(values, np.diff(bounds))
        return Crops(first, self.boxes_xyxy[first:last], self.widths[first:last], pixels, offsets)


def read_masks(masks: Sequence[Mask]) -> ManyMasks:
    """Read masks of any sizes; raises AutolabelError for one whose last count is cut off."""
    heights = np.array([mask.height for mask in masks], np.int64)
    widths = np.array([mask.width for mask in masks], np.int64)
    counts, firsts = _counts(masks)
    numbers = np.diff(firsts)
    local = np.arange(len(counts)) - np.repeat(firsts[:-1], numbers)
    borders = np.cumsum(counts)
    totals = np.concatenate([[0], borders])[firsts]
    borders -= np.repeat(totals[:-1], numbers)
    closing = np.flatnonzero(local % 2 == 1)
    of = np.repeat(np.arange(len(masks)), numbers // 2)
    starts, ends = borders[closing - 1], borders[closing]
    there = ends > starts  # some writers leave empty runs
    starts, ends, of = starts[there], ends[there], of[there]
    empty = np.bincount(np.repeat(np.arange(len(masks)), numbers)[(counts == 0) & (local > 0)], minlength=len(masks))
    canonical = (numbers > 0) & (empty == 0) & (np.diff(totals) == heights * widths)
    run_firsts = np.concatenate([[0], np.cumsum(np.bincount(of, minlength=len(masks)))])
    return ManyMasks(heights, widths, _boxes(starts, ends, run_firsts, heights), canonical, starts, ends, run_firsts)


def _boxes(starts: Ints, ends: Ints, firsts: Ints, heights: Ints) -> Ints:
    boxes = np.zeros((len(heights), 4), np.int64)
    some = np.flatnonzero(np.diff(firsts))
    if not len(some):
        return boxes
    begin, high = firsts[:-1][some], np.repeat(heights, np.diff(firsts))
    column, last_column = starts // high, (ends - 1) // high
    within = column == last_column
    top = np.where(within, starts - column * high, 0)
    bottom = np.where(within, ends - column * high, high)
    boxes[some] = np.stack(
        [
            column[begin],
            np.minimum.reduceat(top, begin),
            last_column[firsts[1:][some] - 1] + 1,
            np.maximum.reduceat(bottom, begin),
        ],
        axis=1,
    )
    return boxes


def _counts(masks: Sequence[Mask]) -> tuple[Ints, Ints]:
    """Read the lengths of all runs, as `autolabel.runlengths.counts_of`, and where each mask's begin ``(N + 1,)``."""
    letters = np.concatenate([[0], np.cumsum([len(mask.counts) for mask in masks], dtype=np.int64)])
    data = np.frombuffer(b"".join(mask.counts for mask in masks), np.uint8).astype(np.int64) - 48
    if not len(data):
        return np.zeros(0, np.int64), np.zeros(len(masks) + 1, np.int64)
    last = (data & 0x20) == 0
    if not last[letters[1:][np.diff(letters) > 0] - 1].all():
        raise AutolabelError("a mask's code ends in the middle of a number; the run is damaged, label the image again")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    shift = 5 * (np.arange(len(data)) - np.repeat(starts, ends - starts + 1))
    values = np.add.reduceat((data & 0x1F) << shift, starts)
    values -= np.where(data[ends] & 0x10, np.int64(1) << (shift[ends] + 5), 0)
    firsts = np.concatenate([[0], np.cumsum(last)])[letters]
    numbers = np.diff(firsts)
    local = np.arange(len(values)) - np.repeat(firsts[:-1], numbers)
    # From the fourth on, counts are differences to the one before the last; the first stands alone.
    later = np.maximum(numbers - 1, 0) // 2
    for which, how_many in ((local % 2 == 1, numbers // 2), ((local % 2 == 0) & (local > 0), later)):
        sums = np.cumsum(values[which])
        before = np.concatenate([[0], sums])[np.cumsum(how_many) - how_many]
        values[which] = sums - np.repeat(before, how_many)
    return values, firsts
