"""Tiny models whose answers can be worked out by hand: dark squares on a light ground, no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autolabel.types import RGB, Classifications, Detections, Float, Mask, ModelInfo, Segments

PHRASE_COLOURS = {"scratch": (255, 0, 0), "dent": (0, 255, 0), "glare": (0, 0, 255)}


def picture(*squares: tuple[str, int, int, int], size_wh: tuple[int, int] = (64, 48)) -> RGB:
    """A white image with one coloured square ``(phrase, x, y, side)`` for each thing to find."""
    image = np.full((size_wh[1], size_wh[0], 3), 255, np.uint8)
    for phrase, x, y, side in squares:
        image[y : y + side, x : x + side] = PHRASE_COLOURS[phrase]
    return image


class SquareDetector:
    """Finds one box for each colour; the score is 0.4 plus the share of the image that the box covers."""

    def __init__(self) -> None:
        self.info = ModelInfo("fake:squares")
        self.calls: list[int] = []

    def predict_batch(self, images: Sequence[RGB], phrases: Sequence[str], min_score: float) -> list[Detections]:
        self.calls.append(len(images))
        return [self._one(image, phrases) for image in images]

    def _one(self, image: RGB, phrases: Sequence[str]) -> Detections:
        boxes, scores = [], []
        for column, phrase in enumerate(phrases):
            rows, columns = np.nonzero((image == PHRASE_COLOURS.get(phrase, (1, 2, 3))).all(axis=2))
            if len(rows) == 0:
                continue
            boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            score = [0.05] * len(phrases)
            score[column] = 0.4 + len(rows) / image.shape[0] / image.shape[1]
            scores.append(score)
        if not boxes:
            return Detections.empty(len(phrases))
        return Detections(np.array(boxes, np.float32), np.array(scores, np.float32))


class BoxSegmenter:
    """Fills the box."""

    def __init__(self) -> None:
        self.info = ModelInfo("fake:fill")
        self.calls: list[int] = []

    def predict_batch(self, images: Sequence[RGB], boxes_xyxy: Sequence[Float]) -> list[Segments]:
        self.calls.append(len(images))
        return [
            Segments(tuple(_filled(image, box) for box in boxes), np.full(len(boxes), 0.9, np.float32))
            for image, boxes in zip(images, boxes_xyxy, strict=True)
        ]


class ColourClassifier:
    """Believes the colour at the middle of the box."""

    def __init__(self) -> None:
        self.info = ModelInfo("fake:colour")
        self.calls: list[int] = []

    def predict_batch(
        self,
        images: Sequence[RGB],
        boxes_xyxy: Sequence[Float],
        masks: Sequence[Sequence[Mask]] | None,
        classes: Sequence[Sequence[str]],
    ) -> list[Classifications]:
        self.calls.append(len(images))
        return [self._one(image, boxes, classes) for image, boxes in zip(images, boxes_xyxy, strict=True)]

    def _one(self, image: RGB, boxes: Float, classes: Sequence[Sequence[str]]) -> Classifications:
        probs = np.full((len(boxes), len(classes)), 0.1 / max(len(classes) - 1, 1), np.float32)
        for row, (x_min, y_min, x_max, y_max) in enumerate(boxes):
            colour = tuple(image[int(y_min + y_max) // 2, int(x_min + x_max) // 2])
            for column, phrases in enumerate(classes):
                if any(PHRASE_COLOURS.get(phrase) == colour for phrase in phrases):
                    probs[row, column] = 0.9
        probs /= probs.sum(axis=1, keepdims=True)
        return Classifications(probs, np.eye(len(boxes), 4, dtype=np.float32))


def _filled(image: RGB, box: Float) -> Mask:
    mask = np.zeros(image.shape[:2], np.bool_)
    x_min, y_min, x_max, y_max = box.astype(int)
    mask[y_min:y_max, x_min:x_max] = True
    return Mask.encode(mask)
