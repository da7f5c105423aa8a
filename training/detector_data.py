"""Batches for the detector: pictures of one size under one prompt, with ground truth for the classes it names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.dataset import BUCKETS, SceneStore, draw_store
from training.detector_loss import Padded, Truth
from training.detector_model import load_tokenizer
from training.generator import CLASS_NAMES
from training.vocabulary import SPECIAL, prompt_for

MEAN: Final = np.array([0.485, 0.456, 0.406], np.float32)
CLEAN_WEIGHT: Final = 2.0
"""How much more often a picture without defects is shown: it teaches what to leave alone."""
HARD: Final = ("scratch", "dent", "crack", "blister", "burr")
HARD_WEIGHT: Final = 2.0
"""How much more often a picture of a class is shown that is found less than others."""
STD: Final = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True, slots=True)
class Batch:
    """``pixels`` ``(B, 3, H, W)`` uint8; ``input_ids`` ``(1, T)``; ``spans`` ``(K, T)``; the boxes of all pictures.

    Few tensors: each that comes from a worker is an open file.
    """

    pixels: Tensor
    input_ids: Tensor
    spans: Tensor
    truth: Padded


def class_spans(input_ids: list[int], phrase_classes: list[int], classes: int) -> Tensor:
    """Mark each class's tokens in a prompt ``[CLS] phrase . phrase . [SEP]``: float ``(K, T)``."""
    spans = torch.zeros(classes, len(input_ids))
    phrase = 0
    for position, token in enumerate(input_ids):
        if token == SPECIAL["."]:
            phrase += 1
        elif token not in (SPECIAL["[CLS]"], SPECIAL["[SEP]"]) and phrase_classes[phrase] >= 0:
            spans[phrase_classes[phrase], position] = 1
    return spans


def normalise(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """RGB uint8 to normalised float32, still ``(H, W, 3)``."""
    return np.asarray((image.astype(np.float32) / 255 - MEAN) / STD, dtype=np.float32)


Sizes = tuple[tuple[float, float, int], ...]
"""Until which share of the training pictures have which share of the stored size, and how many make a batch."""


@dataclass(frozen=True, slots=True)
class DetectorBatches:
    """Makes batches of stored pictures; picklable, so that workers can open the stores themselves."""

    tokenizer_folder: Path
    sizes: Sizes

    def __call__(self, rng: np.random.Generator, progress: float) -> Batch:
        """Make a batch of the size that suits ``progress`` (0 to 1)."""
        stores, tokenizer = _stores(), _tokenizer(self.tokenizer_folder)
        scale, size = size_at(self.sizes, progress)
        store = draw_store(rng, stores)
        bucket = store.bucket
        upright = bool(rng.random() < 0.4)
        height = bucket.height
        if bucket.width > bucket.height and rng.random() < 0.2:
            height = round(bucket.width * 2 / 3)  # 3:2
        out_wh = (round(bucket.width * scale / 16) * 16, round(height * scale / 16) * 16)
        phrases = prompt_for(rng, CLASS_NAMES)
        ids = tokenizer(". ".join(phrase for phrase, _ in phrases) + ".")["input_ids"]
        spans = class_spans(ids, [k for _, k in phrases], len(CLASS_NAMES))
        named = {k for _, k in phrases}
        images, truths = [], []
        finished = store.finished()
        weights = np.where(store.clean(finished), CLEAN_WEIGHT, 1.0)
        weights[store.shows(finished, HARD)] = HARD_WEIGHT
        for index in rng.choice(finished, size, replace=False, p=weights / weights.sum()):
            image, boxes, labels = augment(rng, store, int(index), out_wh, height / bucket.height, upright)
            kept = [i for i, k in enumerate(labels) if k in named]
            images.append(image)
            truths.append(Truth(torch.from_numpy(boxes[kept]), torch.tensor([labels[i] for i in kept]).long()))
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
        return Batch(pixels, torch.tensor([ids]), spans, Padded.of(truths))


def size_at(sizes: Sizes, progress: float) -> tuple[float, int]:
    """Share of the stored size, and pictures of a batch: a training begins small, which gives many more steps."""
    return next((scale, size) for until, scale, size in sizes if progress <= until)


@cache
def _stores() -> list[SceneStore]:
    return [SceneStore(bucket) for bucket in BUCKETS]


@cache
def _tokenizer(folder: Path) -> Any:
    return load_tokenizer(folder)


def to_input(pixels: Tensor, device: torch.device) -> Tensor:
    """Move uint8 pictures ``(B, 3, H, W)`` to the device and normalise them there."""
    moved = pixels.to(device, non_blocking=True).float() / 255
    mean, std = (torch.from_numpy(v).to(device)[:, None, None] for v in (MEAN, STD))
    return (moved - mean) / std


def augment(
    rng: np.random.Generator, store: SceneStore, index: int, out_wh: tuple[int, int], tallness: float, upright: bool
) -> tuple[NDArray[np.uint8], NDArray[np.float32], list[int]]:
    """One picture cropped, resized, flipped and recoloured; boxes ``(N, 4)`` cxcywh in 0..1; class indices."""
    bucket = store.bucket
    zoom = float(rng.uniform(0.6, 1.0)) if rng.random() < 0.5 else 1.0
    w, h = round(bucket.width * zoom), round(bucket.height * tallness * zoom)
    x, y = int(rng.integers(0, bucket.width - w + 1)), int(rng.integers(0, bucket.height - h + 1))
    image = cv2.resize(store.images[index, y : y + h, x : x + w], out_wh, interpolation=cv2.INTER_AREA)
    ids = np.asarray(store.ids[index])
    found, labels = [], []
    for i, label in enumerate(store.labels[index]):
        if label < 0:
            break
        whole = ids == i + 1
        part = whole[y : y + h, x : x + w]
        area = int(part.sum())
        if area < 10 or area < 0.3 * int(whole.sum()):
            continue
        cols, rows = np.flatnonzero(part.any(axis=0)), np.flatnonzero(part.any(axis=1))
        found.append((cols[0] / w, rows[0] / h, (cols[-1] + 1) / w, (rows[-1] + 1) / h))
        labels.append(int(label))
    boxes: NDArray[np.float32] = np.asarray(found, np.float32).reshape(-1, 4)
    if rng.random() < 0.5:
        image, boxes = image[:, ::-1], np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], axis=1)
    if rng.random() < 0.5:
        image, boxes = image[::-1], np.stack([boxes[:, 0], 1 - boxes[:, 3], boxes[:, 2], 1 - boxes[:, 1]], axis=1)
    if upright:
        image, boxes = image.transpose(1, 0, 2), boxes[:, [1, 0, 3, 2]]
    centred = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)
    return recolour(rng, image), np.asarray(centred, dtype=np.float32), labels


def grain(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay speckles or clouds of a random size over a picture: defects must be told from surfaces never seen."""
    height, width = image.shape[:2]
    cell = float(np.exp(rng.uniform(0.0, np.log(24.0))))
    channels = 3 if rng.random() < 0.3 else 1
    shape = (max(2, round(height / cell)), max(2, round(width / cell)), channels)
    field = rng.standard_normal(shape, dtype=np.float32)
    if rng.random() < 0.4:
        field = 2.0 * (np.abs(field) > 1.3) * np.sign(field)
    field = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, channels)
    return np.asarray(np.clip(image + float(rng.uniform(2, 12)) * field, 0, 255), dtype=np.uint8)


def recolour(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Random brightness, contrast and white balance, and in a third of the pictures ``grain``."""
    if rng.random() < 0.33:
        image = grain(rng, image)
    if rng.random() < 0.3:
        return np.ascontiguousarray(image)
    gain = rng.uniform(0.8, 1.2) * (1 + rng.normal(0, 0.04, 3))
    offset = rng.uniform(-15, 15)
    table = np.clip(np.arange(256)[:, None] * gain + offset, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.stack([table[image[..., c], c] for c in range(3)], axis=-1))
