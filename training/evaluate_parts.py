"""Measure the segmenter and the classifier alone, on ground-truth boxes, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.evaluate_models import calibration_error, load_classifier, load_segmenter
from training.generator import Edition
from training.intervals import Figure, figure
from training.natural import Labelled
from training.train_classifier import cosines, natural_crops
from training.train_segmenter import trace
from training.vocabulary import SYNONYMS


def masks(pictures: Sequence[Labelled], edition: Edition, weights: Path) -> dict[str, Any]:
    """Mean IoU over the classes with true boxes as prompts, and of filling the box; per class without interval."""
    traced = trace(load_segmenter(weights / "segmenter"), pictures)

    def mean(field: str, chosen: NDArray[np.int64]) -> float:
        return float(np.mean(list(_by_class(field, chosen).values())))

    def _by_class(field: str, chosen: NDArray[np.int64]) -> dict[str, float]:
        values: dict[str, list[float]] = {name: [] for name in edition.classes}
        for index in chosen.tolist():
            for one in traced[index]:
                values[edition.classes[one.label]].append(float(getattr(one, field)))
        return {name: float(np.mean(v)) for name, v in values.items() if v}

    everything = np.arange(len(pictures))
    unseen = [i for i, picture in enumerate(pictures) if picture.surface in edition.held_out]
    errors = [abs(one.estimate - one.iou) for picture in traced for one in picture]
    return {
        "masks": len(errors),
        "miou": figure(len(pictures), lambda chosen: mean("iou", chosen)).to_json(),
        "box_fill": figure(len(pictures), lambda chosen: mean("box_fill", chosen)).to_json(),
        "miou_unseen_surfaces": mean("iou", np.asarray(unseen)) if unseen else None,
        "miou_per_class": _by_class("iou", everything),
        "box_fill_per_class": _by_class("box_fill", everything),
        "estimate_mean_absolute_error": float(np.mean(errors)),
    }


def crops(pictures: Sequence[Labelled], edition: Edition, weights: Path) -> dict[str, Any]:
    """Top-1 accuracy and calibration on crops of true boxes, with the class names and with synonyms as captions."""
    model = load_classifier(weights / "classifier")
    owners = [np.full(len(picture.labels), i) for i, picture in enumerate(pictures)]
    owner = np.concatenate(owners)
    parts = [natural_crops([picture]) for picture in pictures if len(picture.labels)]
    pixels, labels = torch.cat([p for p, _ in parts]), np.concatenate([k for _, k in parts])
    scale = float(model.logit_scale.detach().exp())
    similarity = cosines(model, pixels, edition.classes)
    confidence = (scale * similarity).softmax(1).max(1).values.numpy()
    right = (similarity.argmax(1).numpy() == labels).astype(float)
    synonyms = tuple(SYNONYMS[name][3] for name in edition.classes)
    others = (cosines(model, pixels, synonyms).argmax(1).numpy() == labels).astype(float)
    places = [np.flatnonzero(owner == i) for i in range(len(pictures))]

    def over(statistic: Any) -> Figure:
        def sampled(chosen: NDArray[np.int64]) -> float:
            rows = np.concatenate([places[i] for i in chosen.tolist()])
            return float(statistic(rows)) if len(rows) else float("nan")

        return figure(len(pictures), sampled)

    return {
        "crops": len(labels),
        "top1": over(lambda rows: right[rows].mean()).to_json(),
        "top1_synonyms": over(lambda rows: others[rows].mean()).to_json(),
        "expected_calibration_error": over(lambda rows: calibration_error(confidence[rows], right[rows])).to_json(),
        "mean_confidence": float(confidence.mean()),
        "top1_per_class": {
            name: float(right[labels == k].mean()) for k, name in enumerate(edition.classes) if (labels == k).any()
        },
        "logit_scale": scale,
    }
