"""Checkpoints with random weights, small enough for a test and in the layouts the backends load."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

WORDS = ["scratch", "dent", "rust", "crack", "hole", "stain", "a", "long", "thin", "on", "paint", "co", "op", "é"]


def write_vocabulary(folder: Path) -> Path:
    """A BERT vocabulary with its special tokens where the models expect them: 101, 102, 1012 and 1029."""
    tokens = [f"[unused{i}]" for i in range(1100)]
    tokens[0], tokens[100], tokens[101], tokens[102], tokens[103] = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
    tokens[1012], tokens[1029], tokens[1011], tokens[1010] = ".", "?", "-", ","
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    for word in [*WORDS, *letters, *(f"##{c}" for c in letters), *(f"##{w}" for w in WORDS)]:
        if word not in tokens:
            tokens.append(word)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", "utf-8")
    return folder / "vocab.txt"


def write_tokenizer(folder: Path) -> int:
    """Save a BERT tokenizer of that vocabulary; returns its size."""
    from transformers import BertTokenizer

    vocabulary = write_vocabulary(folder)
    tokenizer = BertTokenizer(vocab=str(vocabulary))
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def shake(model: torch.nn.Module, seed: int, scale: float = 1.0) -> None:
    """Give every parameter random values of a trained network's size: initial zeros would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * noise)
            elif parameter.ndim < 2:
                parameter.copy_(0.1 * scale * noise)
            else:
                fan_in = parameter[0].numel()
                parameter.copy_(scale * noise / fan_in**0.5)


def detector_config(vocabulary: int, kind: str = "grounding-dino", **changes: object) -> object:
    from transformers import BertConfig, GroundingDinoConfig, MMGroundingDinoConfig, SwinConfig

    swin = SwinConfig(
        embed_dim=24, depths=[1, 1, 2, 1], num_heads=[2, 2, 4, 4], window_size=7, out_indices=[2, 3, 4], image_size=128
    )
    bert = BertConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
    )
    settings = {
        "backbone_config": swin, "text_config": bert, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
        "num_queries": 30, "max_text_len": 256, **changes,
    }  # fmt: skip
    return {"grounding-dino": GroundingDinoConfig, "mm-grounding-dino": MMGroundingDinoConfig}[kind](**settings)


def write_detector(
    folder: Path, kind: str = "grounding-dino", seed: int = 0, edge: int = 128, config: object = None, **changes: int
) -> Path:
    """Save a small detector with tokenizer and image processor, as ``save_pretrained`` lays them out."""
    from transformers import AutoModelForZeroShotObjectDetection, GroundingDinoImageProcessor

    vocabulary = write_tokenizer(folder)
    config = config or detector_config(vocabulary, kind, **changes)
    torch.manual_seed(seed)
    model = AutoModelForZeroShotObjectDetection.from_config(config)
    shake(model, seed)
    with torch.no_grad():
        # The class head is a plain dot product: keep its scores away from 0 and 1, so that they can differ.
        for norm in (model.model.decoder.layer_norm, model.model.enc_output_norm):
            norm.weight.mul_(2 * config.d_model**-0.5)
            norm.bias.mul_(2 * config.d_model**-0.5)
    model.save_pretrained(folder)
    size = {"shortest_edge": edge, "longest_edge": 1333 if edge == 800 else 2 * edge}
    GroundingDinoImageProcessor(size=size).save_pretrained(folder)
    return folder


def segmenter_config(image_size: int, *, full: bool = False) -> str:
    """SAM 2.1's own tiny configuration, unless ``full`` at a smaller width, as the package's YAML has it."""
    import sam2
    import yaml

    path = Path(sam2.__file__).parent / "configs" / "sam2.1" / "sam2.1_hiera_t.yaml"
    config = yaml.safe_load(path.read_text("utf-8"))
    model = config["model"]
    model["image_size"] = image_size
    if full:
        return yaml.safe_dump(config)
    trunk = model["image_encoder"]["trunk"]
    trunk.update(embed_dim=16, stages=[1, 1, 2, 1], global_att_blocks=[3])
    model["image_encoder"]["neck"]["backbone_channel_list"] = [128, 64, 32, 16]
    model["memory_attention"]["num_layers"] = 1
    return yaml.safe_dump(config)


def write_segmenter(
    folder: Path, image_size: int = 256, seed: int = 0, *, half: bool = False, full: bool = False
) -> Path:
    """Save a small SAM 2 as ``config.yaml`` and ``model.safetensors``."""
    from safetensors.torch import save_file

    from autolabel.models.sam2 import build

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(segmenter_config(image_size, full=full), "utf-8")
    model = build(folder / "config.yaml")
    shake(model, seed, 1.5)
    state = {k: v.half() if half else v for k, v in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    return folder


def write_classifier(
    folder: Path, seed: int = 0, *, siglip: bool = False, extra: dict[str, object] | None = None
) -> Path:
    """Save a small open_clip model with its configuration; its tokenizer is the one in the package."""
    import open_clip
    from safetensors.torch import save_file

    config: dict[str, object] = {
        "model_cfg": {
            "embed_dim": 32,
            "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
        },
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "resize_mode": "shortest"},
        **(extra or {}),
    }
    if siglip:
        config["model_cfg"]["init_logit_bias"] = -10  # type: ignore[index]
        config["model_cfg"]["custom_text"] = True  # type: ignore[index]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config), "utf-8")
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    shake(model, seed)
    with torch.no_grad():
        model.logit_scale.fill_(np.log(20.0))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A smooth random picture with a few sharp shapes: ``(height, width, 3)`` uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    image = np.stack([128 + 90 * np.sin(x / rng.uniform(8, 40) + y / rng.uniform(8, 40) + c) for c in range(3)], -1)
    for _ in range(4):
        left, top = rng.integers(0, max(1, width - 8)), rng.integers(0, max(1, height - 8))
        image[top : top + height // 5 + 1, left : left + width // 5 + 1] = rng.integers(0, 255, 3)
    return image.clip(0, 255).astype(np.uint8)
