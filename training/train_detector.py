"""Train the starter detector: ``python -m training.train_detector --minutes 60``; a second call goes on."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor
from transformers import GroundingDinoImageProcessor, MMGroundingDinoForObjectDetection

from training import runtime
from training.dataset import WORK
from training.detector_data import Batch, DetectorBatches, class_spans
from training.detector_loss import stage_loss
from training.detector_model import LONGEST_EDGE, SHORTEST_EDGE, build, load_tokenizer, save_folder, save_tokenizer
from training.generator import CLASS_NAMES
from training.metrics import Found, Report, evaluate
from training.natural import Labelled, natural_set

FOLDER: Final = WORK / "detector"
PEAK_RATE: Final = 6e-4
BATCH: Final = 16
SMALL_SCALE: Final = 2 / 3
"""The first part of training sees pictures at this share of their final size: three times the steps a minute."""
SMALL_SHARE: Final = 0.4


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
def detect(model: Any, processor: Any, tokenizer: Any, path: Path) -> Found:
    """Detections for the six class names, scored by span, boxes in px of the file."""
    picture = Image.open(path).convert("RGB")
    ids = tokenizer(". ".join(CLASS_NAMES) + ".")["input_ids"]
    spans = class_spans(ids, list(range(len(CLASS_NAMES))), len(CLASS_NAMES)).bool()
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


def train(minutes: float, evaluate_every_s: float, pictures: int) -> None:
    """Train for ``minutes`` in all, counting earlier calls; write the starter folder after every evaluation."""
    torch.manual_seed(0)
    save_tokenizer(FOLDER)
    tokenizer = load_tokenizer(FOLDER)
    processor = GroundingDinoImageProcessor(size={"shortest_edge": SHORTEST_EDGE, "longest_edge": LONGEST_EDGE})
    model, judge = build(), build()
    average, optimizer = runtime.Average(model), optimizer_for(model)
    clock, step, best = runtime.Clock(minutes), 0, 0.0
    state = runtime.load_checkpoint(FOLDER / "checkpoint.pt")
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.weights = state["average"]
        clock.before_s, step, best = state["elapsed_s"], state["step"], state["best"]
    batches = DetectorBatches(tokenizer, BATCH, seed=step, scale=SMALL_SCALE)
    begun = time.monotonic()
    validation = natural_set("validation", pictures)
    clock.exclude(time.monotonic() - begun)
    last = time.monotonic()
    model.train()
    for batch in batches:
        finished = clock.progress >= 1
        batches.scale = SMALL_SCALE if clock.progress < SMALL_SHARE else 1.0
        for group in optimizer.param_groups:
            group["lr"] = runtime.learning_rate(clock.progress, step, PEAK_RATE)
        total, parts = losses(model, batch)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        if not bool(norm.isfinite()):
            continue
        optimizer.step()
        average.update(model, step)
        step += 1
        if step % 20 == 0:
            runtime.log(FOLDER / "log.jsonl", step=step, progress=clock.progress, loss=float(total.detach()), norm=float(norm),
                        width=batch.pixels.shape[-1], images_per_s=step * BATCH / clock.elapsed_s(), **parts)  # fmt: skip
        if time.monotonic() - last > evaluate_every_s or finished:
            begun = time.monotonic()
            judge.load_state_dict(average.weights)
            report = measure(judge, processor, tokenizer, validation)
            runtime.log(FOLDER / "log.jsonl", step=step, progress=clock.progress, validation=report.mean_ap50,
                        ap50=report.ap50, f1=report.best_f1, threshold=report.best_threshold)  # fmt: skip
            if report.mean_ap50 >= best:
                best = report.mean_ap50
                edges = (SHORTEST_EDGE, LONGEST_EDGE)
                runtime.replace_folder(
                    runtime.STARTER / "detector", lambda folder: save_folder(average.weights, folder, edges)
                )
            clock.exclude(time.monotonic() - begun)
            runtime.save_atomically(
                {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average.weights,
                 "elapsed_s": clock.elapsed_s(), "step": step, "best": best}, FOLDER / "checkpoint.pt",
            )  # fmt: skip
            last = time.monotonic()
        if finished:
            return


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the starter detector (resumable).")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--evaluate-every-s", type=float, default=300)
    parser.add_argument("--pictures", type=int, default=100, help="validation pictures")
    arguments = parser.parse_args()
    runtime.restart_with_allocator(arguments.threads)
    train(arguments.minutes, arguments.evaluate_every_s, arguments.pictures)


if __name__ == "__main__":
    main()
