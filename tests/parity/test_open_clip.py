"""Region probabilities against open_clip used directly on the same crops."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from autolabel.models import registry
from tests.models.random_models import picture

CLASSES = [["scratch", "long scratch"], ["dent"], ["rust", "rust on paint", "stain"]]
TEMPLATES = ["a photo of a {}.", "{}"]
BOXES = [
    np.array([[10, 10, 60, 40], [0, 0, 100, 80]], np.float32),
    np.zeros((0, 4), np.float32),
    np.array([[5, 20, 9, 190]], np.float32),
]
SIZES = [(160, 120), (50, 50), (97, 203)]
FULL_SIZE = bool(os.environ.get("AUTOLABEL_FULL_SIZE"))


def plainly(model, preprocess, tokenizer, images) -> np.ndarray:
    """Crop, encode and softmax with open_clip alone, one crop at a time."""
    rows = []
    with torch.no_grad():
        text = []
        for phrases in CLASSES:
            sentences = [template.format(phrase) for phrase in phrases for template in TEMPLATES]
            mean = model.encode_text(tokenizer(sentences), normalize=True).mean(dim=0)
            text.append(mean / mean.norm())
        for image, boxes in zip(images, BOXES, strict=True):
            for box in boxes.astype(int):
                cut = preprocess(PILImage.fromarray(image).crop(tuple(box.tolist())))
                features = model.encode_image(cut[None], normalize=True)
                logits = model.logit_scale.exp() * features @ torch.stack(text).T
                if model.logit_bias is not None:
                    logits = logits + model.logit_bias
                rows.append(logits.softmax(dim=-1)[0].numpy())
    return np.array(rows)


@pytest.mark.parametrize("siglip", [False, True])
def test_probabilities_are_open_clips(checkpoint, cpu, siglip):
    import open_clip

    folder = checkpoint("classifier", siglip=siglip)
    ours = registry.load_classifier(f"open-clip:{folder}?context=0&square=off&templates={'|'.join(TEMPLATES)}", cpu)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    images = [picture(*size, seed) for seed, size in enumerate(SIZES)]
    found = ours.predict_batch(images, BOXES, None, CLASSES)
    expected = plainly(model.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{folder}"), images)
    np.testing.assert_allclose(np.concatenate([each.probs for each in found]), expected, atol=1e-4)
    assert np.ptp(expected) > 0.05


def test_a_batch_equals_one_by_one(checkpoint, cpu):
    model = registry.load_classifier(f"open-clip:{checkpoint('classifier')}?batch=2", cpu)
    images = [picture(*size, seed) for seed, size in enumerate(SIZES)]
    together = model.predict_batch(images, BOXES, None, CLASSES)
    for found, image, boxes in zip(together, images, BOXES, strict=True):
        (alone,) = model.predict_batch([image], [boxes], None, CLASSES)
        np.testing.assert_allclose(found.probs, alone.probs, atol=1e-5)
        np.testing.assert_allclose(found.embeddings, alone.embeddings, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not FULL_SIZE, reason="set AUTOLABEL_FULL_SIZE=1: ViT-B/32, 600 MB of disk")
def test_full_size(cpu, tmp_path):
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32")
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    style = f"context=0&square=off&templates={'|'.join(TEMPLATES)}"
    spec = f"open-clip:ViT-B-32?weights={tmp_path / 'vit.safetensors'}&{style}"
    images = [picture(*size, seed) for seed, size in enumerate(SIZES)]
    found = registry.load_classifier(spec, cpu).predict_batch(images, BOXES, None, CLASSES)
    expected = plainly(model.eval(), preprocess, open_clip.get_tokenizer("ViT-B-32"), images)
    worst = np.abs(np.concatenate([each.probs for each in found]) - expected).max()
    print(f"largest difference of a probability {worst:.2g}")
    assert worst < 1e-4
