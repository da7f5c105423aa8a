"""Crops for the classifier: square windows round defects, distractors and clean places, of stored and large pictures.

``python -m training.classifier_data`` cuts the crops of natural-size training pictures into the work folder.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from functools import cache
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.classifier_model import CROP_CONTEXT, IMAGE_SIZE, MEAN
from training.dataset import BUCKETS, DISTRACTOR_NAMES, WORK, SceneStore, draw_store
from training.detector_data import recolour
from training.generator import CLASS_NAMES, TRAINED, box_of, generate
from training.natural import natural_size
from training.processes import process_pool
from training.seeds import TRAIN
from training.vocabulary import NAMED_DISTRACTORS, SYNONYMS

WIDE: Final = 0.4
"""Context of a stored crop, wider than any used, so that training can shift and zoom inside it."""
STORED: Final = 176
FILL: Final = tuple(round(255 * channel) for channel in MEAN)
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    **{name: SYNONYMS[name] for name in CLASS_NAMES},
    "nothing": ("nothing", "a clean surface", "background", "no defect", "an undamaged surface", "a shadow"),
    **NAMED_DISTRACTORS,
}
GROUP_NAMES: Final = tuple(GROUPS)
IMAGINED_SHARE: Final = 0.5
"""How many of the natural-size pictures are of a material that does not exist."""
NATURAL_SHARE: Final = 0.4
"""How many crops of a batch are of natural-size pictures, where there are any."""
NATURAL_SEEDS: Final = TRAIN.start + 2_000_000
FOLDER: Final = WORK / f"crops-{TRAINED.name}"
Image = NDArray[np.uint8]
Window = tuple[float, float, float, float]


def cut(image: Image, box: Window, context: float, side: int) -> Image:
    """Square crop of ``side`` px round a box (px xyxy), filled with CLIP's mean colour outside the picture."""
    longer = max(box[2] - box[0], box[3] - box[1], 1.0) * (1 + 2 * context)
    x, y = (box[0] + box[2] - longer) / 2, (box[1] + box[3] - longer) / 2
    x0, y0, x1, y1 = int(np.floor(x)), int(np.floor(y)), int(np.ceil(x + longer)), int(np.ceil(y + longer))
    height, width = image.shape[:2]
    inside = image[max(0, y0) : min(height, y1), max(0, x0) : min(width, x1)]
    canvas = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
    canvas[:] = FILL
    top, left = max(0, -y0), max(0, -x0)
    canvas[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    shrink = canvas.shape[0] > side
    return np.asarray(cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC))


def clean_window(
    rng: np.random.Generator, size_wh: tuple[int, int], taken: list[tuple[int, int, int, int]]
) -> Window | None:
    """Draw a random square that touches no defect, or None after ten tries."""
    width, height = size_wh
    unit = float(np.sqrt(width * height))
    for _ in range(10):
        side = unit * float(np.exp(rng.uniform(np.log(0.06), np.log(0.4))))
        x, y = float(rng.uniform(0, width - side)), float(rng.uniform(0, height - side))
        grown = (x - 0.1 * side, y - 0.1 * side, x + 1.1 * side, y + 1.1 * side)
        if all(b[2] <= grown[0] or b[0] >= grown[2] or b[3] <= grown[1] or b[1] >= grown[3] for b in taken):
            return x, y, x + side, y + side
    return None


def _natural_chunk(first: int, count: int) -> None:
    cv2.setNumThreads(1)
    crops, labels = [], []
    for seed in range(NATURAL_SEEDS + first, NATURAL_SEEDS + first + count):
        rng = np.random.default_rng([seed, 8])
        scene = generate(seed, natural_size(seed), surface="imagined" if rng.random() < IMAGINED_SHARE else None)
        boxes = [(box_of(i.mask), GROUP_NAMES.index(i.label)) for i in scene.instances]
        wanted: list[tuple[Window, int]] = [((*map(float, box),), label) for box, label in boxes]  # type: ignore[misc]
        for kind, window in scene.distractors:
            if kind in GROUPS and not any(_touch(window, box) for box, _ in boxes):
                wanted.append(((*map(float, window),), GROUP_NAMES.index(kind)))  # type: ignore[arg-type]
        clean = clean_window(rng, (scene.image.shape[1], scene.image.shape[0]), [box for box, _ in boxes])
        if clean is not None:
            wanted.append((clean, GROUP_NAMES.index("nothing")))
        for place, label in wanted:
            crops.append(cut(scene.image, place, WIDE, STORED))
            labels.append(label)
    partial = FOLDER / f"partial_{first}.npz"
    np.savez(partial, crops=np.stack(crops), labels=np.asarray(labels, np.int64))
    partial.rename(FOLDER / f"natural_{first}.npz")


def _touch(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return not (a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1])


def load_natural() -> tuple[Image, NDArray[np.int64]]:
    """All crops cut so far, ``(N, 176, 176, 3)``, and their groups."""
    parts = [np.load(path) for path in sorted(FOLDER.glob("natural_*.npz"))]
    if not parts:
        return np.zeros((0, STORED, STORED, 3), np.uint8), np.zeros(0, np.int64)
    return np.concatenate([p["crops"] for p in parts]), np.concatenate([p["labels"] for p in parts])


@cache
def _opened() -> tuple[list[SceneStore], Image, NDArray[np.int64]]:
    return ([SceneStore(bucket) for bucket in BUCKETS], *load_natural())


@dataclass(frozen=True, slots=True)
class CropBatches:
    """Makes batches of ``size`` crops; picklable, so that workers can open the stores themselves."""

    size: int

    def __call__(self, rng: np.random.Generator, progress: float) -> tuple[Tensor, Tensor]:
        """Crops ``(B, 3, 128, 128)`` uint8 and their groups ``(B,)``; the same at any progress."""
        stores, natural, labels = _opened()
        crops, groups = CropStream(rng, stores, natural, labels).batch(self.size)
        return torch.from_numpy(crops), torch.from_numpy(groups)


@dataclass(slots=True)
class CropStream:
    """Random training crops of stored and of natural-size pictures."""

    rng: np.random.Generator
    stores: list[SceneStore]
    natural: Image
    natural_labels: NDArray[np.int64]

    def batch(self, size: int) -> tuple[Image, NDArray[np.int64]]:
        """Crops ``(B, 3, 128, 128)`` uint8 and their groups ``(B,)``."""
        crops: list[Image] = []
        labels: list[int] = []
        while len(crops) < size:
            made = self._natural() if len(self.natural) and self.rng.random() < NATURAL_SHARE else self._stored()
            if made is not None:
                crops.append(self._augment(made[0]))
                labels.append(made[1])
        return np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2)), np.asarray(labels, np.int64)

    def _natural(self) -> tuple[Image, int]:
        index = int(self.rng.integers(len(self.natural)))
        return self.natural[index], int(self.natural_labels[index])

    def _stored(self) -> tuple[Image, int] | None:
        rng = self.rng
        store = draw_store(rng, self.stores)
        index = int(rng.choice(store.finished()))
        labels = [int(k) for k in store.labels[index] if k >= 0]
        draw = rng.random()
        if draw < 0.8 and labels:
            which = int(rng.integers(len(labels)))
            mask = np.asarray(store.ids[index]) == which + 1
            if not mask.any():
                return None
            box = box_of(mask)
            window = (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
            return cut(store.images[index], window, WIDE, STORED), labels[which]
        masks = [np.asarray(store.ids[index]) == i + 1 for i in range(len(labels))]
        boxes = [box_of(mask) for mask in masks if mask.any()]
        windows = [w for w in store.windows[index] if w[0] >= 0 and DISTRACTOR_NAMES[w[0]] in GROUPS]
        if draw < 0.9 and windows:
            chosen = windows[int(rng.integers(len(windows)))]
            area = (int(chosen[1]), int(chosen[2]), int(chosen[3]), int(chosen[4]))
            if any(_touch(area, box) for box in boxes):
                return None
            group = GROUP_NAMES.index(DISTRACTOR_NAMES[int(chosen[0])])
            found = (float(area[0]), float(area[1]), float(area[2]), float(area[3]))
            return cut(store.images[index], found, WIDE, STORED), group
        clean = clean_window(rng, (store.bucket.width, store.bucket.height), boxes)
        return None if clean is None else (cut(store.images[index], clean, WIDE, STORED), GROUP_NAMES.index("nothing"))

    def _augment(self, crop: Image) -> Image:
        rng = self.rng
        context = rng.uniform(CROP_CONTEXT - 0.14, CROP_CONTEXT + 0.12)
        side = round(STORED * (1 + 2 * context) / (1 + 2 * WIDE))
        slack = STORED - side
        x, y = (int(np.clip(slack / 2 + rng.normal(0, 0.04 * side), 0, slack)) for _ in range(2))
        image = crop[y : y + side, x : x + side]
        if rng.random() < 0.5:
            image = image[:, ::-1]
        image = np.rot90(image, int(rng.integers(4)))
        image = cv2.resize(np.ascontiguousarray(image), (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_AREA)
        if rng.random() < 0.15:
            image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.0)))
        return recolour(rng, np.asarray(image, np.uint8))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Cut crops of natural-size training pictures (resumable).")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    chunks = [c for c in range(0, arguments.pictures, 50) if not (FOLDER / f"natural_{c}.npz").exists()]
    with process_pool(arguments.workers) as pool:
        list(pool.map(_natural_chunk, chunks, [50] * len(chunks)))


if __name__ == "__main__":
    main()
