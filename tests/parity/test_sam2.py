"""Boxes of a batch decoded together against the package's own predictor, image by image and box by box."""

from __future__ import annotations

import os

import numpy as np
import pytest

from autolabel.models import registry
from tests.models.random_models import picture, write_segmenter

BOXES = [
    np.array([[5, 5, 60, 40], [20, 10, 100, 90], [50, 50, 52, 51]], np.float32),
    np.zeros((0, 4), np.float32),
    np.array([[0, 0, 97, 203], [30, 60, 80, 150]], np.float32),
    np.array([[100, 20, 180, 110]], np.float32),
]
SIZES = [(160, 120), (50, 50), (97, 203), (200, 130)]
FULL_SIZE = bool(os.environ.get("AUTOLABEL_FULL_SIZE"))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    union = (one | other).sum()
    return 1.0 if union == 0 else float((one & other).sum() / union)


def by_the_package(model, images, multimask: bool = False):
    """Yield (mask, score) of the official predictor, one box at a time."""
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    predictor = SAM2ImagePredictor(model)
    size = model.image_size
    predictor._bb_feat_sizes = [(size // 4,) * 2, (size // 8,) * 2, (size // 16,) * 2]
    for image, boxes in zip(images, BOXES, strict=True):
        predictor.set_image(image)
        for box in boxes:
            masks, scores, _ = predictor.predict(box=box, multimask_output=multimask)
            best = int(scores.argmax())
            yield masks[best] > 0, float(scores[best])


def compare(segmenter, multimask: bool = False) -> tuple[float, float]:
    """Lowest mask IoU and largest difference of the scores over all boxes."""
    images = [picture(*size, seed) for seed, size in enumerate(SIZES)]
    found = segmenter.predict_batch(images, BOXES)
    ours = [(m.decode(), s) for segments in found for m, s in zip(segments.masks, segments.scores, strict=True)]
    theirs = list(by_the_package(segmenter._model, images, multimask))
    assert len(ours) == len(theirs) == 6
    # Empty masks, or masks of everything, would agree whatever the model does.
    assert any(0.02 < mask.mean() < 0.98 for mask, _ in ours)
    lowest = min(iou(one[0], other[0]) for one, other in zip(ours, theirs, strict=True))
    return lowest, max(abs(one[1] - other[1]) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("options", ["batch=4&boxes=8", "batch=2&boxes=2", "multimask=true"])
def test_batched_masks_are_the_predictors(checkpoint, cpu, options):
    segmenter = registry.load_segmenter(f"sam2:{checkpoint('segmenter', image_size=256)}?{options}", cpu)
    lowest, worst = compare(segmenter, "multimask" in options)
    assert lowest >= 0.999
    assert worst < 1e-4


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_at_the_official_image_size(checkpoint, cpu):
    segmenter = registry.load_segmenter(str(checkpoint("segmenter", image_size=1024)), cpu)
    lowest, worst = compare(segmenter)
    assert lowest >= 0.999
    assert worst < 1e-4


def test_a_batch_equals_one_by_one(checkpoint, cpu):
    segmenter = registry.load_segmenter(f"sam2:{checkpoint('segmenter')}?batch=4&boxes=4", cpu)
    images = [picture(*size, seed) for seed, size in enumerate(SIZES)]
    together = segmenter.predict_batch(images, BOXES)
    for segments, image, boxes in zip(together, images, BOXES, strict=True):
        (alone,) = segmenter.predict_batch([image], [boxes])
        np.testing.assert_allclose(segments.scores, alone.scores, atol=1e-5)
        for one, other in zip(segments.masks, alone.masks, strict=True):
            assert iou(one.decode(), other.decode()) >= 0.999


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.skipif(not FULL_SIZE, reason="set AUTOLABEL_FULL_SIZE=1: SAM 2.1-T")
def test_full_size(cpu, tmp_path):
    segmenter = registry.load_segmenter(str(write_segmenter(tmp_path / "full", image_size=1024, full=True)), cpu)
    lowest, worst = compare(segmenter)
    print(f"lowest mask IoU {lowest:.6f}, largest score difference {worst:.2g}")
    assert lowest >= 0.999
    assert worst < 1e-4
