"""The starter segmenter: a small SAM 2 for single pictures, in the layout of the official configuration files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor

from training.runtime import half

IMAGE_SIZE: Final = 384
WIDTH: Final = 128
STEM: Final = 32
WINDOW_PX: Final = 128
WINDOW_ZOOM: Final = 1.6
"""Windows that a mask is made in: least side px, and side in longer sides of its box; chosen on validation pictures."""


def _positions(channels: int) -> dict[str, Any]:
    return {
        "_target_": "sam2.modeling.position_encoding.PositionEmbeddingSine",
        "num_pos_feats": channels, "normalize": True, "scale": None, "temperature": 10000,
    }  # fmt: skip


def configuration(image_size: int = IMAGE_SIZE) -> dict[str, Any]:
    """Content of ``config.yaml``. No memory of earlier frames: its modules are empty shells that SAM2Base asks for."""
    return {
        "model": {
            "_target_": "sam2.modeling.sam2_base.SAM2Base",
            "image_encoder": {
                "_target_": "sam2.modeling.backbones.image_encoder.ImageEncoder",
                "scalp": 1,
                "trunk": {
                    "_target_": "sam2.modeling.backbones.hieradet.Hiera",
                    "embed_dim": STEM, "num_heads": 1, "stages": [1, 2, 3, 1], "global_att_blocks": [4, 5],
                    "window_pos_embed_bkg_spatial_size": [7, 7], "window_spec": [8, 4, 8, 4],
                },
                "neck": {
                    "_target_": "sam2.modeling.backbones.image_encoder.FpnNeck",
                    "position_encoding": _positions(WIDTH),
                    "d_model": WIDTH,
                    "backbone_channel_list": [8 * STEM, 4 * STEM, 2 * STEM, STEM],
                    "fpn_top_down_levels": [2, 3], "fpn_interp_model": "nearest",
                },
            },
            "memory_attention": {
                "_target_": "sam2.modeling.memory_attention.MemoryAttention",
                "d_model": WIDTH, "pos_enc_at_input": True, "layer": None, "num_layers": 0,
            },
            "memory_encoder": {
                "_target_": "sam2.modeling.memory_encoder.MemoryEncoder",
                "out_dim": 16, "in_dim": WIDTH, "mask_downsampler": None, "fuser": None,
                "position_encoding": _positions(16),
            },
            "num_maskmem": 1,
            "image_size": image_size,
            "directly_add_no_mem_embed": True,
            "use_high_res_features_in_sam": True,
            "sam_mask_decoder_extra_args": {"dynamic_multimask_via_stability": False},
            "multimask_output_in_sam": True,
            "iou_prediction_use_sigmoid": True,
            "compile_image_encoder": False,
        },
        # Read by autolabel alone: a model this small leaves specks far from its box, it was trained on boxes only, and
        # its few cells must lie close round a defect.
        "autolabel": {"margin": "0.1", "points": "false", "window": str(WINDOW_PX), "zoom": str(WINDOW_ZOOM)},
    }  # fmt: skip


def build(image_size: int = IMAGE_SIZE) -> Any:
    """Build a fresh ``SAM2Base``; its weights do not depend on ``image_size``, so they move between sizes."""
    return instantiate(OmegaConf.create(configuration(image_size))["model"], _recursive_=True)


def save_folder(weights: dict[str, Tensor], folder: Path) -> None:
    """Write ``config.yaml`` and ``model.safetensors`` (float16)."""
    text = yaml.safe_dump(configuration(), sort_keys=False)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    save_file(half(weights), folder / "model.safetensors", metadata={"format": "pt"})


def predict(model: Any, pixels: Tensor, owner: Tensor, boxes: Tensor, as_points: bool = True) -> tuple[Tensor, Tensor]:
    """Logits of the four masks of every box, ``(N, 4, S/4, S/4)``, and their predicted IoU ``(N, 4)``.

    ``pixels`` ``(B, 3, S, S)`` normalised; ``owner`` ``(N,)`` tells each box's picture; ``boxes`` ``(N, 4)`` xyxy in
    px of the S-px input. ``as_points`` prompts as the official predictor does (corner points), else by ``boxes=``.
    """
    features = model.forward_image(pixels)["backbone_fpn"]
    fine, middle, coarse = features[0], features[1], features[2] + model.no_mem_embed[0][..., None, None]
    encoder = model.sam_prompt_encoder
    size = pixels.shape[-1]
    encoder.input_image_size = (size, size)
    encoder.image_embedding_size = (size // 16, size // 16)
    points = (
        boxes.reshape(-1, 2, 2),
        torch.tensor([[2, 3]], dtype=torch.int32, device=boxes.device).expand(len(boxes), 2),
    )
    sparse, dense = encoder(points=points if as_points else None, boxes=None if as_points else boxes, masks=None)
    masks, quality, _, _ = model.sam_mask_decoder.predict_masks(
        image_embeddings=coarse[owner],
        image_pe=encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=[fine[owner], middle[owner]],
    )
    return masks, quality
