"""The two dearest layers of transformers' Grounding DINO in forms that cost less and answer the same, up to rounding.

Fusion (Grounding DINO, arXiv 2303.05499) attends between tens of thousands of places of an image and a dozen words, and
projects each place to the attention's width three times. Products are associative: it is the words that are projected
here, both ways, so that a place is multiplied with 4 x words columns instead of 1024.

Deformable attention (Deformable DETR, arXiv 2010.04159) is a weighted sum of rows: for each query and head the four
neighbours of every sampled point. On a CPU `embedding_bag` does just that, reading a head's features as one row, where
`grid_sample` gathers number by number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch.nn import functional as F

_CHECK = "torch_compilable_check"
_LIMIT = 50_000
"""The package's bound of attention weights before a softmax, for float16."""
_QUERIES = 512
"""Queries of one sum for each thread: what is worked out for them stays in a core's cache."""
_MOST_ROWS = 2**31 - 1
"""Rows are counted in 32 bits, half of what 64 take to write and read."""

Sizes = Sequence[tuple[int, int]]
"""Height and width of each level of features."""
Fused = tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def quicken(model: torch.nn.Module) -> int:
    """Replace the layers of a transformers model in place; returns how many."""
    count = 0
    for module in model.modules():
        name = type(module).__name__
        if name.endswith("BiMultiHeadAttention"):
            module.forward = partial(fused, module)
        elif name == "MultiScaleDeformableAttention":
            module.forward = partial(_sampled, module.forward)
        else:
            continue
        count += 1
    return count


def trust_shapes(model: torch.nn.Module) -> int:
    """Leave out, in place, a check in each deformable layer that the shapes fit, which come from the model itself.

    On a GPU the check waits for the device; the first one imports the symbols of torch's compiler, which takes seconds.
    Returns how many layers made it.
    """
    count = 0
    for module in model.modules():
        forward = type(module).forward
        names = getattr(getattr(forward, "__code__", None), "co_names", ())
        if _CHECK not in names or "forward" in vars(module):
            continue
        unchecked = FunctionType(
            forward.__code__,
            {**forward.__globals__, _CHECK: lambda *_: None},
            forward.__name__,
            forward.__defaults__,
            forward.__closure__,
        )
        unchecked.__kwdefaults__ = forward.__kwdefaults__
        module.forward = MethodType(unchecked, module)
        count += 1
    return count


def fused(
    module: Any,
    vision_features: torch.Tensor,
    text_features: torch.Tensor,
    vision_attention_mask: torch.Tensor | None = None,
    text_attention_mask: torch.Tensor | None = None,
) -> Fused:
    """Let ``(B, N, C)`` places and ``(B, T, C)`` words attend to each other, as the package's ``module`` does.

    Masks ``(B, N)`` and ``(B, T)`` are true where there is nothing. Returns each side's answer, ``(B, N, C)`` and
    ``(B, T, C)``, with its weights ``(B, heads, N, T)`` and ``(B, heads, T, N)``.
    """
    heads, width, batch, words = module.num_heads, module.head_dim, len(text_features), text_features.shape[1]
    query, query_bias = _by_head(module.vision_proj, heads)
    value, value_bias = _by_head(module.values_vision_proj, heads)
    keys = _split(module.text_proj(text_features), heads) * module.scale
    columns = (keys @ query).flatten(1, 2).transpose(1, 2)
    offsets = (keys @ query_bias[..., None]).flatten(1)
    weights = torch.baddbmm(offsets[:, None], vision_features, columns)
    weights = (weights - weights.max()).clamp(-_LIMIT, _LIMIT)

    places = weights.transpose(1, 2)
    places = (places - places.amax(dim=-1, keepdim=True)).clamp(-_LIMIT, _LIMIT)
    if vision_attention_mask is not None:
        places = places.masked_fill(vision_attention_mask[:, None], float("-inf"))
    text_weights = places.softmax(dim=-1)
    # The weights of a word add up to 1, so the values' bias may be added after the sum.
    seen = (text_weights @ vision_features).view(batch, heads, words, -1)
    to_text = seen @ value.transpose(1, 2) + value_bias[:, None]
    text = module.out_text_proj(to_text.transpose(1, 2).flatten(2))

    weights = weights.view(batch, -1, heads, words)
    if text_attention_mask is not None:
        weights = weights.masked_fill(text_attention_mask[:, None, None], float("-inf"))
    vision_weights = weights.softmax(dim=-1)
    out = module.out_vision_proj.weight.view(-1, heads, width).permute(1, 2, 0)
    rows = (_split(module.values_text_proj(text_features), heads) @ out).flatten(1, 2)
    vision = torch.baddbmm(module.out_vision_proj.bias.expand(batch, 1, -1), vision_weights.flatten(2), rows)
    return (vision, vision_weights.transpose(1, 2)), (text, text_weights.view(batch, heads, words, -1))


def _split(features: torch.Tensor, heads: int) -> torch.Tensor:
    """From ``(B, T, heads * D)`` to ``(B, heads, T, D)``."""
    return features.view(len(features), -1, heads, features.shape[-1] // heads).transpose(1, 2)


def _by_head(layer: Any, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights ``(heads, D, C)`` and bias ``(heads, D)`` of a linear layer."""
    return layer.weight.view(heads, -1, layer.weight.shape[1]), layer.bias.view(heads, -1)


def _sampled(grid_sample: Callable[..., torch.Tensor], *arguments: Any) -> torch.Tensor:
    """Stand in for the package's own function, and call it for what `sampled` is not made for."""
    value, _, sizes_hw, _, locations, weights, _ = arguments
    if (
        value.device.type == "cpu"
        and value.dtype == locations.dtype == weights.dtype == torch.float32
        and not torch.compiler.is_compiling()
        and not torch.compiler.is_exporting()
        and value.shape[0] * value.shape[2] * _lines(sizes_hw) * _line(sizes_hw) <= _MOST_ROWS
        and bool(locations.sum().isfinite())  # what is no number has no row
    ):
        return sampled(value, sizes_hw, locations, weights)
    return grid_sample(*arguments)


def sampled(value: torch.Tensor, sizes_hw: Sizes, locations: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Sum features of ``(B, S, heads, D)`` at points between places, bilinearly, 0 outside: ``(B, Q, heads * D)``.

    ``locations`` is ``(B, Q, heads, L, P, 2)`` x and y relative to each level, ``weights`` ``(B, Q, heads, L, P)``.
    """
    batch, _, heads, width = value.shape
    queries, _, levels, points, _ = locations.shape[1:]
    table = _framed(value, sizes_hw)
    line = _line(sizes_hw) * heads
    height, length = (torch.tensor(side, dtype=torch.float32)[:, None] for side in zip(*sizes_hw, strict=True))
    nothing, half = torch.zeros(1), torch.full((1,), 0.5)
    # The row of the frame's corner: (heads, L, 1), and (B, 1, heads, L, 1) with the image's.
    starts = [_lines(sizes_hw[:level]) * line for level in range(levels)]
    first = torch.tensor(starts, dtype=torch.int32)[:, None] + torch.arange(heads, dtype=torch.int32)[:, None, None]
    first = first + (torch.arange(batch, dtype=torch.int32) * (_lines(sizes_hw) * line)).view(-1, 1, 1, 1, 1)
    sums = []
    step = _QUERIES * torch.get_num_threads()
    for start in range(0, queries, step):
        part = slice(start, start + step)
        # Places count from the frame's, so that they are not below 0 and their whole part is the neighbour before.
        x = torch.addcmul(half, locations[:, part, ..., 0], length).clamp_(nothing, length + 1)
        y = torch.addcmul(half, locations[:, part, ..., 1], height).clamp_(nothing, height + 1)
        rows = torch.add(first, y.to(torch.int32), alpha=line).add_(x.to(torch.int32), alpha=heads)
        right, down = x.frac_(), y.frac_()
        lower = weights[:, part] * down
        upper = weights[:, part] - lower
        upper_right, lower_right = upper * right, lower.mul(right)
        # One row further is the neighbour to the right, one line further the one below.
        corners = ((0, upper.sub_(upper_right)), (heads, upper_right), (line, lower.sub_(lower_right)))
        bags = rows.view(-1, levels * points)
        total = _bagged(bags, table[line + heads :], lower_right)
        for further, shares in corners:
            total += _bagged(bags, table[further:], shares)
        sums.append(total.view(batch, -1, heads * width))
    return torch.cat(sums, 1)


def _bagged(rows: torch.Tensor, table: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    return F.embedding_bag(rows, table, per_sample_weights=shares.view(rows.shape), mode="sum")


def _line(sizes_hw: Sizes) -> int:
    """Places of a line of each level with its frame; as long for all, so that the line below is as far for all."""
    return max(width for _, width in sizes_hw) + 3


def _lines(sizes_hw: Sizes) -> int:
    return sum(height + 3 for height, _ in sizes_hw)


def _framed(value: torch.Tensor, sizes_hw: Sizes) -> torch.Tensor:
    """Put zeros round each level, one place before it and two behind, so that neighbours outside are rows like others.

    Returns ``(B * lines * line * heads, D)``, a row for each head's features of a place.
    """
    batch, _, heads, width = value.shape
    framed = value.new_zeros((batch, _lines(sizes_hw), _line(sizes_hw), heads * width))
    start, top = 0, 1
    for height, length in sizes_hw:
        level = value[:, start : start + height * length].reshape(batch, height, length, -1)
        framed[:, top : top + height, 1 : length + 1] = level
        start, top = start + height * length, top + height + 3
    return framed.view(-1, width)
