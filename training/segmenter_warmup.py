"""First lesson of the segmenter: what a box prompt means, taught to the decoder alone.

Trained at once on whole pictures, a small SAM 2 takes very long to find out that the mask lies inside the box. Here
the image features are cached, the boxes are random and the target is the filled box: a minute of cheap steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from training import runtime
from training.detector_data import to_input
from training.segmenter_data import SegmenterBatches

SIZE: Final = 256
BOXES: Final = 24


def separable_frequencies(pairs: int) -> Tensor:
    """Position frequencies ``(2, pairs)``, half along x, half along y, a third of them so low that they are monotone.

    SAM draws them at random; a box test is a comparison of coordinates, which monotone features make easy.
    """
    count = pairs // 2
    slow = torch.full((count // 3,), 0.25)
    fast = torch.logspace(-1, 3.3, count - len(slow), base=2.0)
    along = torch.cat([slow, fast])
    matrix = torch.zeros(2, pairs)
    matrix[0, :count] = along
    matrix[1, count:] = along
    return matrix


def coordinate_channels(channels: int, cells: int) -> Tensor:
    """Content for the trunk's position embedding ``(1, channels, cells, cells)``: x, y, their squares and waves.

    It gives every pixel its place in the very first layer, so that a mask can be written as a function of place.
    """
    at = (torch.arange(cells) + 0.5) * 2 / cells - 1
    x, y = at[None, :].expand(cells, cells), at[:, None].expand(cells, cells)
    waves = [f(torch.pi * k * v) for k in (1, 2) for f in (torch.sin, torch.cos) for v in (x, y)]
    found = torch.stack([x, y, x**2 - 0.3, y**2 - 0.3, *waves])
    content = torch.zeros(1, channels, cells, cells)
    content[0, : len(found)] = found
    return content


def random_boxes(count: int) -> Tensor:
    """Boxes ``(count, 4)`` px inside the picture, log-uniform sides from a twentieth to nine tenths of it."""
    sides = SIZE * torch.exp(torch.empty(count, 2).uniform_(-3.0, -0.1))
    low = torch.rand(count, 2) * (SIZE - sides)
    return torch.cat([low, low + sides], dim=1)


def filled(boxes: Tensor, cells: int) -> Tensor:
    """Coverage of each of ``cells`` squared cells by each box, ``(N, cells, cells)`` in 0..1."""
    edge = SIZE / cells
    at = torch.arange(cells, device=boxes.device) * edge
    cover = [
        (torch.minimum(boxes[:, None, k + 2], at + edge) - torch.maximum(boxes[:, None, k], at)).clamp(min=0) / edge
        for k in (0, 1)
    ]
    return cover[1][:, :, None] * cover[0][:, None, :]


def learn_boxes(
    model: Any, make: SegmenterBatches, log_path: Path, *, seed: int, seconds: float | None, steps: int | None
) -> None:
    """Train prompt encoder and mask decoder to fill the box, over features of some pictures."""
    device = next(model.parameters()).device
    encoder, decoder = model.sam_prompt_encoder, model.sam_mask_decoder
    positions = encoder.pe_layer.positional_encoding_gaussian_matrix
    positions.copy_(separable_frequencies(positions.shape[1]))
    place = model.image_encoder.trunk.pos_embed
    with torch.no_grad():
        place.copy_(1.5 * coordinate_channels(place.shape[1], place.shape[-1]))
    encoder.input_image_size, encoder.image_embedding_size = (SIZE, SIZE), (SIZE // 16, SIZE // 16)
    made = [make(np.random.default_rng([seed, 12, number]), 0.0).pixels for number in range(4)]
    with torch.no_grad():
        pixels = to_input(torch.cat(made)[: BOXES * 2], device)
        fine, middle, coarse = model.image_encoder(pixels)["backbone_fpn"]
        coarse = coarse + model.no_mem_embed[0][..., None, None]
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = runtime.Schedule(None if steps else (seconds or 0) / 60, steps)
    step, smooth = 0, 0.0
    while (share := schedule.progress(step)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = runtime.learning_rate(0.8 * share, step, 1e-3, warmup_steps=50)
        boxes = random_boxes(BOXES).to(device)
        owner = torch.randint(len(coarse), (BOXES,)).to(device)
        corners = (boxes.reshape(-1, 2, 2), torch.tensor([[2, 3]], dtype=torch.int32, device=device).expand(BOXES, 2))
        sparse, dense = encoder(points=corners if step % 3 else None, boxes=None if step % 3 else boxes, masks=None)
        logits, _, _, _ = decoder.predict_masks(
            image_embeddings=coarse[owner],
            image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            repeat_image=False,
            high_res_features=[decoder.conv_s0(fine[owner]), decoder.conv_s1(middle[owner])],
        )
        target = filled(boxes, logits.shape[-1])[:, None].expand_as(logits)
        probability = logits.sigmoid()
        overlap = 2 * (probability * target).sum((2, 3)) + 1
        dice = 1 - overlap / (probability.sum((2, 3)) + target.sum((2, 3)) + 1)
        loss = (dice + nnf.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((2, 3))).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        hard = (logits.detach()[:, 0] > 0, target[:, 0] > 0.5)
        iou = (hard[0] & hard[1]).sum((1, 2)) / (hard[0] | hard[1]).sum((1, 2)).clamp(min=1)
        smooth += (float(iou.mean()) - smooth) / min(20, step + 1)
        step += 1
        if step % 25 == 0:
            runtime.log(log_path, warmup=step, share=share, loss=float(loss.detach()), fill_iou=smooth)
