"""Train the starter segmenter: ``python -m training.train_segmenter --minutes 60``; a second call goes on."""

from __future__ import annotations

import argparse
import time
from typing import Any, Final

import cv2
import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from torch import Tensor

from training import runtime
from training.dataset import WORK
from training.detector_data import normalise
from training.generator import CLASS_NAMES
from training.natural import Labelled, natural_set
from training.segmenter_data import Batch, SegmenterBatches
from training.segmenter_model import IMAGE_SIZE, build, predict, save_folder
from training.segmenter_warmup import learn_boxes

FOLDER: Final = WORK / "segmenter"
PEAK_RATE: Final = 6e-4
PICTURES: Final = 6
SMALL_SIZE: Final = 256
SMALL_SHARE: Final = 0.65
"""The first part of training sees pictures of this size, for this share of the time."""
WARMUP_SHARE: Final = 0.1


def mask_loss(logits: Tensor, masks: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Dice and focal loss per mask ``(N,)`` and the IoU reached ``(N,)``; ``logits`` and ``masks`` ``(N, S, S)``.

    The focal loss is a mean over the box plus a mean over the rest of the picture: a small defect counts as much as
    a large one, and the many pixels outside do not drown the few inside.
    """
    probability = logits.sigmoid()
    overlap = (probability * masks).sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (probability.sum((1, 2)) + masks.sum((1, 2)) + 1)
    plain = nnf.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    missed = (probability - masks).abs()
    inside = _inside(boxes, logits.shape[-1])
    weight = inside / inside.sum((1, 2), keepdim=True).clamp(min=1)
    weight = weight + (1 - inside) / (1 - inside).sum((1, 2), keepdim=True).clamp(min=1)
    focal = (plain * missed**2 * weight).sum((1, 2))
    hard = logits.detach() > 0
    together, either = (hard & (masks > 0.5)).sum((1, 2)), (hard | (masks > 0.5)).sum((1, 2))
    return dice, focal, together / either.clamp(min=1)


def _inside(boxes: Tensor, size: int) -> Tensor:
    """1.0 in each box grown by a tenth and a pixel, ``(N, S, S)``."""
    margin = 0.1 * (boxes[:, 2:] - boxes[:, :2]) + 1
    low, high = boxes[:, :2] - margin, boxes[:, 2:] + margin
    at = torch.arange(size) + 0.5
    across = (at > low[:, :1]) & (at < high[:, :1])
    down = (at > low[:, 1:]) & (at < high[:, 1:])
    return (down[:, :, None] & across[:, None, :]).float()


def losses(model: Any, batch: Batch, as_points: bool) -> tuple[Tensor, float]:
    """Total loss and the mean IoU of the single-mask output."""
    with torch.autocast("cpu", torch.bfloat16):
        logits, quality = predict(model, batch.pixels, batch.owner, batch.boxes, as_points)
    logits, quality = logits.float(), quality.float()
    size = batch.pixels.shape[-1]
    single = nnf.interpolate(logits[:, :1], size=(size, size), mode="bilinear", align_corners=False)[:, 0]
    dice, focal, iou = mask_loss(single, batch.masks, batch.boxes)
    total = (dice + 4 * focal).mean() + (quality[:, 0] - iou).square().mean()
    coarse = nnf.interpolate(batch.masks[:, None], size=logits.shape[-2:], mode="area")[:, 0]
    others = [mask_loss(logits[:, k], (coarse > 0.4).float(), batch.boxes / 4) for k in (1, 2, 3)]
    costs = torch.stack([d + 4 * f for d, f, _ in others], dim=1)
    reached = torch.stack([r for _, _, r in others], dim=1)
    best = costs.min(dim=1).values
    total = total + 0.3 * best.mean() + 0.3 * (quality[:, 1:] - reached).square().mean()
    return total, float(iou.mean())


@torch.no_grad()
def segment(model: Any, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> tuple[NDArray[np.bool_], Tensor]:
    """Masks ``(N, H, W)`` of an RGB picture's boxes (px xyxy), and the model's estimates of their IoU ``(N,)``."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_AREA)
    pixels = torch.from_numpy(normalise(small)).permute(2, 0, 1)[None]
    scaled = boxes * (IMAGE_SIZE / np.array([width, height] * 2, np.float32))
    owner = torch.zeros(len(boxes), dtype=torch.long)
    logits, quality = predict(model, pixels, owner, torch.from_numpy(scaled.astype(np.float32)))
    large = nnf.interpolate(logits[:, :1], size=(height, width), mode="bilinear", align_corners=False)[:, 0]
    return (large > 0).numpy(), quality[:, 0]


def measure(model: Any, pictures: list[Labelled], names: tuple[str, ...] = CLASS_NAMES) -> dict[str, dict[str, float]]:
    """Mean IoU per class of predicted masks and of the filled box, with ground-truth boxes as prompts."""
    model.eval()
    mine: dict[str, list[float]] = {name: [] for name in names}
    filled: dict[str, list[float]] = {name: [] for name in names}
    errors = []
    for picture in pictures:
        if len(picture.boxes) == 0:
            continue
        image, ids = picture.image(), picture.ids()
        masks, quality = segment(model, image, picture.boxes)
        for i, (label, box) in enumerate(zip(picture.labels, picture.boxes.astype(int), strict=True)):
            truth = ids == i + 1
            iou = (truth & masks[i]).sum() / max(1, (truth | masks[i]).sum())
            mine[names[label]].append(float(iou))
            filled[names[label]].append(float(truth.sum() / max(1, (box[2] - box[0]) * (box[3] - box[1]))))
            errors.append(abs(float(quality[i]) - float(iou)))
    model.train()
    result = {"miou": _means(mine), "box_fill": _means(filled)}
    result["estimate"] = {"mean_absolute_error": float(np.mean(errors))}
    return result


def _means(values: dict[str, list[float]]) -> dict[str, float]:
    means = {name: round(float(np.mean(v)), 3) for name, v in values.items() if v}
    return {"mean": round(float(np.mean(list(means.values()))), 3), **means}


def train(minutes: float, evaluate_every_s: float, pictures: int) -> None:
    """Train for ``minutes`` in all, counting earlier calls; write the starter folder after every evaluation."""
    torch.manual_seed(0)
    model, judge = build(), build()
    average = runtime.Average(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    clock, step, best = runtime.Clock(minutes), 0, 0.0
    state = runtime.load_checkpoint(FOLDER / "checkpoint.pt")
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.weights = state["average"]
        clock.before_s, step, best = state["elapsed_s"], state["step"], state["best"]
    batches = SegmenterBatches(PICTURES, seed=step, size=SMALL_SIZE)
    validation = natural_set("validation", pictures)
    if state is None:
        learn_boxes(model, batches, WARMUP_SHARE * clock.budget_s, FOLDER / "log.jsonl")
        average = runtime.Average(model)
    last, reached = time.monotonic(), 0.0
    model.train()
    for batch in batches:
        finished = clock.progress >= 1
        batches.size = SMALL_SIZE if clock.progress < SMALL_SHARE else IMAGE_SIZE
        for group in optimizer.param_groups:
            group["lr"] = runtime.learning_rate(clock.progress, step, PEAK_RATE)
        total, iou = losses(model, batch, as_points=step % 3 != 2)
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
        if not bool(norm.isfinite()):
            continue
        optimizer.step()
        average.update(model, step)
        reached += (iou - reached) / min(50, step + 1)
        step += 1
        if step % 50 == 0:
            runtime.log(FOLDER / "log.jsonl", step=step, progress=clock.progress, loss=float(total.detach()),
                        norm=float(norm), size=batch.pixels.shape[-1], iou=reached,
                        images_per_s=step * PICTURES / clock.elapsed_s())  # fmt: skip
        if time.monotonic() - last > evaluate_every_s or finished:
            begun = time.monotonic()
            judge.load_state_dict(average.weights)
            report = measure(judge, validation)
            runtime.log(FOLDER / "log.jsonl", step=step, progress=clock.progress, **report)
            if report["miou"]["mean"] >= best:
                best = report["miou"]["mean"]
                runtime.replace_folder(
                    runtime.STARTER / "segmenter", lambda folder: save_folder(average.weights, folder)
                )
            clock.exclude(time.monotonic() - begun)
            runtime.save_checkpoint(
                FOLDER / "checkpoint.pt", model, optimizer, average=average,
                elapsed_s=clock.elapsed_s(), step=step, best=best,
            )  # fmt: skip
            last = time.monotonic()
        if finished:
            return


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the starter segmenter (resumable).")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--evaluate-every-s", type=float, default=360)
    parser.add_argument("--pictures", type=int, default=60, help="validation pictures")
    arguments = parser.parse_args()
    runtime.restart_with_allocator(arguments.threads)
    train(arguments.minutes, arguments.evaluate_every_s, arguments.pictures)


if __name__ == "__main__":
    main()
