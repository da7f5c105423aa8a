"""Layers of Grounding DINO in quicker forms answer as the package's own do."""

from __future__ import annotations

import copy
from types import ModuleType

import pytest
import torch
from transformers import GroundingDinoConfig, MMGroundingDinoConfig
from transformers.models.grounding_dino import modeling_grounding_dino as plain
from transformers.models.mm_grounding_dino import modeling_mm_grounding_dino as mm

from autolabel.models import dino_layers
from autolabel.models.dino_layers import fused, quicken, sampled, trust_shapes
from tests.models.random_models import shake

SIZES = [(5, 7), (3, 4), (1, 1)]
PLACES = sum(h * w for h, w in SIZES)
FUSIONS = [
    (plain.GroundingDinoBiMultiHeadAttention, GroundingDinoConfig),
    (mm.MMGroundingDinoBiMultiHeadAttention, MMGroundingDinoConfig),
]


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("kind", "config"), FUSIONS, ids=["plain", "mm"])
@pytest.mark.parametrize("masked", [False, True])
@torch.inference_mode()
def test_fusion_is_the_packages(kind, config, masked):
    module = kind(config(d_model=32, encoder_ffn_dim=64, encoder_attention_heads=4)).eval()
    shake(module, 1)
    vision, text = _random(2, PLACES, 32), _random(2, 6, 32, seed=1)
    masks = {}
    if masked:
        masks = {
            "vision_attention_mask": torch.arange(PLACES).expand(2, -1) >= torch.tensor([[PLACES], [9]]),
            "text_attention_mask": torch.arange(6).expand(2, -1) >= torch.tensor([[4], [6]]),
        }
    (seen, seen_weights), (read, read_weights) = module(vision, text, **masks)
    (quick_seen, quick_seen_weights), (quick_read, quick_read_weights) = fused(module, vision, text, **masks)
    torch.testing.assert_close(quick_seen, seen, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(quick_read, read, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(quick_seen_weights.flatten(0, 1), seen_weights, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(quick_read_weights.flatten(0, 1), read_weights, atol=1e-5, rtol=1e-5)
    assert float(seen.std()) > 0.1  # answers that are all alike would agree by themselves


def _asked(batch: int, queries: int, spread: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features, points relative to each level, and their weights; 4 heads, 2 points a level."""
    value = _random(batch, PLACES, 4, 8)
    locations = 0.5 + spread * _random(batch, queries, 4, len(SIZES), 2, 2, seed=1)
    weights = _random(batch, queries, 4, len(SIZES) * 2, seed=2).softmax(-1).view(batch, queries, 4, len(SIZES), 2)
    return value, locations, weights


@pytest.mark.parametrize("module", [plain, mm], ids=["plain", "mm"])
@pytest.mark.parametrize("spread", [0.2, 2.0, 1e6], ids=["inside", "across", "far outside"])
def test_points_are_weighed_as_the_package_does(module: ModuleType, spread: float, monkeypatch):
    monkeypatch.setattr(dino_layers, "_QUERIES", 16)  # several sums, the last a short one
    value, locations, weights = _asked(2, 37, spread)
    expected = module.MultiScaleDeformableAttention()(value, None, SIZES, None, locations, weights, 64)
    torch.testing.assert_close(sampled(value, SIZES, locations, weights), expected, atol=1e-5, rtol=1e-5)


def test_points_on_the_edges_of_the_image_and_on_centres():
    value, locations, weights = _asked(1, 8, 0.0)
    edges = torch.tensor([0.0, 1.0, 0.5 / 7, -0.5 / 7, 1 + 0.5 / 7, 6.5 / 7, -1.0, 2.0])
    locations = edges.view(1, 8, 1, 1, 1, 1).expand_as(locations).contiguous()
    expected = plain.MultiScaleDeformableAttention()(value, None, SIZES, None, locations, weights, 64)
    torch.testing.assert_close(sampled(value, SIZES, locations, weights), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("what", ["not numbers", "bfloat16", "exported"])
def test_what_it_is_not_made_for_is_left_to_the_package(what, monkeypatch):
    layer = plain.MultiScaleDeformableAttention()
    expected = copy.deepcopy(layer)
    assert quicken(layer) == 1
    value, locations, weights = _asked(1, 9, 0.3)
    if what == "not numbers":
        locations[0, 3] = float("nan")
    elif what == "bfloat16":
        value, locations, weights = (part.bfloat16() for part in (value, locations, weights))
    else:
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    monkeypatch.setattr(dino_layers, "sampled", lambda *_: pytest.fail("was asked"))
    arguments = (value, None, SIZES, None, locations, weights, 64)
    torch.testing.assert_close(layer(*arguments), expected(*arguments), equal_nan=True)


@pytest.mark.parametrize("kind", ["grounding-dino", "mm-grounding-dino"])
@torch.inference_mode()
def test_a_whole_detector_answers_as_before(checkpoint, kind):
    from transformers import AutoModelForZeroShotObjectDetection

    model = AutoModelForZeroShotObjectDetection.from_pretrained(checkpoint("detector", kind=kind)).eval()
    ids = torch.tensor([[101, 1030, 1012, 1031, 1032, 1012, 102]]).expand(2, -1)
    asked = {"pixel_values": _random(2, 3, 96, 128), "input_ids": ids, "pixel_mask": torch.ones(2, 96, 128).long()}
    asked["pixel_mask"][1, :, 100:] = 0
    expected = model(**asked)
    assert quicken(model) == 2 + 2 + 2  # fusion and sampling of two encoder layers, sampling of two decoder layers
    answer = model(**asked)
    torch.testing.assert_close(answer.pred_boxes, expected.pred_boxes, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(answer.logits.sigmoid(), expected.logits.sigmoid(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["grounding-dino", "mm-grounding-dino"])
@torch.inference_mode()
def test_shapes_are_not_checked_in_this_model_alone(checkpoint, kind, monkeypatch):
    from transformers import AutoModelForZeroShotObjectDetection

    path = checkpoint("detector", kind=kind)
    model, other = (AutoModelForZeroShotObjectDetection.from_pretrained(path).eval() for _ in range(2))
    asked = {"pixel_values": _random(1, 3, 96, 128), "input_ids": torch.tensor([[101, 1030, 1012, 102]])}
    expected = model(**asked)
    assert trust_shapes(model) == 2 + 2  # two encoder layers, two decoder layers
    assert trust_shapes(model) == 0
    monkeypatch.setattr("torch._check_tensor_all_with", lambda *_: pytest.fail("checked"))
    torch.testing.assert_close(model(**asked).logits, expected.logits, atol=0, rtol=0)
    with pytest.raises(pytest.fail.Exception, match="checked"):
        other(**asked)
