"""From a decoder's small mask logits to run lengths at an image's size, working only where a mask can be.

Bilinear upsampling mixes four neighbours, so a pixel can be set only next to a logit above 0. On a CPU just that part
of the image is made; on other devices the whole is made there, and only the places where runs begin and end come back.
Pixels are counted column by column, as COCO does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from autolabel.runlengths import from_runs, line_runs
from autolabel.types import Float, Mask

Ints = NDArray[np.int64]
Window = tuple[slice, slice]
"""Rows and columns in px of the image."""

_PIXELS_AT_ONCE = 16_000_000
"""Pixels of one upsampling: bounds its memory however many masks there are."""
_SMALL = 0.2
"""Share of the image up to which a part is made by itself; for larger ones torch's kernel for the whole is quicker."""


def encode_masks(logits: torch.Tensor, size_hw: tuple[int, int], windows: Sequence[Window] | None) -> list[Mask]:
    """Upsample ``(n, h, w)`` logits to the image and cut them at 0; pixels outside of ``windows`` are cleared."""
    if logits.device.type == "cpu":
        places = windows or [(slice(0, size_hw[0]), slice(0, size_hw[1]))] * len(logits)
        return [_encode(each, size_hw, window) for each, window in zip(logits, places, strict=True)]
    at_once = max(1, _PIXELS_AT_ONCE // (size_hw[0] * size_hw[1]))
    masks: list[Mask] = []
    for start in range(0, len(logits), at_once):
        part = slice(start, start + at_once)
        masks += encode_on_device(logits[part], size_hw, None if windows is None else windows[part])
    return masks


def encode_on_device(logits: torch.Tensor, size_hw: tuple[int, int], windows: Sequence[Window] | None) -> list[Mask]:
    """Do the same wherever the logits are, all masks at once."""
    height, width = size_hw
    columns = logits.float().transpose(-1, -2)[:, None]
    pixels = F.interpolate(columns, (width, height), mode="bilinear", align_corners=False)[:, 0] > 0
    if windows is not None:
        allowed = np.zeros((len(windows), width + height), np.bool_)
        for row, (ys, xs) in zip(allowed, windows, strict=True):
            row[:width][xs] = row[width:][ys] = True
        there = torch.from_numpy(allowed).to(pixels.device, non_blocking=True)
        pixels &= there[:, :width, None] & there[:, None, width:]
    bounded = F.pad(pixels.flatten(1), (1, 1))
    changes: Ints = torch.nonzero(bounded[:, 1:] != bounded[:, :-1]).cpu().numpy()
    parts = np.split(changes[:, 1], np.searchsorted(changes[:, 0], np.arange(1, len(logits))))
    return [from_runs(part[0::2], part[1::2], height, width) for part in parts]


def _encode(logits: torch.Tensor, size_hw: tuple[int, int], window: Window) -> Mask:
    values: Float = logits.float().numpy()
    place = reach(values, size_hw, window)
    if place is None:
        nothing = np.zeros(0, np.int64)
        return from_runs(nothing, nothing, *size_hw)
    (top, bottom), (left, right) = place
    if (bottom - top) * (right - left) <= _SMALL * size_hw[0] * size_hw[1]:
        pixels = upsample_part(values, size_hw, place)
    else:
        full = F.interpolate(logits.float()[None, None], size_hw, mode="bilinear", align_corners=False)[0, 0]
        pixels = full[top:bottom, left:right].numpy()
    starts, ends = line_runs((pixels > 0).T, left, top, size_hw[0])
    return from_runs(starts, ends, *size_hw)


def reach(logits: Float, size_hw: tuple[int, int], window: Window) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Rows and columns of the image, half-open, in which a mask of these ``(h, w)`` logits can have pixels."""
    positive = logits > 0
    spans = []
    for axis, allowed in enumerate(window):
        used = np.flatnonzero(positive.any(axis=1 - axis))
        if not len(used):
            return None
        first, last = int(used[0]), int(used[-1])
        scale = size_hw[axis] / logits.shape[axis]
        low, high = int((first - 1) * scale), int(np.ceil((last + 2) * scale))
        low, high = max(low, 0, allowed.start), min(high, size_hw[axis], allowed.stop)
        if low >= high:
            return None
        spans.append((low, high))
    return spans[0], spans[1]


def upsample_part(logits: Float, size_hw: tuple[int, int], place: tuple[tuple[int, int], tuple[int, int]]) -> Float:
    """Rows and columns ``place`` of what ``interpolate(…, mode="bilinear")`` makes of ``(h, w)`` logits."""
    (top, bottom), (left, right) = place
    low_y, high_y, share_y = (each[top:bottom] for each in _neighbours(logits.shape[0], size_hw[0]))
    low_x, high_x, share_x = (each[left:right] for each in _neighbours(logits.shape[1], size_hw[1]))
    first, last = int(low_y[0]), int(high_y[-1]) + 1
    rows = logits[first:last]
    across = rows[:, low_x] * (1 - share_x) + rows[:, high_x] * share_x
    part: Float = across[low_y - first] * (1 - share_y)[:, None] + across[high_y - first] * share_y[:, None]
    return part


@lru_cache(maxsize=64)
def _neighbours(small: int, large: int) -> tuple[Ints, Ints, Float]:
    """For each of ``large`` places: its two neighbours of ``small``, and the weight of the second, in float32."""
    source = (np.arange(large, dtype=np.float32) + np.float32(0.5)) * np.float32(small / large) - np.float32(0.5)
    source = np.maximum(source, np.float32(0))
    low = np.minimum(source.astype(np.int64), small - 1)
    return low, np.minimum(low + 1, small - 1), (source - low.astype(np.float32)).astype(np.float32)
