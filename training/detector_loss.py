"""Loss of the starter detector: dense one-to-many encoder supervision, one-to-one decoder, IoU-aware scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from scipy.optimize import linear_sum_assignment
from torch import Tensor

DENSE_PER_TRUTH = 8
"""How many encoder tokens learn each ground-truth box."""


@dataclass(frozen=True, slots=True)
class Truth:
    """Ground truth of one picture: boxes ``(N, 4)`` cxcywh in 0..1, class indices ``(N,)``."""

    boxes: Tensor
    labels: Tensor


def corners(boxes: Tensor) -> Tensor:
    """Convert cxcywh to xyxy, any leading shape."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def paired_iou(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU of xyxy boxes that broadcast against each other."""
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    areas = [(b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1) for b in (first, second)]
    union = (areas[0] + areas[1] - overlap).clamp(min=1e-9)
    hull_low, hull_high = torch.minimum(first[..., :2], second[..., :2]), torch.maximum(first[..., 2:], second[..., 2:])
    hull = (hull_high - hull_low).clamp(min=0).prod(-1).clamp(min=1e-9)
    iou = overlap / union
    return iou, iou - (hull - union) / hull


def _cost(logits: Tensor, boxes: Tensor, truth: Truth, spans: Tensor) -> Tensor:
    """Compute the matching cost ``(Q, N)``; ``spans`` ``(K, T)`` marks each class's tokens."""
    score = (logits.sigmoid() @ spans.t() / spans.sum(-1).clamp(min=1))[:, truth.labels]
    _, giou = paired_iou(corners(boxes)[:, None], corners(truth.boxes)[None])
    return 2 * (1 - score) + 5 * torch.cdist(boxes, truth.boxes, p=1) - 2 * giou


@torch.no_grad()
def match_one_to_one(logits: Tensor, boxes: Tensor, truth: Truth, spans: Tensor) -> tuple[Tensor, Tensor]:
    """Hungarian matching: indices of predictions and of ground truths, both ``(N,)``."""
    rows, cols = linear_sum_assignment(_cost(logits, boxes, truth, spans).numpy())
    return torch.as_tensor(rows), torch.as_tensor(cols)


@torch.no_grad()
def match_many(logits: Tensor, boxes: Tensor, truth: Truth, spans: Tensor) -> tuple[Tensor, Tensor]:
    """Give each ground truth its cheapest ``DENSE_PER_TRUTH`` tokens; one wanted by two goes to the cheaper."""
    cost = _cost(logits, boxes, truth, spans)
    chosen = torch.full_like(cost, torch.inf)
    best = cost.topk(min(DENSE_PER_TRUTH, len(cost)), dim=0, largest=False).indices
    chosen.scatter_(0, best, cost.gather(0, best))
    value, owner = chosen.min(dim=1)
    rows = torch.nonzero(value.isfinite()).flatten()
    return rows, owner[rows]


def stage_loss(
    logits: Tensor, coordinate_logits: Tensor, truths: list[Truth], spans: Tensor, dense: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Varifocal, L1 and GIoU losses of one prediction stage.

    ``logits`` ``(B, Q, T)`` over the prompt's real tokens, ``coordinate_logits`` ``(B, Q, 4)`` before the sigmoid.
    Pictures' ground truths must only hold classes that the prompt names.
    """
    target = torch.zeros_like(logits)
    positive = torch.zeros(logits.shape[:2], dtype=torch.bool)
    predicted, wanted = [], []
    boxes = coordinate_logits.sigmoid()
    for index, truth in enumerate(truths):
        if len(truth.labels) == 0:
            continue
        matcher = match_many if dense else match_one_to_one
        rows, cols = matcher(logits[index].detach(), boxes[index].detach(), truth, spans)
        mine, theirs = boxes[index, rows], truth.boxes[cols]
        iou, _ = paired_iou(corners(mine.detach()), corners(theirs))
        target[index, rows] = spans[truth.labels[cols]] * iou.clamp(min=0.05).sqrt()[:, None]
        positive[index, rows] = True
        predicted.append(mine)
        wanted.append(theirs)
    count = max(1, int(positive.sum()))
    probability = logits.sigmoid().detach()
    weight = torch.where(target > 0, target, 0.75 * probability**2)
    score = nnf.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight
    if not predicted:
        return score.sum() / count, coordinate_logits.nan_to_num(posinf=0).sum() * 0, logits.sum() * 0
    mine, theirs = torch.cat(predicted), torch.cat(wanted)
    _, giou = paired_iou(corners(mine), corners(theirs))
    return score.sum() / count, (mine - theirs).abs().sum() / count, (1 - giou).sum() / count
