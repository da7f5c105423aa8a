"""Put a surface, distractors, defects and a camera together: one seed, one photograph with exact ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.generator import camera
from training.generator.defects import Mask, Scenery
from training.generator.editions import TRAINED, Edition
from training.generator.surfaces import SURFACES, Canvas
from training.seeds import split_of

Window = tuple[int, int, int, int]

MIN_CONTRAST = 0.045
"""A defect that changed its mask by less than this (mean absolute, 0..1) is taken back: nobody could see it."""
MIN_AREA_PX = 12

_COUNTS = (1, 2, 3, 4, 5, 6)
_COUNT_WEIGHTS = (0.24, 0.26, 0.22, 0.15, 0.08, 0.05)


@dataclass(frozen=True, slots=True)
class Instance:
    """One defect: class name and exact mask, bool ``(H, W)``."""

    label: str
    mask: Mask

    def box_xyxy(self) -> tuple[int, int, int, int]:
        """Tight box in px, half-open: ``x_max`` and ``y_max`` lie one past the last pixel."""
        return box_of(self.mask)


@dataclass(frozen=True, slots=True)
class Scene:
    """A finished photograph, uint8 RGB ``(H, W, 3)``, its defects, and windows of things that are none."""

    seed: int
    surface: str
    image: NDArray[np.uint8]
    instances: tuple[Instance, ...]
    distractors: tuple[tuple[str, Window], ...]


def box_of(mask: Mask) -> Window:
    """Tight half-open box ``(x_min, y_min, x_max, y_max)`` px of a mask that is not empty."""
    cols, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1


def generate(
    seed: int,
    size_wh: tuple[int, int],
    surface: str | None = None,
    defects: int | None = None,
    edition: Edition = TRAINED,
) -> Scene:
    """Make the photograph of ``seed`` at ``size_wh`` px.

    The surface is drawn from the training surfaces (test seeds: from all of them) unless named; the number of
    defects is drawn too (one picture in eight is clean) unless given.
    """
    rng = np.random.default_rng([seed, size_wh[0], size_wh[1]])
    width, height = size_wh
    pool = list(edition.surfaces)
    if split_of(seed) not in ("train", "validation"):
        pool += list(edition.held_out)
    drawn = str(rng.choice(pool))
    name = surface or drawn
    canvas = SURFACES[name](rng, height, width)
    light_rad = float(rng.uniform(0, 2 * np.pi))
    windows = _add_distractors(rng, canvas, light_rad, edition)
    count = int(rng.choice(_COUNTS, p=_COUNT_WEIGHTS)) if rng.random() >= 0.125 else 0
    scenery = Scenery(light_rad, name, edition.fine)
    instances = _add_defects(rng, canvas, scenery, count if defects is None else defects, edition)
    if edition.perspective and rng.random() < edition.perspective:
        canvas, instances, windows = _at_an_angle(rng, canvas, instances, windows)
    image = camera.expose(rng, camera.light(rng, canvas), sharp=edition.fine)
    return Scene(seed, name, image, instances, windows)


def _add_distractors(
    rng: np.random.Generator, canvas: Canvas, light_rad: float, edition: Edition
) -> tuple[tuple[str, Window], ...]:
    found = []
    for _ in range(int(rng.choice([0, 1, 2, 3, 4], p=[0.25, 0.3, 0.22, 0.15, 0.08]))):
        kind = str(rng.choice(list(edition.distractors)))
        copies = int(rng.integers(1, 4)) if kind == "screw" else 1
        for _ in range(copies):
            window = edition.distractors[kind](rng, canvas, light_rad)
            if window is not None and window[2] - window[0] > 3 and window[3] - window[1] > 3:
                found.append((kind, window))
    return tuple(found)


def _add_defects(
    rng: np.random.Generator, canvas: Canvas, scenery: Scenery, count: int, edition: Edition
) -> tuple[Instance, ...]:
    weights = np.array([edition.weights.get(name, 1.0) for name in edition.classes])
    taken = np.zeros(canvas.shape[:2], bool)
    instances: list[Instance] = []
    favourite = str(rng.choice(edition.classes, p=weights / weights.sum()))
    for _ in range(4 * count):
        if len(instances) == count:
            break
        label = favourite if rng.random() < 0.3 else str(rng.choice(edition.classes, p=weights / weights.sum()))
        before = canvas.copy()
        mask = edition.defects[label](rng, canvas, scenery)
        if mask is None or not _is_visible(before, canvas, mask) or _crowds(mask, taken):
            canvas[:] = before
            continue
        taken |= mask
        instances.append(Instance(label, mask))
    return tuple(instances)


def _at_an_angle(
    rng: np.random.Generator, canvas: Canvas, instances: tuple[Instance, ...], windows: tuple[tuple[str, Window], ...]
) -> tuple[Canvas, tuple[Instance, ...], tuple[tuple[str, Window], ...]]:
    """Look at the scene obliquely: a quadrilateral inside it fills the picture; what is cut to a third is dropped."""
    height, width = canvas.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    inwards = rng.uniform(0, 0.14, (4, 2)) * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * (width, height)
    view = cv2.getPerspectiveTransform((corners + inwards).astype(np.float32), corners)
    turned = np.asarray(cv2.warpPerspective(canvas, view, (width, height), flags=cv2.INTER_CUBIC), np.float32)
    kept = []
    for instance in instances:
        soft = cv2.warpPerspective(instance.mask.astype(np.float32), view, (width, height))
        mask = soft >= 0.5
        if mask.sum() >= max(MIN_AREA_PX, 0.5 * instance.mask.sum()):
            kept.append(Instance(instance.label, mask))
        elif soft.any():  # partly out of view: it would be neither a defect nor clean
            return canvas, instances, windows
    moved = []
    for kind, (x0, y0, x1, y1) in windows:
        points = np.array([[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]], np.float32)
        seen = cv2.perspectiveTransform(points, view)[0]
        low, high = np.maximum(seen.min(axis=0), 0), np.minimum(seen.max(axis=0), (width, height))
        if (high - low).min() > 3:
            moved.append((kind, (int(low[0]), int(low[1]), int(high[0]), int(high[1]))))
    return turned, tuple(kept), tuple(moved)


def _is_visible(before: Canvas, after: Canvas, mask: Mask) -> bool:
    if int(mask.sum()) < MIN_AREA_PX:
        return False
    change = np.clip(after[mask], 0, 1) - np.clip(before[mask], 0, 1)
    return float(np.abs(change).mean()) >= MIN_CONTRAST


def _crowds(mask: Mask, taken: Mask) -> bool:
    """Tell whether the new mask runs into older ones, or its box is nearly filled by them."""
    if not taken.any():
        return False
    x0, y0, x1, y1 = box_of(mask)
    overlap = (mask & taken).sum() / mask.sum()
    return bool(overlap > 0.02 or taken[y0:y1, x0:x1].mean() > 0.3)
