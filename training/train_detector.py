"""Train the starter detector: ``python -m training.train_detector --minutes 60``; a second call goes on."""

from __future__ import annotations

import argparse
import os
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor, distributed, multiprocessing
from transformers import GroundingDinoImageProcessor, MMGroundingDinoForObjectDetection

from training import runtime
from training.dataset import WORK
from training.detector_data import Batch, DetectorBatches, class_spans
from training.detector_loss import stage_loss
from training.detector_model import build, load_tokenizer, save_folder, save_tokenizer
from training.generator import CLASS_NAMES
from training.metrics import Found, Report, evaluate
from training.natural import Labelled, natural_set

FOLDER: Final = WORK / "detector"
PEAK_RATE: Final = 6e-4
EXCHANGE: Final = 8
"""Steps between two averagings of the processes' weights."""
SCALES: Final = ((0.45, 0.5, 12), (0.72, 2 / 3, 6), (1.0, 5 / 6, 4))
"""Until which share of the time pictures have which share of the stored size (384 px), and how many make a step."""


def losses(model: MMGroundingDinoForObjectDetection, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Total loss of a batch, and its parts for the log."""
    count, _, height, width = batch.pixels.shape
    with torch.autocast("cpu", torch.bfloat16):
        out = model.model(
            pixel_values=batch.pixels,
            pixel_mask=torch.ones(count, height, width, dtype=torch.long),
            input_ids=batch.input_ids.expand(count, -1),
        )
    tokens = batch.input_ids.shape[1]
    text = out.encoder_last_hidden_state_text.float()
    mask = torch.ones(count, tokens, dtype=torch.bool)
    stages: list[tuple[str, Tensor, Tensor]] = [
        ("encoder", out.enc_outputs_class[..., :tokens].float(), out.enc_outputs_coord_logits.float())
    ]
    for layer in range(out.intermediate_hidden_states.shape[1]):
        hidden = out.intermediate_hidden_states[:, layer].float()
        reference = out.init_reference_points if layer == 0 else out.intermediate_reference_points[:, layer - 1]
        logits = model.class_embed[layer](hidden, text, mask)[..., :tokens]
        shifts = model.bbox_embed[layer](hidden) + torch.special.logit(reference.float(), eps=1e-5)
        stages.append((f"decoder{layer}", logits, shifts))
    total = batch.pixels.new_zeros(())
    parts: dict[str, float] = {}
    for name, logits, coordinates in stages:
        score, distance, overlap = stage_loss(logits, coordinates, batch.truths, batch.spans, dense=name == "encoder")
        total = total + 2 * score + 5 * distance + 2 * overlap
        if name in ("encoder", stages[-1][0]):
            parts |= {f"{name}_score": float(score.detach()), f"{name}_giou": float(overlap.detach())}
    return total, parts


@torch.no_grad()
def detect(model: Any, processor: Any, tokenizer: Any, path: Path, names: tuple[str, ...] = CLASS_NAMES) -> Found:
    """Detect the phrases ``names``, scored by span, boxes in px of the file."""
    picture = Image.open(path).convert("RGB")
    ids = tokenizer(". ".join(names) + ".")["input_ids"]
    spans = class_spans(ids, list(range(len(names))), len(names)).bool()
    images = processor(images=picture, return_tensors="pt")
    out = model(**images, input_ids=torch.tensor([ids]))
    scores = out.logits[0, :, : len(ids)].float().sigmoid()
    per_class = torch.stack([scores[:, span].max(-1).values for span in spans], dim=1)
    centre, size = out.pred_boxes[0, :, :2].float(), out.pred_boxes[0, :, 2:].float()
    boxes = torch.cat([centre - size / 2, centre + size / 2], dim=1)
    scale = torch.tensor([picture.width, picture.height] * 2)
    return Found((boxes * scale).numpy(), per_class.numpy())


def measure(model: Any, processor: Any, tokenizer: Any, pictures: list[Labelled]) -> Report:
    """AP50 and the best threshold on natural-size pictures."""
    model.eval()
    found = [detect(model, processor, tokenizer, picture.path) for picture in pictures]
    model.train()
    return evaluate(found, [(picture.boxes, picture.labels) for picture in pictures], CLASS_NAMES)


def optimizer_for(model: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW; no weight decay on norms, biases and embeddings."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98))


def train(rank: int, processes: int, minutes: float, evaluate_every_s: float, pictures: int) -> None:
    """Train for ``minutes`` in all, counting earlier calls; write the starter folder after every evaluation.

    ``processes`` single-threaded copies train on their own and average their weights every ``EXCHANGE`` steps. On a
    shared machine that is much faster than threads or averaged gradients, which wait for the slowest all the time.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    runtime.be_polite()
    store = distributed.FileStore(str(FOLDER / f"store-{os.getppid()}"), processes)  # type: ignore[attr-defined]
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=processes, timeout=timedelta(hours=1))
    tokenizer = load_tokenizer(FOLDER)
    model, judge = build(), build()
    average, optimizer = runtime.Average(model, decay=0.985), optimizer_for(model)
    clock, step, best = runtime.Clock(minutes), 0, 0.0
    state = runtime.load_checkpoint(FOLDER / "checkpoint.pt")
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.weights = state["average"]
        clock.before_s, step, best = state["elapsed_s"], state["step"], state["best"]
    scale, size = scale_at(clock.progress)
    batches = DetectorBatches(tokenizer, size, seed=100 * step + rank, scale=scale)
    validation = natural_set("validation", pictures)
    progress = torch.tensor([clock.progress])
    last, seen, since = time.monotonic(), 0, time.monotonic()
    model.train()
    for batch in batches:
        batches.scale, batches.size = scale_at(float(progress))
        for group in optimizer.param_groups:
            group["lr"] = runtime.learning_rate(float(progress), step, PEAK_RATE)
        total, parts = losses(model, batch)
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        if bool(norm.isfinite()):
            optimizer.step()
        step, seen = step + 1, seen + len(batch.truths) * processes
        if step % EXCHANGE:
            continue
        average_weights(model, processes)
        progress[0] = clock.progress
        distributed.broadcast(progress, 0)
        finished = bool(progress >= 1)
        if rank == 0:
            average.update(model, step // EXCHANGE)
            runtime.log(FOLDER / "log.jsonl", step=step, progress=clock.progress, loss=float(total.detach()),
                        norm=float(norm), width=batch.pixels.shape[-1],
                        images_per_s=seen / (time.monotonic() - since), **parts)  # fmt: skip
            seen, since = 0, time.monotonic()
        if rank == 0 and (time.monotonic() - last > evaluate_every_s or finished):
            begun = time.monotonic()
            judge.load_state_dict(average.weights)
            edges = edges_at(float(progress))
            processor = GroundingDinoImageProcessor(size={"shortest_edge": edges[0], "longest_edge": edges[1]})
            report = measure(judge, processor, tokenizer, validation)
            runtime.log(FOLDER / "log.jsonl", step=step, progress=clock.progress, validation=report.mean_ap50,
                        ap50=report.ap50, f1=report.best_f1, threshold=report.best_threshold)  # fmt: skip
            if report.mean_ap50 >= best:
                best = report.mean_ap50
                runtime.replace_folder(runtime.STARTER / "detector", partial(save_folder, average.weights, edges=edges))
            clock.exclude(time.monotonic() - begun)
            runtime.save_checkpoint(
                FOLDER / "checkpoint.pt", model, optimizer, average=average,
                elapsed_s=clock.elapsed_s(), step=step, best=best,
            )  # fmt: skip
            last = time.monotonic()
        if finished:
            return


def scale_at(progress: float) -> tuple[float, int]:
    """Picture size and pictures of a step: training begins small, which gives several times the steps a minute."""
    return next((scale, size) for until, scale, size in SCALES if progress <= until)


def edges_at(progress: float) -> tuple[int, int]:
    """Shortest and longest edge px that the image processor makes, for the size the model was trained at last."""
    scale, _ = scale_at(progress)
    return round(336 * scale), round(384 * scale)


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
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--evaluate-every-s", type=float, default=480)
    parser.add_argument("--pictures", type=int, default=100, help="validation pictures")
    arguments = parser.parse_args()
    runtime.restart_with_allocator(1)
    save_tokenizer(FOLDER)
    natural_set("validation", arguments.pictures)
    count = arguments.processes
    settings = (count, arguments.minutes, arguments.evaluate_every_s, arguments.pictures)
    multiprocessing.spawn(train, settings, nprocs=count, daemon=True)  # type: ignore[attr-defined,no-untyped-call]


if __name__ == "__main__":
    main()
