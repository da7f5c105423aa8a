"""Train the starter detector: ``python -m training.train_detector --minutes 60``; a second call goes on."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor, distributed, multiprocessing
from transformers import GroundingDinoImageProcessor, MMGroundingDinoForObjectDetection

from training import deformable, runtime
from training.dataset import BUCKETS
from training.detector_data import Batch, DetectorBatches, Sizes, class_spans, size_at, to_input
from training.detector_loss import stage_loss
from training.detector_model import build, load_tokenizer, save_folder, save_tokenizer
from training.generator import CLASS_NAMES
from training.metrics import Found, Report, evaluate
from training.natural import Labelled, natural_set
from training.stream import Stream

EXCHANGE: Final = 8
"""Steps between two averagings of the processes' weights."""


SHOWN: Final = 1.125
"""Size of a picture as the trained model is shown it, in sizes of the last training pictures: thin things gain."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What suits a device: sizes of pictures and batches, the learning rate, and processes that make batches."""

    sizes: Sizes
    peak_rate: float
    warmup_steps: int
    workers: int


ON_CPU: Final = Pace(((0.45, 0.375, 12), (0.72, 0.5, 6), (1.0, 0.75, 4)), 6e-4, 150, 0)
ON_GPU: Final = Pace(((0.35, 0.5, 96), (0.7, 0.75, 64), (1.0, 0.875, 48)), 1e-3, 400, 7)
AGAIN_ON_CPU: Final = Pace(((0.35, 0.8125, 4), (1.0, 1.0, 3)), 4e-4, 100, 0)
"""After ``--from``: what is found already needs no small pictures, and thin defects need large ones."""
TINY: Final = Pace(((1.0, 0.25, 2),), 6e-4, 5, 0)


def pace_for(device: torch.device, again: bool = False) -> Pace:
    """Choose the pace for a device, and for a model that is trained ``again``."""
    if device.type == "cuda":
        return replace(ON_GPU, peak_rate=ON_GPU.peak_rate / 2) if again else ON_GPU
    return AGAIN_ON_CPU if again else ON_CPU


def losses(model: MMGroundingDinoForObjectDetection, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss of a batch, and its parts for the log."""
    count, _, height, width = batch.pixels.shape
    device = next(model.parameters()).device
    with runtime.mixed(device):
        out = model.model(
            pixel_values=to_input(batch.pixels, device),
            pixel_mask=torch.ones(count, height, width, dtype=torch.long, device=device),
            input_ids=batch.input_ids.to(device).expand(count, -1),
        )
    tokens = batch.input_ids.shape[1]
    text = out.encoder_last_hidden_state_text.float()
    mask = torch.ones(count, tokens, dtype=torch.bool, device=device)
    truth, spans = batch.truth.to(device), batch.spans.to(device)
    stages: list[tuple[str, Tensor, Tensor]] = [
        ("encoder", out.enc_outputs_class[..., :tokens].float(), out.enc_outputs_coord_logits.float())
    ]
    for layer in range(out.intermediate_hidden_states.shape[1]):
        hidden = out.intermediate_hidden_states[:, layer].float()
        reference = out.init_reference_points if layer == 0 else out.intermediate_reference_points[:, layer - 1]
        logits = model.class_embed[layer](hidden, text, mask)[..., :tokens]
        shifts = model.bbox_embed[layer](hidden) + torch.special.logit(reference.float(), eps=1e-5)
        stages.append((f"decoder{layer}", logits, shifts))
    total = torch.zeros((), device=device)
    parts: dict[str, Tensor] = {}
    for name, logits, coordinates in stages:
        score, distance, overlap = stage_loss(logits, coordinates, truth, spans, dense=name == "encoder")
        total = total + 2 * score + 5 * distance + 2 * overlap
        if name in ("encoder", stages[-1][0]):
            parts |= {f"{name}_score": score.detach(), f"{name}_giou": overlap.detach()}
    return total, parts


@torch.no_grad()
def detect(model: Any, processor: Any, tokenizer: Any, path: Path, names: tuple[str, ...] = CLASS_NAMES) -> Found:
    """Detect the phrases ``names``, scored by span, boxes in px of the file."""
    picture = Image.open(path).convert("RGB")
    ids = tokenizer(". ".join(names) + ".")["input_ids"]
    spans = class_spans(ids, list(range(len(names))), len(names)).bool()
    device = next(model.parameters()).device
    images = processor(images=picture, return_tensors="pt").to(device)
    out = model(**images, input_ids=torch.tensor([ids], device=device))
    scores = out.logits[0, :, : len(ids)].float().sigmoid().cpu()
    per_class = torch.stack([scores[:, span].max(-1).values for span in spans], dim=1)
    centre, size = out.pred_boxes[0, :, :2].float().cpu(), out.pred_boxes[0, :, 2:].float().cpu()
    boxes = torch.cat([centre - size / 2, centre + size / 2], dim=1)
    scale = torch.tensor([picture.width, picture.height] * 2)
    return Found((boxes * scale).numpy(), per_class.numpy())


def measure(model: Any, processor: Any, tokenizer: Any, pictures: list[Labelled]) -> Report:
    """AP50 and the best threshold on natural-size pictures."""
    model.eval()
    found = [detect(model, processor, tokenizer, picture.path) for picture in pictures]
    model.train()
    return evaluate(found, [(picture.boxes, picture.labels) for picture in pictures], CLASS_NAMES)


def optimizer_for(model: torch.nn.Module, rate: float) -> torch.optim.Optimizer:
    """AdamW; no weight decay on norms, biases and embeddings."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and how a training runs; see the command line."""

    minutes: float | None
    steps: int | None
    stop_after_s: float | None
    evaluate_every_s: float
    pictures: int
    seed: int
    folder: Path
    tiny: bool
    device: str | None
    start: Path | None
    rate: float | None


def train(rank: int, processes: int, settings: Settings) -> None:
    """Train from the last checkpoint; write the weights after every evaluation that is the best so far.

    On a CPU ``processes`` single-threaded copies train on their own and average their weights every ``EXCHANGE``
    steps. On a shared machine that is much faster than threads or averaged gradients, which wait for the slowest.
    On a GPU there is one process, and others make its batches.
    """
    runtime.repeatable(settings.seed)
    device = runtime.pick_device(settings.device)
    pace = TINY if settings.tiny else pace_for(device, again=settings.start is not None)
    pace = pace if settings.rate is None else replace(pace, peak_rate=settings.rate)
    if processes > 1:
        torch.set_num_threads(1)
        runtime.be_polite()
        shared = str(settings.folder / f"store-{os.getppid()}")
        store = distributed.FileStore(shared, processes)  # type: ignore[attr-defined]
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=processes, timeout=timedelta(hours=1))
    tokenizer = load_tokenizer(settings.folder)
    model, judge = build().to(device), build().to(device)
    if settings.start is not None:
        known = MMGroundingDinoForObjectDetection.from_pretrained(settings.start, dtype=torch.float32)
        runtime.begin_with(model, known.state_dict())
    if device.type == "cpu":
        deformable.speed_up(model)
    average = runtime.Average(model, decay=0.985 if processes > 1 else 0.998)
    optimizer = optimizer_for(model, pace.peak_rate)
    schedule, step, best = runtime.Schedule(settings.minutes, settings.steps, settings.stop_after_s), 0, 0.0
    state = runtime.load_checkpoint(settings.folder / "checkpoint.pt")
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.load(state["average"])
        schedule.before_s, step, best = state["elapsed_s"], state["step"], state["best"]
    make = DetectorBatches(settings.folder, pace.sizes)
    stream = Stream(make, schedule, settings.seed, first=step * processes + rank, stride=processes)
    validation = natural_set("validation", settings.pictures)
    progress = torch.tensor([schedule.progress(step)], dtype=torch.float64)
    last, seen, since = time.monotonic(), 0, time.monotonic()
    model.train()
    batches = stream.loader(pace.workers)
    while float(progress) < 1:
        stream.tell(float(progress))
        batch = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = runtime.learning_rate(float(progress), step, pace.peak_rate, pace.warmup_steps)
        total, parts = losses(model, batch)
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        if bool(norm.isfinite()):
            optimizer.step()
        step, seen = step + 1, seen + len(batch.pixels) * processes
        if processes > 1:
            if step % EXCHANGE:
                continue
            average_weights(model, processes)
        progress[0] = schedule.progress(step)
        halt = torch.tensor([float(schedule.must_stop())])
        if processes > 1:
            distributed.broadcast(progress, 0)
            distributed.broadcast(halt, 0)
        if rank == 0:
            average.update(model, step // EXCHANGE if processes > 1 else step)
        if rank == 0 and (processes > 1 or step % EXCHANGE == 0):
            runtime.log(settings.folder / "log.jsonl", step=step, progress=float(progress), loss=float(total.detach()),
                        norm=float(norm), width=batch.pixels.shape[-1],
                        images_per_s=seen / (time.monotonic() - since),
                        **{name: float(part) for name, part in parts.items()})  # fmt: skip
            seen, since = 0, time.monotonic()
        finished = bool(progress >= 1 or halt > 0)
        if rank == 0 and (time.monotonic() - last > settings.evaluate_every_s or finished):
            begun = time.monotonic()
            judge.load_state_dict(average.weights)
            edges = edges_at(pace.sizes, float(progress))
            processor = GroundingDinoImageProcessor(size={"shortest_edge": edges[0], "longest_edge": edges[1]})
            report = measure(judge, processor, tokenizer, validation)
            runtime.log(settings.folder / "log.jsonl", step=step, progress=float(progress),
                        validation=report.mean_ap50, ap50=report.ap50, f1=report.best_f1,
                        threshold=report.best_threshold)  # fmt: skip
            if report.mean_ap50 >= best:
                best = report.mean_ap50
                target = settings.folder.parent / "trained" / "detector"
                runtime.replace_folder(target, partial(save_folder, average.on_cpu(), edges=edges))
            schedule.exclude(time.monotonic() - begun)
            runtime.save_checkpoint(
                settings.folder / "checkpoint.pt", model, optimizer, average=average,
                elapsed_s=schedule.elapsed_s(), step=step, best=best,
            )  # fmt: skip
            last = time.monotonic()
        if halt > 0:
            return


def edges_at(sizes: Sizes, progress: float) -> tuple[int, int]:
    """Shortest and longest edge px that the image processor makes, by the size that the model was trained at last."""
    scale = SHOWN * size_at(sizes, progress)[0]
    return round(BUCKETS[1].width * scale), round(BUCKETS[0].width * scale)


@torch.no_grad()
def average_weights(model: torch.nn.Module, processes: int) -> None:
    """Replace all weights by their mean over the processes, in one exchange."""
    parameters = list(model.parameters())
    flat = torch.cat([p.reshape(-1) for p in parameters])
    distributed.all_reduce(flat)
    flat /= processes
    start = 0
    for parameter in parameters:
        parameter.copy_(flat[start : start + parameter.numel()].view_as(parameter))
        start += parameter.numel()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the starter detector (resumable).")
    parser.add_argument("--processes", type=int, default=4, help="on a CPU; a GPU has one")
    runtime.add_options(parser, minutes=60, evaluate_every_s=480, pictures=100)
    arguments = parser.parse_args()
    device = runtime.pick_device(arguments.device)
    processes = 1 if device.type == "cuda" or arguments.steps else arguments.processes
    runtime.restart_with_allocator(1)
    folder = arguments.work / "detector"
    save_tokenizer(folder)
    natural_set("validation", arguments.pictures)
    settings = Settings(
        None if arguments.steps else arguments.minutes, arguments.steps, arguments.stop_after_s,
        arguments.evaluate_every_s, arguments.pictures, arguments.seed, folder, arguments.tiny, arguments.device,
        arguments.start, arguments.rate,
    )  # fmt: skip
    if processes == 1:
        train(0, 1, settings)
        return
    multiprocessing.spawn(train, (processes, settings), nprocs=processes, daemon=True)  # type: ignore[attr-defined,no-untyped-call]


if __name__ == "__main__":
    main()
