from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from autolabel.errors import ModelError
from autolabel.models import registry
from autolabel.models.dino import exact_heads
from autolabel.protocols import Runtime
from tests.models.random_models import picture

PHRASES = ["scratch", "long thin dent", "co-op"]


@pytest.fixture(scope="module")
def detector(checkpoint, cpu):
    return registry.load_detector(str(checkpoint("detector")), cpu)


def test_nothing_in_nothing_out(detector):
    assert detector.predict_batch([], PHRASES, 0.1) == []
    (found,) = detector.predict_batch([picture(40, 30)], [], 0.1)
    assert found.boxes_xyxy.shape == (0, 4)
    assert found.phrase_scores.shape == (0, 0)


def test_weights_say_which_tiles_they_want(checkpoint, cpu):
    folder = checkpoint("detector")
    usual = registry.load_detector(str(folder), cpu)
    assert (usual.tile_from, usual.tile_zoom) == (None, None)
    config = folder / "config.json"
    text = config.read_text()
    config.write_text(json.dumps(json.loads(text) | {"autolabel": {"tile_from": 2.5, "tile_zoom": 1.5}}))
    try:
        stated, asked = (registry.load_detector(f"{folder}{options}", cpu) for options in ("", "?tile_from=4"))
    finally:
        config.write_text(text)
    assert (stated.tile_from, stated.tile_zoom) == (2.5, 1.5)
    assert (asked.tile_from, asked.tile_zoom) == (4.0, 1.5)
    with pytest.raises(ModelError, match="tile_zoom must be at least 1"):
        registry.load_detector(f"{folder}?tile_zoom=0.5", cpu)


def test_a_floor_no_score_reaches_gives_empty_arrays(detector):
    (found,) = detector.predict_batch([picture(40, 30)], PHRASES, 1.0)
    assert found.boxes_xyxy.shape == (0, 4)
    assert found.phrase_scores.shape == (0, 3)


def test_boxes_are_px_of_the_original_best_first_and_inside(detector):
    (found,) = detector.predict_batch([picture(300, 200)], PHRASES, 0.5)
    best = found.phrase_scores.max(axis=1)
    assert len(found.boxes_xyxy)
    assert (np.diff(best) <= 0).all()
    assert (best >= 0.5).all()
    assert (best <= 1).all()
    assert (found.boxes_xyxy >= 0).all()
    assert (found.boxes_xyxy <= [300, 200, 300, 200]).all()
    assert found.boxes_xyxy.max() > 128  # the model saw 192 x 128 px
    assert found.boxes_xyxy.dtype == found.phrase_scores.dtype == np.float32


def test_pixel_values_are_the_processors(detector, checkpoint):
    from transformers import GroundingDinoImageProcessor

    processor = GroundingDinoImageProcessor.from_pretrained(str(checkpoint("detector")))
    for image in (picture(300, 200), picture(97, 203), picture(20, 20)):
        expected = processor(images=[image], return_tensors="pt")["pixel_values"]
        assert torch.equal(detector.pixel_values(image), expected)


def test_a_strip_thinner_than_the_model_can_propose_on_still_answers(detector):
    (found,) = detector.predict_batch([picture(400, 3)], PHRASES, 0.0)
    assert len(found.boxes_xyxy) == 30
    assert (found.boxes_xyxy <= [400, 3, 400, 3]).all()


def test_more_phrases_than_a_caption_holds_are_read_in_passes(checkpoint, cpu):
    spec = f"grounding-dino:{checkpoint('detector')}?phrases_per_pass=2"
    split = registry.load_detector(spec, cpu)
    whole = registry.load_detector(str(checkpoint("detector")), cpu)
    image = picture(160, 120)
    (found,) = split.predict_batch([image], PHRASES, 0.0)
    assert found.phrase_scores.shape == (60, 3)
    first = found.phrase_scores[:, 2] == 0
    assert first.sum() == 30
    assert (found.phrase_scores[~first][:, :2] == 0).all()
    (alone,) = whole.predict_batch([image], PHRASES[:2], 0.0)
    np.testing.assert_allclose(found.boxes_xyxy[first], alone.boxes_xyxy, atol=1e-3)
    np.testing.assert_allclose(found.phrase_scores[first][:, :2], alone.phrase_scores, atol=1e-5)


def test_info_says_what_was_loaded(detector):
    assert detector.info.spec.startswith("grounding-dino:")
    assert len(detector.info.weights_sha256) == 64
    assert detector.info.licence is None


def test_an_option_that_does_not_exist_is_an_error(checkpoint, cpu):
    with pytest.raises(ModelError, match="unknown option bach; known: batch, phrases_per_pass, span"):
        registry.load("detector", f"grounding-dino:{checkpoint('detector')}?bach=2", cpu)


def test_another_kind_of_model_is_named(tmp_path, cpu):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelError, match="model type 'bert' is none of grounding-dino, mm-grounding-dino"):
        registry.load("detector", str(tmp_path), cpu)


def test_half_precision_keeps_the_heads_exact(checkpoint):
    from transformers import AutoModelForZeroShotObjectDetection

    model = AutoModelForZeroShotObjectDetection.from_pretrained(checkpoint("detector"))
    exact_heads(model, Runtime("cpu", "bfloat16"))
    values = torch.randn(2, 64)
    expected = model.bbox_embed[0](values)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.bbox_embed[0](values), expected)


def test_scores_that_are_no_numbers_are_an_error(checkpoint, cpu):
    from autolabel.models.dino import DinoDetector, DinoModel, DinoOptions
    from autolabel.types import ModelInfo

    whole = registry.load_detector(str(checkpoint("detector")), cpu)

    def broken(pixels, mask, each):
        return torch.full((1, 5, 256), torch.nan), torch.zeros(1, 5, 4)

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(checkpoint("detector")))
    model = DinoDetector(
        ModelInfo("broken"), DinoOptions(1, "max", 0), DinoModel(tokenizer, 256, whole._processor, broken)
    )
    with pytest.raises(ModelError, match="not numbers; run it with dtype float32"):
        model.predict_batch([picture(40, 30)], PHRASES, 0.1)


def test_backbone_and_text_use_the_fused_attention(checkpoint, cpu, monkeypatch):
    calls = []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda query, *a, **k: calls.append(query.shape[1]) or fused(query, *a, **k),
    )
    registry.load_detector(str(checkpoint("detector")), cpu).predict_batch([picture(160, 120)], PHRASES, 0.5)
    assert calls.count(2) >= 2 + 2  # two layers of text with 2 heads, two layers of the backbone with as many
    assert calls.count(4) == 3
