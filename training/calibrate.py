"""Shift the detector's scores so that the product's default threshold suits it: ``python -m training.calibrate``.

One number is added to all final logits: order and AP stay, only the meaning of 0.35 changes. The threshold is chosen
on validation pictures: the highest that costs hardly any F1, as a false box costs a reviewer more than it teaches.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.torch import load_file, save_file

from autolabel.config import Thresholds
from training.evaluate_models import load_detector
from training.generator import EDITIONS, TRAINED
from training.metrics import Found, box_iou, suppress
from training.natural import Labelled, natural_set
from training.runtime import WORK
from training.train_detector import detect

GIVEN_UP: Final = 0.01
BIAS: Final = "class_embed.0.bias"
GRID: Final = tuple(round(0.25 + 0.01 * step, 2) for step in range(36))


def judged(found: Sequence[Found], pictures: Sequence[Labelled]) -> list[tuple[float, bool, bool]]:
    """Score of every box after suppression, whether it is right (class, IoU 0.5), and whether its picture is clean."""
    rows: list[tuple[float, bool, bool]] = []
    for detections, picture in zip(found, pictures, strict=True):
        best, labels = detections.scores.max(axis=1), detections.scores.argmax(axis=1)
        free = np.ones(len(picture.labels), bool)
        for index in suppress(detections.boxes, best, iou=0.5):
            overlap = box_iou(detections.boxes[index][None], picture.boxes)[0] if len(picture.labels) else np.zeros(0)
            gains = np.where(free & (picture.labels == labels[index]), overlap, 0.0)
            hit = bool(len(gains) and gains.max() >= 0.5)
            if hit:
                free[int(gains.argmax())] = False
            rows.append((float(best[index]), hit, len(picture.labels) == 0))
    return rows


def best_threshold(rows: Sequence[tuple[float, bool, bool]], truths: int) -> float:
    """Choose from ``GRID`` the highest threshold whose F1 is the best but for ``GIVEN_UP``: fewer false boxes."""
    scores, right, _ = (np.array(column) for column in zip(*rows, strict=True))
    counts = [((scores >= one).sum(), right[scores >= one].sum()) for one in GRID]
    f1 = [2 * float(hits) / max(1, int(kept) + truths) for kept, hits in counts]
    return max(one for one, value in zip(GRID, f1, strict=True) if value >= max(f1) - GIVEN_UP)


def shift(folder: Path, by: float) -> None:
    """Add ``by`` to the bias of the final logits of the weights in ``folder``."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights[BIAS] = (weights[BIAS].float() + by).to(weights[BIAS].dtype)
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)


def logit(probability: float) -> float:
    """Log of the odds."""
    return math.log(probability / (1 - probability))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Shift a detector's scores to the product's default threshold.")
    parser.add_argument("--weights", type=Path, default=WORK / "trained" / "detector")
    parser.add_argument("--edition", choices=tuple(EDITIONS), default=TRAINED.name)
    parser.add_argument("--pictures", type=int, default=200)
    arguments = parser.parse_args()
    edition = EDITIONS[arguments.edition]
    pictures = natural_set("validation", arguments.pictures, edition=edition)
    model, processor = load_detector(arguments.weights)
    parts = (model, processor.image_processor, processor.tokenizer)
    found = [detect(*parts, picture.path, edition.classes) for picture in pictures]
    rows, wanted = judged(found, pictures), Thresholds().min_score
    clean_pictures = sum(len(picture.labels) == 0 for picture in pictures)
    chosen = best_threshold(rows, sum(len(picture.labels) for picture in pictures))
    shift(arguments.weights, logit(wanted) - logit(chosen))
    on_clean = sum(score >= chosen for score, _, clean in rows if clean)
    print(json.dumps({"threshold_found": chosen, "now_at": wanted, "boxes_on_clean": [on_clean, clean_pictures]}))


if __name__ == "__main__":
    main()
