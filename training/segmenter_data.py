"""Batches for the segmenter: square pictures, jittered boxes, exact masks."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.dataset import BUCKETS, SceneStore
from training.detector_data import normalise, recolour
from training.generator import box_of


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures ``(B, 3, S, S)`` and, per box, ``owner`` ``(N,)``, px ``(N, 4)``, ``masks`` ``(N, S, S)``, class."""

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


class SegmenterBatches:
    """An endless, shuffled stream made in a background thread; ``size`` px may be changed at any time."""

    def __init__(self, pictures: int, seed: int, size: int) -> None:
        self.pictures, self.size = pictures, size
        self.rng = np.random.default_rng([seed, 6])
        self.stores = [SceneStore(bucket) for bucket in BUCKETS]
        self.ready: queue.Queue[Batch] = queue.Queue(maxsize=3)
        threading.Thread(target=self._work, daemon=True).start()

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.ready.get()

    def _work(self) -> None:
        cv2.setNumThreads(1)
        shares = np.array([len(store.finished()) for store in self.stores], np.float64)
        indices = [store.finished() for store in self.stores]
        while True:
            which = int(self.rng.choice(len(shares), p=shares / shares.sum()))
            store, size = self.stores[which], self.size
            pixels: list[NDArray[np.float32]] = []
            owner, boxes, masks, labels = [], [], [], []
            while len(pixels) < self.pictures:
                made = self._one(store, int(self.rng.choice(indices[which])), size)
                if made is None:
                    continue
                image, found = made
                for box, mask, label in found:
                    owner.append(len(pixels))
                    boxes.append(box)
                    masks.append(mask)
                    labels.append(label)
                pixels.append(normalise(image))
            self.ready.put(
                Batch(
                    torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(),
                    torch.tensor(owner),
                    torch.from_numpy(np.stack(boxes)),
                    torch.from_numpy(np.stack(masks)),
                    torch.tensor(labels),
                )
            )

    def _one(
        self, store: SceneStore, index: int, size: int
    ) -> tuple[NDArray[np.uint8], list[tuple[NDArray[np.float32], NDArray[np.float32], int]]] | None:
        rng, bucket = self.rng, store.bucket
        zoom = float(rng.uniform(0.5, 1.0)) if rng.random() < 0.5 else 1.0
        w, h = round(bucket.width * zoom), round(bucket.height * zoom)
        x, y = int(rng.integers(0, bucket.width - w + 1)), int(rng.integers(0, bucket.height - h + 1))
        image = cv2.resize(store.images[index, y : y + h, x : x + w], (size, size), interpolation=cv2.INTER_AREA)
        ids = np.asarray(store.ids[index, y : y + h, x : x + w])
        flips = [bool(rng.random() < 0.5) for _ in range(3)]
        found = []
        for i, label in enumerate(store.labels[index]):
            if label < 0:
                break
            part = (ids == i + 1).astype(np.float32)
            if part.sum() < 15:
                continue
            mask = cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR) >= 0.5
            if not mask.any():
                continue
            turned = np.ascontiguousarray(_turn(mask, flips))
            box = np.asarray(box_of(turned), np.float32)
            found.append((jitter(rng, box, size), turned.astype(np.float32), int(label)))
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
