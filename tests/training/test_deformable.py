"""The compiled attention gives what the stock one gives, forward and backward."""

from __future__ import annotations

import pytest
import torch
from transformers.models.mm_grounding_dino.modeling_mm_grounding_dino import MultiScaleDeformableAttention

from training import deformable
from training.detector_model import build

SHAPES = [(9, 12), (5, 6), (1, 1)]


def compiled() -> deformable.CompiledAttention:
    if deformable.library() is None:
        pytest.skip("no C compiler here: trainings use the stock attention")
    return deformable.CompiledAttention()


@pytest.mark.parametrize("depth", [32, 5])
def test_compiled_attention_and_its_gradients_equal_the_stock_ones(depth: int) -> None:
    fast, generator = compiled(), torch.Generator().manual_seed(3)
    length = sum(high * wide for high, wide in SHAPES)
    value = torch.randn(2, length, 4, depth, generator=generator)
    places = torch.rand(2, 7, 4, len(SHAPES), 4, 2, generator=generator) * 1.6 - 0.3  # some lie outside
    weights = torch.rand(2, 7, 4, len(SHAPES), 4, generator=generator)
    up = torch.randn(2, 7, 4 * depth, generator=generator)
    outcomes = []
    for attend in (MultiScaleDeformableAttention(), fast):
        leaves = [tensor.clone().requires_grad_() for tensor in (value, places, weights)]
        out = attend(leaves[0], torch.tensor(SHAPES), SHAPES, torch.zeros(len(SHAPES)), leaves[1], leaves[2], 64)
        out.backward(up)
        outcomes.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for stock, mine in zip(*outcomes, strict=True):
        torch.testing.assert_close(mine, stock, rtol=1e-4, atol=1e-4)


def test_every_deformable_attention_of_the_detector_is_replaced() -> None:
    compiled()
    model = build()
    before = sum(isinstance(module, MultiScaleDeformableAttention) for module in model.modules())
    assert deformable.speed_up(model)
    after = [sum(isinstance(m, kind) for m in model.modules())
             for kind in (MultiScaleDeformableAttention, deformable.CompiledAttention)]  # fmt: skip
    assert (before > 0, after) == (True, [0, before])
