"""The same Grounding DINO weights under the names of the official checkpoints."""

from __future__ import annotations

import re

import torch

_RENAMES = [
    (r"^model\.text_backbone\.", "bert."),
    (r"^model\.text_projection\.", "feat_map."),
    (r"^model\.input_proj_vision\.", "input_proj."),
    (r"^model\.query_position_embeddings\.", "transformer.tgt_embed."),
    (r"^model\.level_embed$", "transformer.level_embed"),
    (r"^model\.enc_output", "transformer.enc_output"),
    (r"^model\.encoder_output_bbox_embed\.", "transformer.enc_out_bbox_embed."),
    (r"^model\.backbone\.conv_encoder\.model\.", "backbone.0."),
    (r"^backbone\.0\.swin\.embeddings\.patch_embeddings\.projection\.", "backbone.0.patch_embed.proj."),
    (r"^backbone\.0\.swin\.embeddings\.norm\.", "backbone.0.patch_embed.norm."),
    (r"^backbone\.0\.swin\.encoder\.", "backbone.0."),
    (r"^backbone\.0\.hidden_states_norms\.stage2\.", "backbone.0.norm1."),
    (r"^backbone\.0\.hidden_states_norms\.stage3\.", "backbone.0.norm2."),
    (r"^backbone\.0\.hidden_states_norms\.stage4\.", "backbone.0.norm3."),
    (r"\.attention\.relative_position_bias\.relative_position_bias_table$", ".attn.relative_position_bias_table"),
    (r"^(backbone.*)\.attention\.o_proj\.", r"\1.attn.proj."),
    (r"^(backbone.*)\.layernorm_before\.", r"\1.norm1."),
    (r"^(backbone.*)\.layernorm_after\.", r"\1.norm2."),
    (r"^model\.encoder\.layers\.(\d+)\.text_enhancer_layer\.", r"transformer.encoder.text_layers.\1."),
    (r"^(.*text_layers.*)\.fc(\d)\.", r"\1.linear\2."),
    (r"^(.*text_layers.*)\.layer_norm_before\.", r"\1.norm1."),
    (r"^(.*text_layers.*)\.layer_norm_after\.", r"\1.norm2."),
    (r"^model\.encoder\.layers\.(\d+)\.fusion_layer\.", r"transformer.encoder.fusion_layers.\1."),
    (r"\.vision_param$", ".gamma_v"),
    (r"\.text_param$", ".gamma_l"),
    (r"\.layer_norm_vision\.", ".layer_norm_v."),
    (r"\.layer_norm_text\.", ".layer_norm_l."),
    (r"(fusion_layers.*)\.vision_proj\.", r"\1.v_proj."),
    (r"(fusion_layers.*)\.text_proj\.", r"\1.l_proj."),
    (r"\.values_vision_proj\.", ".values_v_proj."),
    (r"\.values_text_proj\.", ".values_l_proj."),
    (r"\.out_vision_proj\.", ".out_v_proj."),
    (r"\.out_text_proj\.", ".out_l_proj."),
    (r"^model\.encoder\.layers\.(\d+)\.deformable_layer\.", r"transformer.encoder.layers.\1."),
    (r"^(transformer\.encoder\.layers\.\d+)\.self_attn_layer_norm\.", r"\1.norm1."),
    (r"^(transformer\.encoder\.layers\.\d+)\.final_layer_norm\.", r"\1.norm2."),
    (r"^model\.decoder\.layer_norm\.", "transformer.decoder.norm."),
    (r"^model\.decoder\.reference_points_head\.", "transformer.decoder.ref_point_head."),
    (r"^model\.decoder\.", "transformer.decoder."),
    (r"^(transformer\.decoder\.layers\.\d+)\.encoder_attn_text_layer_norm\.", r"\1.catext_norm."),
    (r"^(transformer\.decoder\.layers\.\d+)\.encoder_attn_layer_norm\.", r"\1.norm1."),
    (r"^(transformer\.decoder\.layers\.\d+)\.self_attn_layer_norm\.", r"\1.norm2."),
    (r"^(transformer\.decoder\.layers\.\d+)\.final_layer_norm\.", r"\1.norm3."),
    (r"^(transformer\.decoder\.layers\.\d+)\.encoder_attn_text\.", r"\1.ca_text."),
    (r"^(transformer\.decoder\.layers\.\d+)\.encoder_attn\.", r"\1.cross_attn."),
    (r"^(transformer\.(?:en|de)coder\.layers\.\d+)\.fc(\d)\.", r"\1.linear\2."),
]  # fmt: skip
_THIRDS = ("q_proj", "k_proj", "v_proj"), ("query", "key", "value")


def to_official(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename transformers' tensors and join what the official code keeps as one matrix (query, key, value)."""
    official: dict[str, torch.Tensor] = {}
    for name, tensor in _joined(state).items():
        if name.startswith("model.backbone.conv_encoder.model.swin.layernorm."):
            continue  # transformers has a last norm that a detector does not use
        new = name
        for pattern, replacement in _RENAMES:
            new = re.sub(pattern, replacement, new)
        official[new] = tensor
    return official


def _joined(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    joined: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"(.*)\.(q_proj|k_proj|v_proj|query|key|value)\.(weight|bias)", name)
        bert = name.startswith("model.text_backbone.")
        if match is None or bert or "fusion_layer" in name:
            joined[name] = tensor
            continue
        base, part, kind = match.groups()
        thirds = next(names for names in _THIRDS if part in names)
        if part != thirds[0]:
            continue
        whole = torch.cat([state[f"{base}.{each}.{kind}"] for each in thirds])
        if "backbone.conv_encoder" in name:
            joined[base.replace(".attention", ".attn.qkv") + f".{kind}"] = whole
        else:
            joined[f"{base}.in_proj_{kind}"] = whole
    return joined
