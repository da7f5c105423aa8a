"""Batches for the segmenter: square pictures, jittered boxes, exact masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.dataset import BUCKETS, SceneStore, draw_store
from training.detector_data import recolour
from training.generator import CLASS_NAMES, box_of

THIN: Final = ("scratch", "crack")
IN_PARTS: Final = (*THIN, "burr")
SHAPED: Final = ("dent", "blister", "missing screw", "burr")
"""Defects whose outline the box does not give away, and which were learnt least."""
WEIGHTS: Final = {**dict.fromkeys(THIN, 1.5), **dict.fromkeys(SHAPED, 2.0)}
"""How much more often a window lies round such a defect than round another of the same picture."""
CLOSE: Final = 0.85
"""How often a picture is cut round a defect and not shown whole."""
PARTS_SHARE: Final = 0.6
"""How often a window round such a defect shows a part of it: long, thin masks are made again in parts (ADR 20)."""
PART_PX: Final = (20.0, 110.0)
CENTRED: Final = 0.5
"""How often a window lies round the middle of its defect, as the product's do that hold no other box."""
LEAST_WINDOW_PX: Final = (110.0, 300.0)
LEAST_PART_WINDOW_PX: Final = (56.0, 160.0)


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures ``(B, 3, S, S)`` uint8; per box its ``owner``, px ``(N, 4)``, ``masks`` ``(N, S, S)`` and class."""

    pixels: Tensor
    owner: Tensor
    boxes: Tensor
    masks: Tensor
    labels: Tensor


def jitter(rng: np.random.Generator, box: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Move each edge by up to a tenth of the box (and a pixel), as a detector's boxes are off; half stay close."""
    reach = 0.1 if rng.random() < 0.5 else 0.03
    extent = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    moved = box + rng.uniform(-1, 1, 4) * (reach * extent + 1.0)
    return np.clip(moved, 0, size).astype(np.float32)


@dataclass(frozen=True, slots=True)
class SegmenterBatches:
    """Makes batches of square pictures; ``sizes`` as for the detector, but of px of the square."""

    sizes: tuple[tuple[float, int, int], ...]

    def __call__(self, rng: np.random.Generator, progress: float) -> Batch:
        """Make a batch of the size that suits ``progress`` (0 to 1)."""
        size, pictures = next((size, count) for until, size, count in self.sizes if progress <= until)
        stores = _stores()
        store = draw_store(rng, stores)
        finished = store.finished()
        pixels: list[NDArray[np.uint8]] = []
        owner, boxes, masks, labels = [], [], [], []
        while len(pixels) < pictures:
            made = _one(rng, store, int(rng.choice(finished)), size)
            if made is None:
                continue
            image, found = made
            for box, mask, label in found:
                owner.append(len(pixels))
                boxes.append(box)
                masks.append(mask)
                labels.append(label)
            pixels.append(image)
        return Batch(
            torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(),
            torch.tensor(owner),
            torch.from_numpy(np.stack(boxes)),
            torch.from_numpy(np.stack(masks)),
            torch.tensor(labels),
        )


@cache
def _stores() -> list[SceneStore]:
    return [SceneStore(bucket) for bucket in BUCKETS]


def window(
    rng: np.random.Generator,
    size_wh: tuple[int, int],
    box: tuple[int, int, int, int],
    least_px: tuple[float, float] = LEAST_WINDOW_PX,
) -> tuple[int, int, int, int]:
    """Random part of a picture that holds ``box``, as the product cuts them.

    Mostly 1.4 to 2.3 times the longer side of the box and never less than the product's least window, which is 110 px
    or more once its photograph is as small as the stored pictures.
    """
    aspect = float(np.exp(rng.uniform(-0.2, 0.2)))
    least = float(np.exp(rng.uniform(*np.log(least_px))))
    side = max(max(box[2] - box[0], box[3] - box[1]) * float(rng.uniform(1.4, 2.3)), least)
    centred = bool(rng.random() < CENTRED)
    spans = []
    for low, high, extent, wanted in (
        (box[0], box[2], size_wh[0], side * aspect**0.5),
        (box[1], box[3], size_wh[1], side / aspect**0.5),
    ):
        length = int(min(extent, max(wanted, high - low + 2)))
        first, last = sorted((max(0, high - length), min(low, extent - length)))
        anywhere = int(rng.integers(first, last + 1))
        start = int(np.clip((low + high - length) // 2, first, last)) if centred else anywhere
        spans.append((start, start + length))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def part_of(rng: np.random.Generator, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep what a random rectangle round one of the mask's pixels holds of it, ``(H, W)``."""
    rows, columns = np.nonzero(mask)
    centre = int(rng.integers(len(rows)))
    side = float(np.exp(rng.uniform(*np.log(PART_PX))))
    half = 0.5 * side * np.exp(rng.uniform(-0.4, 0.4) * np.array([1.0, -1.0]))
    kept = np.zeros_like(mask)
    top, left = (max(0, int(at - reach)) for at, reach in zip((rows[centre], columns[centre]), half, strict=True))
    bottom, right = int(rows[centre] + half[0]) + 1, int(columns[centre] + half[1]) + 1
    kept[top:bottom, left:right] = mask[top:bottom, left:right]
    return kept


def _one(
    rng: np.random.Generator, store: SceneStore, index: int, size: int
) -> tuple[NDArray[np.uint8], list[tuple[NDArray[np.float32], NDArray[np.bool_], int]]] | None:
    """Cut a picture round one of its defects, some kinds more often than others; now and then leave it whole."""
    labels = [int(label) for label in store.labels[index] if label >= 0]
    if not labels:
        return None
    ids = np.asarray(store.ids[index])
    x0, y0, x1, y1 = 0, 0, store.bucket.width, store.bucket.height
    if rng.random() < CLOSE:
        weights = np.array([WEIGHTS.get(CLASS_NAMES[label], 1.0) for label in labels])
        number = int(rng.choice(len(labels), p=weights / weights.sum()))
        chosen, least_px = ids == number + 1, LEAST_WINDOW_PX
        if chosen.sum() < 15:
            return None
        if CLASS_NAMES[labels[number]] in IN_PARTS and rng.random() < PARTS_SHARE:
            chosen, least_px = part_of(rng, chosen), LEAST_PART_WINDOW_PX
            if chosen.sum() < 8:
                return None
            ids = np.where(chosen, number + 1, np.where(ids == number + 1, 0, ids))
        x0, y0, x1, y1 = window(rng, (x1, y1), box_of(chosen), least_px)
    shrink = cv2.INTER_AREA if x1 - x0 > size else cv2.INTER_CUBIC
    image = cv2.resize(store.images[index, y0:y1, x0:x1], (size, size), interpolation=shrink)
    part = ids[y0:y1, x0:x1]
    flips = [bool(rng.random() < 0.5) for _ in range(3)]
    found = []
    for i, label in enumerate(labels):
        mine = (part == i + 1).astype(np.float32)
        if mine.sum() < 8 or mine.sum() < 0.5 * (ids == i + 1).sum():
            continue
        mask = cv2.resize(mine, (size, size), interpolation=cv2.INTER_LINEAR) >= 0.5
        if mask.sum() < 20:
            continue
        turned = np.ascontiguousarray(_turn(mask, flips))
        found.append((jitter(rng, np.asarray(box_of(turned), np.float32), size), turned, label))
    if not found:
        return None
    return recolour(rng, np.ascontiguousarray(_turn(image, flips))), found


def _turn(array: NDArray[np.generic], flips: list[bool]) -> NDArray[np.generic]:
    """Mirror and transpose the first two axes."""
    if flips[0]:
        array = array[:, ::-1]
    if flips[1]:
        array = array[::-1]
    return array.swapaxes(0, 1) if flips[2] else array
