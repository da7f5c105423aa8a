"""The starter detector: a small Grounding DINO with a tokenizer and an image processor, as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertTokenizerFast,
    ConvNextConfig,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
)

from training.vocabulary import wordpieces

WIDTH: Final = 128
QUERIES: Final = 50
TILE_FROM: Final = 2.25
"""Pictures longer than so many times the input are shown in tiles too: chosen on validation pictures."""


def configuration() -> MMGroundingDinoConfig:
    """Architecture: ConvNeXt, three backbone strides (8, 16, 32) and one more, two encoder and three decoder layers."""
    backbone = ConvNextConfig(
        hidden_sizes=[32, 64, 128, 192], depths=[2, 2, 4, 2], out_features=["stage2", "stage3", "stage4"],
        drop_path_rate=0.0, layer_scale_init_value=0.1,
    )  # fmt: skip
    text = BertConfig(
        vocab_size=len(wordpieces()), hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=256, max_position_embeddings=256, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return MMGroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=WIDTH, num_queries=QUERIES,
        encoder_layers=2, decoder_layers=3, encoder_ffn_dim=256, decoder_ffn_dim=256,
        encoder_attention_heads=4, decoder_attention_heads=4, num_feature_levels=4,
        dropout=0.0, fusion_droppath=0.0, auxiliary_loss=True, max_text_len=256, autolabel={"tile_from": TILE_FROM},
    )  # fmt: skip


def build() -> MMGroundingDinoForObjectDetection:
    """Build a fresh model with random weights."""
    return MMGroundingDinoForObjectDetection(configuration())


def save_tokenizer(folder: Path) -> None:
    """Write the tokenizer files of our own vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(wordpieces()) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(
        vocab={piece: index for index, piece in enumerate(wordpieces())}, do_lower_case=True, model_max_length=256
    )
    tokenizer.save_pretrained(folder)


def load_tokenizer(folder: Path) -> Any:
    """Read the tokenizer written by ``save_tokenizer``."""
    return AutoTokenizer.from_pretrained(folder)


def save_folder(weights: dict[str, torch.Tensor], folder: Path, edges: tuple[int, int]) -> None:
    """Write everything ``from_pretrained`` needs; weights in float16, ``edges`` = (shortest, longest) px."""
    model = build()
    model.load_state_dict(weights)
    save_tokenizer(folder)
    images = GroundingDinoImageProcessor(size={"shortest_edge": edges[0], "longest_edge": edges[1]})
    GroundingDinoProcessor(images, load_tokenizer(folder)).save_pretrained(folder)
    images.save_pretrained(folder)  # preprocessor_config.json, for older readers
    model.half().save_pretrained(folder)
    check = load_file(folder / "model.safetensors")
    save_file(check, folder / "model.safetensors", metadata={"format": "pt"})
