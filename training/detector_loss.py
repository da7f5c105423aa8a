"""Loss of the starter detector: dense one-to-many encoder supervision, one-to-one decoder, IoU-aware scores.

Pictures of a batch hold different numbers of boxes; they are padded to the largest, so that a GPU does all at once
and the matching asks for its costs in a single transfer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from scipy.optimize import linear_sum_assignment
from torch import Tensor

DENSE_PER_TRUTH = 8
"""How many encoder tokens learn each ground-truth box."""
_NEVER = 1e6


@dataclass(frozen=True, slots=True)
class Truth:
    """Ground truth of one picture: boxes ``(N, 4)`` cxcywh in 0..1, class indices ``(N,)``."""

    boxes: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class Padded:
    """Ground truth of a batch: ``boxes`` ``(B, N, 4)``, ``labels`` and ``real`` ``(B, N)``, false for padding."""

    boxes: Tensor
    labels: Tensor
    real: Tensor

    @classmethod
    def of(cls, truths: Sequence[Truth]) -> Padded:
        """Pad to the largest number of boxes, at least one."""
        most = max([1, *(len(truth.labels) for truth in truths)])
        boxes = torch.full((len(truths), most, 4), 0.5)
        labels = torch.zeros(len(truths), most, dtype=torch.long)
        real = torch.zeros(len(truths), most, dtype=torch.bool)
        for row, truth in enumerate(truths):
            count = len(truth.labels)
            boxes[row, :count], labels[row, :count], real[row, :count] = truth.boxes, truth.labels, True
        return cls(boxes, labels, real)

    def to(self, device: torch.device) -> Padded:
        """Move to a device."""
        return Padded(self.boxes.to(device), self.labels.to(device), self.real.to(device))


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


def _cost(logits: Tensor, boxes: Tensor, truth: Padded, spans: Tensor) -> Tensor:
    """Compute the matching cost ``(B, Q, N)``; ``spans`` ``(K, T)`` marks each class's tokens."""
    by_class = logits.sigmoid() @ spans.t() / spans.sum(-1).clamp(min=1)
    score = by_class.gather(2, truth.labels[:, None].expand(-1, logits.shape[1], -1))
    _, giou = paired_iou(corners(boxes)[:, :, None], corners(truth.boxes)[:, None])
    distance = torch.cdist(boxes, truth.boxes, p=1)
    return 2 * (1 - score) + 5 * distance - 2 * giou


@torch.no_grad()
def match_one_to_one(logits: Tensor, boxes: Tensor, truth: Padded, spans: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hungarian matching: pictures, predictions and ground truths of all pairs, each ``(M,)``."""
    costs = _cost(logits, boxes, truth, spans).cpu().numpy()
    counts = truth.real.sum(1).tolist()
    triples = []
    for picture, count in enumerate(counts):
        rows, cols = linear_sum_assignment(costs[picture, :, :count])
        triples += [(picture, int(row), int(col)) for row, col in zip(rows, cols, strict=True)]
    index = torch.tensor(triples, dtype=torch.long, device=logits.device).reshape(-1, 3)
    return index[:, 0], index[:, 1], index[:, 2]


@torch.no_grad()
def match_many(logits: Tensor, boxes: Tensor, truth: Padded, spans: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give each ground truth its cheapest ``DENSE_PER_TRUTH`` tokens; one wanted by two goes to the cheaper."""
    cost = _cost(logits, boxes, truth, spans).masked_fill(~truth.real[:, None], _NEVER)
    best = cost.topk(min(DENSE_PER_TRUTH, cost.shape[1]), dim=1, largest=False).indices
    chosen = torch.full_like(cost, _NEVER).scatter_(1, best, cost.gather(1, best))
    value, owner = chosen.min(dim=2)
    pictures, rows = torch.nonzero(value < _NEVER, as_tuple=True)
    return pictures, rows, owner[pictures, rows]


def stage_loss(
    logits: Tensor, coordinate_logits: Tensor, truth: Padded, spans: Tensor, dense: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Varifocal, L1 and GIoU losses of one prediction stage.

    ``logits`` ``(B, Q, T)`` over the prompt's real tokens, ``coordinate_logits`` ``(B, Q, 4)`` before the sigmoid.
    Pictures' ground truths must only hold classes that the prompt names.
    """
    boxes = coordinate_logits.sigmoid()
    matcher = match_many if dense else match_one_to_one
    pictures, rows, cols = matcher(logits.detach(), boxes.detach(), truth, spans)
    mine, theirs = boxes[pictures, rows], truth.boxes[pictures, cols]
    iou, giou = paired_iou(corners(mine), corners(theirs))
    target = torch.zeros_like(logits)
    wanted = iou.detach().clamp(min=0.05).sqrt()[:, None] * spans[truth.labels[pictures, cols]]
    target[pictures, rows] = wanted.to(target.dtype)
    count = max(1, len(rows))
    probability = logits.sigmoid().detach()
    weight = torch.where(target > 0, target, 0.75 * probability**2)
    score = nnf.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight
    if len(rows) == 0:
        return score.sum() / count, coordinate_logits.nan_to_num(posinf=0).sum() * 0, logits.sum() * 0
    return score.sum() / count, (mine - theirs).abs().sum() / count, (1 - giou).sum() / count
