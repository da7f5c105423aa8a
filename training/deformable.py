"""Deformable attention for training on a processor: one pass in C instead of grids, stacks and products in memory.

The stock code of transformers spends a third of a training step there; without a C compiler it is used as it is.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers.models.mm_grounding_dino.modeling_mm_grounding_dino import MultiScaleDeformableAttention

from training.runtime import WORK

SOURCE: Final = Path(__file__).with_suffix(".c")
FLAGS: Final = ("-O3", "-march=native", "-ffast-math", "-fno-finite-math-only", "-fPIC", "-shared")


@cache
def library() -> ctypes.CDLL | None:
    """Compile the C file for this processor, once; None where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    named = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:12]
    path = WORK / f"deformable-{named}.so"
    if not path.exists():
        WORK.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, *FLAGS, str(SOURCE), "-o", str(fresh), "-lm"], check=True)
        fresh.replace(path)
    return ctypes.CDLL(str(path))


def _call(name: str, tensors: list[Tensor], sizes: tuple[int, ...]) -> None:
    found = library()
    if found is None:
        raise RuntimeError("no C compiler: speed_up() leaves the stock attention in place then")
    addresses = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
    getattr(found, name)(*addresses, *(ctypes.c_int64(size) for size in sizes))


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, places: Tensor, weights: Tensor, shapes: Tensor) -> Tensor:
        batch, length, heads, depth = value.shape
        queries, levels, points = weights.shape[1], weights.shape[3], weights.shape[4]
        ctx.sizes = (batch, length, queries, heads, levels, points, depth)
        ctx.save_for_backward(value, places, weights, shapes)
        out = value.new_empty(batch, queries, heads, depth)
        _call("forward", [value, places, weights, shapes, out], ctx.sizes)
        return out.flatten(2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        value, places, weights, shapes = ctx.saved_tensors
        to_value, to_places, to_weights = torch.zeros_like(value), torch.empty_like(places), torch.empty_like(weights)
        up = grads[0].float().contiguous()
        _call("backward", [value, places, weights, shapes, up, to_value, to_places, to_weights], ctx.sizes)
        return to_value, to_places, to_weights, None


class CompiledAttention(nn.Module):
    """Stands in for transformers' ``MultiScaleDeformableAttention`` on a processor; computes in float32."""

    def forward(
        self, value: Tensor, spatial_shapes: Tensor, shapes_list: Any, starts: Tensor, places: Tensor, weights: Tensor,
        im2col_step: int,
    ) -> Tensor:  # fmt: skip
        """Sum ``value`` ``(B, S, H, D)`` at ``places`` ``(B, Q, H, L, P, 2)`` by ``weights``; ``(B, Q, H * D)``."""
        shapes = torch.tensor([list(shape) for shape in shapes_list], dtype=torch.int64)
        parts = [tensor.float().contiguous() for tensor in (value, places, weights)]
        attended: Tensor = _Attend.apply(*parts, shapes)  # type: ignore[no-untyped-call]
        return attended


def speed_up(model: nn.Module) -> bool:
    """Put the compiled attention into a model; false, and nothing done, where there is no compiler."""
    if library() is None:
        return False
    for module in list(model.modules()):
        if isinstance(getattr(module, "attn", None), MultiScaleDeformableAttention):
            module.attn = CompiledAttention()
    return True
