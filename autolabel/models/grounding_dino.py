"""Grounding DINO, MM Grounding DINO and LLMDet through transformers: pure PyTorch, nothing to compile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForZeroShotObjectDetection, AutoTokenizer, GroundingDinoImageProcessor
from transformers.models.bert import modeling_bert  # noqa: F401 - now, while what it would import in vain can wait
from transformers.utils import logging

from autolabel.errors import ModelError
from autolabel.models.dino import DinoDetector, DinoModel, DinoOptions, exact_heads
from autolabel.models.dino_layers import quicken, trust_shapes
from autolabel.models.hub import locate
from autolabel.models.phrases import Pass
from autolabel.models.runtime import keep_memory, on_gpu
from autolabel.models.sets import licence_of
from autolabel.models.specs import Options, folder_defaults
from autolabel.models.text_once import TextOnce
from autolabel.models.weights import weights_sha256
from autolabel.protocols import ModelRef, Runtime
from autolabel.types import ModelInfo

_MODEL_TYPES = ("grounding-dino", "mm-grounding-dino")


def load(ref: ModelRef, runtime: Runtime) -> DinoDetector:
    """Load a checkpoint folder, a repository of the hub, or ``starter``.

    Options: ``batch`` (images of one forward pass; otherwise as many as fit on a GPU, as are quickest on a CPU),
    ``span`` (``max`` or ``mean`` over a phrase's tokens), ``phrases_per_pass`` (0: as many as fit), ``tile_from`` and
    ``tile_zoom``. A folder may state its own in a table ``autolabel`` of its ``config.json``.
    """
    found = locate(ref, runtime)
    options = Options(ref, folder_defaults(Path(found.folder) / "config.json"))
    settings = DinoOptions.read(options)
    options.done()
    folder = str(found.folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if config.model_type not in _MODEL_TYPES:
        raise ModelError(f"{ref}: model type {config.model_type!r} is none of {', '.join(_MODEL_TYPES)}")
    if not on_gpu(runtime):
        keep_memory()
    digest = weights_sha256(found.weights)
    with _no_progress_bar():
        model = AutoModelForZeroShotObjectDetection.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    model = model.eval().to(runtime.device)
    exact_heads(model, runtime)
    info = ModelInfo(str(ref), digest, licence_of(ref), runtime.device, runtime.dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    longest = min(config.max_text_len, config.text_config.max_position_embeddings)
    processor = GroundingDinoImageProcessor.from_pretrained(folder, local_files_only=True)
    return DinoDetector(info, settings, DinoModel(tokenizer, longest, processor, Network(model)))


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Load without transformers' bar: it would be drawn across a run's own output."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class Network:
    """One forward pass of transformers' model, with its dearest layers quicker and each caption's text encoded once."""

    def __init__(self, model: Any) -> None:
        quicken(model)
        trust_shapes(model)
        self.model = model
        self.text = TextOnce.over(model.model.text_backbone)

    def __call__(self, pixels: torch.Tensor, mask: torch.Tensor, each: Pass) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits ``(B, Q, T)`` and relative boxes ``(B, Q, 4)`` for ``(B, 3, H, W)`` pixel values."""
        ids = torch.tensor([each.token_ids], device=pixels.device).expand(len(pixels), -1)
        with self.text.reading(each.token_ids):
            outputs = self.model(
                pixel_values=pixels,
                pixel_mask=mask,
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                token_type_ids=torch.zeros_like(ids),
            )
        return outputs.logits, outputs.pred_boxes
