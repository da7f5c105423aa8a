"""Errors made on purpose: copies of the labels with swapped, shifted, dropped and invented boxes.

The labels themselves are mostly right, so what tells a planted error from a label tells a real error too. The weights
of that comparison are fitted on other images than they judge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autolabel.quality.material import Labels, Pictures
from autolabel.quality.ragged import Flags, Ints, Reals
from autolabel.types import Float

RATE = 0.1
SWAPPED, SHIFTED, INVENTED, DROPPED = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Planted:
    """Labels with planted errors: ``kind`` ``(N,)`` of each (0 as it was), and the row it was made from (-1: none).

    ``dropped`` are the rows that are missing.
    """

    labels: Labels
    kind: Ints
    origin: Ints
    dropped: Ints


def plant(labels: Labels, pictures: Pictures, classes: int, rng: np.random.Generator, rate: float = RATE) -> Planted:
    """Swap, shift, drop and invent ``rate`` of the labels each; crowds stay as they are."""
    count = len(labels)
    fate = rng.choice([0, SWAPPED, SHIFTED, DROPPED], count, p=[1 - 3 * rate, rate, rate, rate])
    fate[labels.crowd | ((fate == SWAPPED) & (classes < 2))] = 0
    boxes, label = labels.boxes_xyxy.copy(), labels.label.copy()
    swapped, shifted = np.flatnonzero(fate == SWAPPED), np.flatnonzero(fate == SHIFTED)
    label[swapped] = _other_classes(labels.label, label[swapped], classes, rng)
    boxes[shifted] = shift(boxes[shifted], pictures.sizes_wh[labels.image[shifted]], rng)
    kept = np.flatnonzero(fate != DROPPED)
    model = rng.choice(count, round(rate * count)) if count else np.zeros(0, np.int64)
    where = rng.integers(0, len(pictures), len(model)) if count else model
    invented = invent(labels.boxes_xyxy[model], pictures.sizes_wh[labels.image[model]], pictures.sizes_wh[where], rng)
    image = np.concatenate([labels.image[kept], where])
    order = np.argsort(image, kind="stable")
    crowd = np.concatenate([labels.crowd[kept], np.zeros(len(model), np.bool_)])[order]
    made = Labels(
        image[order],
        np.concatenate([boxes[kept], invented])[order],
        np.concatenate([label[kept], labels.label[model]])[order],
        (),
        np.zeros(len(order), np.bool_),
        crowd,
    )
    kind = np.concatenate([fate[kept], np.full(len(model), INVENTED)])[order]
    origin = np.concatenate([kept, np.full(len(model), -1)])[order]
    return Planted(made, kind, origin, np.flatnonzero(fate == DROPPED))


def shift(boxes_xyxy: Float, sizes_wh: Float, rng: np.random.Generator) -> Reals:
    """Move and resize boxes ``(N, 4)`` px so that their IoU with where they were is about 0.2 to 0.7."""
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    angle = rng.uniform(0, 2 * np.pi, len(boxes_xyxy))
    distance = rng.uniform(0.15, 0.6, len(boxes_xyxy))
    move = np.stack([np.cos(angle), np.sin(angle)], 1) * distance[:, None] * sides
    grow = np.exp(rng.uniform(-0.35, 0.35, sides.shape))
    centre = boxes_xyxy[:, :2] + sides / 2 + move
    return _inside(centre, sides * grow, sizes_wh)


def invent(boxes_xyxy: Float, sizes_wh: Float, new_sizes_wh: Float, rng: np.random.Generator) -> Reals:
    """Put boxes of the same share of an image at random places of other images, wholly inside."""
    sides = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) / np.maximum(sizes_wh, 1) * new_sizes_wh
    corner = rng.uniform(0, 1, sides.shape) * np.maximum(new_sizes_wh - sides, 0)
    return _inside(corner + sides / 2, sides, new_sizes_wh)


def _inside(centre: Reals, sides: Reals, sizes_wh: Float) -> Reals:
    low = np.clip(centre - sides / 2, 0, np.maximum(sizes_wh - 1, 0))
    high = np.clip(centre + sides / 2, low + 1, np.maximum(sizes_wh, low + 1))
    return np.concatenate([low, high], axis=1).astype(np.float32)


def _other_classes(all_labels: Ints, labels: Ints, classes: int, rng: np.random.Generator) -> Ints:
    """Another class for each: half the time one that is common here, else any."""
    common = rng.choice(all_labels, len(labels)) if len(all_labels) else labels
    uniform = rng.integers(0, max(classes, 1), len(labels))
    drawn = np.where(rng.random(len(labels)) < 0.5, common, uniform)
    clash: Flags = (drawn == labels) | (drawn < 0)
    return np.where(clash, (labels + 1 + uniform % max(classes - 1, 1)) % max(classes, 1), drawn)
