"""Train the starter segmenter: ``python -m training.train_segmenter --minutes 60``; a second call goes on."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
import torch.nn.functional as nnf
from safetensors.torch import load_file
from torch import Tensor

from autolabel.stages.tiles import Tiles
from autolabel.stages.windows import segment_in_views
from autolabel.types import RGB, Float, Mask, Segments
from training import runtime
from training.detector_data import to_input
from training.generator import CLASS_NAMES
from training.natural import Labelled, natural_set
from training.segmenter_data import Batch, SegmenterBatches
from training.segmenter_model import IMAGE_SIZE, WINDOW_PX, WINDOW_ZOOM, build, predict, save_folder
from training.segmenter_warmup import SIZE, learn_boxes
from training.stream import Stream

WARMUP_SHARE: Final = 0.1
IN_WINDOWS: Final = Tiles("auto", None, 0.2)


@dataclass(frozen=True, slots=True)
class Pace:
    """What suits a device: px and pictures of a batch by progress, the rate, and processes that make batches."""

    sizes: tuple[tuple[float, int, int], ...]
    peak_rate: float
    workers: int


ON_CPU: Final = Pace(((0.65, SIZE, 6), (1.0, IMAGE_SIZE, 6)), 6e-4, 0)
AGAIN_ON_CPU: Final = Pace(((1.0, IMAGE_SIZE, 4),), 2e-4, 0)
"""After ``--from``: the model knows what a box means, and large pictures are what it lacks."""
ON_GPU: Final = Pace(((0.5, SIZE, 48), (1.0, IMAGE_SIZE, 32)), 8e-4, 4)
TINY: Final = Pace(((1.0, SIZE, 1),), 6e-4, 0)


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
    at = torch.arange(size, device=boxes.device) + 0.5
    across = (at > low[:, :1]) & (at < high[:, :1])
    down = (at > low[:, 1:]) & (at < high[:, 1:])
    return (down[:, :, None] & across[:, None, :]).float()


def losses(model: Any, batch: Batch, as_points: bool) -> tuple[Tensor, Tensor]:
    """Total loss and the mean IoU of the single-mask output."""
    device = next(model.parameters()).device
    boxes, masks = batch.boxes.to(device), batch.masks.to(device).float()
    with runtime.mixed(device):
        logits, quality = predict(model, to_input(batch.pixels, device), batch.owner.to(device), boxes, as_points)
    logits, quality = logits.float(), quality.float()
    size = batch.pixels.shape[-1]
    single = nnf.interpolate(logits[:, :1], size=(size, size), mode="bilinear", align_corners=False)[:, 0]
    dice, focal, iou = mask_loss(single, masks, boxes)
    total = (dice + 4 * focal).mean() + (quality[:, 0] - iou).square().mean()
    coarse = nnf.interpolate(masks[:, None], size=logits.shape[-2:], mode="area")[:, 0]
    others = [mask_loss(logits[:, k], (coarse > 0.4).float(), boxes / 4) for k in (1, 2, 3)]
    costs = torch.stack([d + 4 * f for d, f, _ in others], dim=1)
    reached = torch.stack([r for _, _, r in others], dim=1)
    best = costs.min(dim=1).values
    total = total + 0.3 * best.mean() + 0.3 * (quality[:, 1:] - reached).square().mean()
    return total, iou.mean()


class Whole:
    """The model as the product sees it: whole pictures or windows in, masks out."""

    input_px = IMAGE_SIZE
    window_px = WINDOW_PX
    window_zoom = WINDOW_ZOOM

    def __init__(self, model: Any) -> None:
        self.model = model

    @torch.no_grad()
    def predict_batch(self, images: Sequence[RGB], boxes_xyxy: Sequence[Float]) -> list[Segments]:
        """Segment each image's boxes, px xyxy."""
        return [self._one(image, boxes) for image, boxes in zip(images, boxes_xyxy, strict=True)]

    def _one(self, image: RGB, boxes: Float) -> Segments:
        device = next(self.model.parameters()).device
        height, width = image.shape[:2]
        small = cv2.resize(image, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_AREA)
        pixels = to_input(torch.from_numpy(small).permute(2, 0, 1)[None], device)
        scaled = boxes * (IMAGE_SIZE / np.array([width, height] * 2, np.float32))
        owner = torch.zeros(len(boxes), dtype=torch.long, device=device)
        prompts = torch.from_numpy(scaled.astype(np.float32)).to(device)
        logits, quality = predict(self.model, pixels, owner, prompts)
        large = nnf.interpolate(logits[:, :1].float(), size=(height, width), mode="bilinear", align_corners=False)
        masks = tuple(Mask.encode(mask) for mask in (large[:, 0] > 0).cpu().numpy())
        return Segments(masks, quality[:, 0].float().cpu().numpy())


@dataclass(frozen=True, slots=True)
class Traced:
    """One defect segmented from its true box: class index, IoU of the mask and of the filled box, the estimate."""

    label: int
    iou: float
    box_fill: float
    estimate: float


def trace(model: Any, pictures: Sequence[Labelled], tiles: Tiles = IN_WINDOWS) -> list[list[Traced]]:
    """Segment all defects of all pictures with ground-truth boxes as prompts."""
    model.eval()
    traced: list[list[Traced]] = []
    for picture in pictures:
        traced.append([])
        if len(picture.boxes) == 0:
            continue
        image, ids = picture.image(), picture.ids()
        found = segment_in_views(Whole(model), [image], [picture.boxes], tiles)[0]
        for i, (label, box) in enumerate(zip(picture.labels, picture.boxes.astype(int), strict=True)):
            truth = ids == i + 1
            mask = found.masks[i].decode()
            iou = (truth & mask).sum() / max(1, (truth | mask).sum())
            fill = truth.sum() / max(1, (box[2] - box[0]) * (box[3] - box[1]))
            traced[-1].append(Traced(int(label), float(iou), float(fill), float(found.scores[i])))
    model.train()
    return traced


def measure(
    model: Any, pictures: Sequence[Labelled], names: tuple[str, ...] = CLASS_NAMES, tiles: Tiles = IN_WINDOWS
) -> dict[str, dict[str, float]]:
    """Mean IoU per class of predicted masks and of the filled box, with ground-truth boxes as prompts."""
    traced = [one for picture in trace(model, pictures, tiles) for one in picture]
    result = {
        "miou": _means({name: [one.iou for one in traced if one.label == k] for k, name in enumerate(names)}),
        "box_fill": _means({name: [one.box_fill for one in traced if one.label == k] for k, name in enumerate(names)}),
    }
    result["estimate"] = {"mean_absolute_error": float(np.mean([abs(one.estimate - one.iou) for one in traced]))}
    return result


def _means(values: dict[str, list[float]]) -> dict[str, float]:
    means = {name: round(float(np.mean(v)), 3) for name, v in values.items() if v}
    return {"mean": round(float(np.mean(list(means.values()))), 3), **means}


def train(arguments: argparse.Namespace) -> None:
    """Train from the last checkpoint; write the weights after every evaluation that is the best so far."""
    runtime.repeatable(arguments.seed)
    device = runtime.pick_device(arguments.device)
    on_cpu = ON_CPU if arguments.start is None else AGAIN_ON_CPU
    pace = TINY if arguments.tiny else ON_GPU if device.type == "cuda" else on_cpu
    folder: Path = arguments.work / "segmenter"
    model, judge = build().to(device), build().to(device)
    if arguments.start is not None:
        runtime.begin_with(model, load_file(arguments.start / "model.safetensors"))
    peak_rate = arguments.rate or pace.peak_rate
    average = runtime.Average(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate, betas=(0.9, 0.98), weight_decay=0.01)
    minutes = None if arguments.steps else arguments.minutes
    schedule, step, best = runtime.Schedule(minutes, arguments.steps, arguments.stop_after_s), 0, 0.0
    make = SegmenterBatches(pace.sizes)
    state = runtime.load_checkpoint(folder / "checkpoint.pt")
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.load(state["average"])
        schedule.before_s, step, best = state["elapsed_s"], state["step"], state["best"]
    elif arguments.start is None:
        seconds = None if minutes is None else WARMUP_SHARE * 60 * minutes
        steps = None if arguments.steps is None else max(1, round(WARMUP_SHARE * arguments.steps))
        learn_boxes(model, make, folder / "log.jsonl", seed=arguments.seed, seconds=seconds, steps=steps)
        average = runtime.Average(model)
    stream = Stream(make, schedule, arguments.seed, first=step)
    validation = natural_set("validation", arguments.pictures)
    last, reached = time.monotonic(), torch.zeros((), device=device)
    model.train()
    batches = stream.loader(pace.workers)
    while (progress := schedule.progress(step)) < 1:
        stream.tell(progress)
        batch = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = runtime.learning_rate(progress, step, peak_rate)
        total, iou = losses(model, batch, as_points=step % 3 != 2)
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
        if bool(norm.isfinite()):
            optimizer.step()
        average.update(model, step)
        step += 1
        reached += (iou - reached) / min(50, step)
        if step % 50 == 0:
            runtime.log(folder / "log.jsonl", step=step, progress=progress, loss=float(total.detach()),
                        norm=float(norm), size=batch.pixels.shape[-1], iou=float(reached),
                        steps_per_s=step / schedule.elapsed_s())  # fmt: skip
        finished = schedule.progress(step) >= 1 or schedule.must_stop()
        if time.monotonic() - last > arguments.evaluate_every_s or finished:
            begun = time.monotonic()
            judge.load_state_dict(average.weights)
            report = measure(judge, validation)
            runtime.log(folder / "log.jsonl", step=step, progress=progress, **report)
            if report["miou"]["mean"] >= best:
                best = report["miou"]["mean"]
                target = arguments.work / "trained" / "segmenter"
                runtime.replace_folder(target, partial(save_folder, average.on_cpu()))
            schedule.exclude(time.monotonic() - begun)
            runtime.save_checkpoint(
                folder / "checkpoint.pt", model, optimizer, average=average,
                elapsed_s=schedule.elapsed_s(), step=step, best=best,
            )  # fmt: skip
            last = time.monotonic()
        if finished:
            return


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the starter segmenter (resumable).")
    parser.add_argument("--threads", type=int, default=1)
    runtime.add_options(parser, minutes=60, evaluate_every_s=360, pictures=60)
    arguments = parser.parse_args()
    runtime.restart_with_allocator(arguments.threads)
    train(arguments)


if __name__ == "__main__":
    main()
