"""Load the saved starter models as users do, and measure each alone: quick figures that publishing compares."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from training.generator import PUBLISHED, Edition
from training.metrics import evaluate
from training.natural import Labelled
from training.runtime import STARTER
from training.train_classifier import cosines, natural_crops
from training.train_detector import detect
from training.train_segmenter import measure as measure_masks
from training.vocabulary import SYNONYMS


def load_detector(folder: Path) -> tuple[Any, Any]:
    """Load the model in float32 and its processor."""
    model = AutoModelForZeroShotObjectDetection.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoProcessor.from_pretrained(folder)


def load_segmenter(folder: Path) -> Any:
    """SAM 2 from its configuration and weights."""
    configuration: Any = OmegaConf.load(folder / "config.yaml")
    model = instantiate(configuration["model"], _recursive_=True)
    model.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()}, strict=True)
    return model.eval()


def load_classifier(folder: Path) -> Any:
    """CLIP through open_clip."""
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval()


def detector_report(pictures: list[Labelled], edition: Edition = PUBLISHED, weights: Path = STARTER) -> dict[str, Any]:
    """Box AP50 per class, recall, the best threshold, and how many boxes unknown words draw."""
    model, processor = load_detector(weights / "detector")
    names = edition.classes
    begun = time.monotonic()
    found = [detect(model, processor.image_processor, processor.tokenizer, p.path, names) for p in pictures]
    seconds = (time.monotonic() - begun) / len(pictures)
    truth = [(p.boxes, p.labels) for p in pictures]
    report = asdict(evaluate(found, truth, names))
    seen = [i for i, p in enumerate(pictures) if p.surface not in edition.held_out]
    kept = evaluate([found[i] for i in seen], [truth[i] for i in seen], names)
    synonyms = tuple(SYNONYMS[name][3] for name in names)
    others = [detect(model, processor.image_processor, processor.tokenizer, p.path, synonyms) for p in pictures]
    unknown = [
        detect(model, processor.image_processor, processor.tokenizer, p.path, ("cat", "car", "bottle"))
        for p in pictures[:60]
    ]
    return {
        **report,
        "mean_ap50_seen_surfaces": kept.mean_ap50,
        "synonyms": list(synonyms),
        "mean_ap50_synonyms": evaluate(others, truth, names).mean_ap50,
        "unknown_words_boxes_over_0.3_per_picture": float(np.mean([(f.scores.max(1) > 0.3).sum() for f in unknown])),
        "seconds_per_picture": seconds,
    }


def calibration_error(confidence: NDArray[np.float32], right: NDArray[np.float64], bins: int = 10) -> float:
    """Mean distance of confidence ``(N,)`` from the share that is right ``(N,)``, over equal bins, by their counts."""
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(float((confidence[places == b] - right[places == b]).sum())) for b in range(bins)]
    return sum(gaps) / max(1, len(right))


def classifier_report(
    pictures: list[Labelled], edition: Edition = PUBLISHED, weights: Path = STARTER
) -> dict[str, Any]:
    """Top-1 on ground-truth crops with the class names, with synonyms, and the cross-entropy."""
    model = load_classifier(weights / "classifier")
    names = edition.classes
    pixels, labels = natural_crops(pictures)
    begun = time.monotonic()
    similarity = cosines(model, pixels, names)
    seconds = (time.monotonic() - begun) / len(labels)
    right = (similarity.argmax(1).numpy() == labels).astype(float)
    synonyms = tuple(SYNONYMS[name][3] for name in names)
    others = (cosines(model, pixels, synonyms).argmax(1).numpy() == labels).astype(float)
    scale = float(model.logit_scale.detach().exp())
    confidence = (scale * similarity).softmax(1).max(1).values.numpy()
    return {
        "crops": len(labels),
        "top1": float(right.mean()),
        "top1_per_class": {name: float(right[labels == k].mean()) for k, name in enumerate(names)},
        "top1_synonyms": float(others.mean()),
        "cross_entropy": float(cross_entropy(scale * similarity, torch.from_numpy(labels))),
        "mean_confidence": float(confidence.mean()),
        "expected_calibration_error": calibration_error(confidence, right),
        "logit_scale": scale,
        "seconds_per_crop": seconds,
    }


def segmenter_report(pictures: list[Labelled], edition: Edition = PUBLISHED, weights: Path = STARTER) -> dict[str, Any]:
    """Mean IoU per class with ground-truth boxes, against filling the box."""
    begun = time.monotonic()
    report: dict[str, Any] = measure_masks(load_segmenter(weights / "segmenter"), pictures, edition.classes)
    return {**report, "seconds_per_picture": (time.monotonic() - begun) / len(pictures)}
