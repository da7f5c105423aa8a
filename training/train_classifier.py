"""Train the starter classifier: ``python -m training.train_classifier --minutes 25``; a second call goes on."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from training import runtime
from training.classifier_data import GROUP_NAMES, GROUPS, CropBatches, cut
from training.classifier_model import CROP_CONTEXT, IMAGE_SIZE, TEMPLATES, build, normalise, save_folder, tokenize
from training.generator import CLASS_NAMES
from training.natural import Labelled, natural_set
from training.stream import Stream
from training.vocabulary import ADJECTIVES, COLOURS, MORE_PLACES, PLACES, invented_word, unknown_words

PEAK_RATE: Final = 1e-3
ON_CPU: Final = 64
ON_GPU: Final = 256
TINY: Final = 4
WORKERS: Final = 4
"""Processes that make batches for a GPU."""
_UNKNOWN: Final = unknown_words(CLASS_NAMES)
EXTRA_TEMPLATES: Final = (
    "a photo of a {} on a surface",
    "{} on metal",
    "an inspection photo of a {}",
    "a picture of {}",
)


def captions(rng: np.random.Generator) -> tuple[list[str], list[int]]:
    """Sentences of a step, and the group of each (-1: a word that fits no crop)."""
    sentences, groups = [], []
    templates = (*TEMPLATES, *TEMPLATES, *EXTRA_TEMPLATES)
    for group, name in enumerate(GROUP_NAMES):
        words = {name, *(str(w) for w in rng.choice(GROUPS[name], 2))} if rng.random() < 0.8 else {name}
        for word in sorted(words):
            text = f"{rng.choice((*ADJECTIVES, *COLOURS))} {word}" if rng.random() < 0.14 else word
            text = f"{text} {rng.choice((*PLACES, *MORE_PLACES))}" if rng.random() < 0.12 else text
            sentences.append(str(rng.choice(templates)).replace("{}", text))
            groups.append(group)
    for _ in range(6):
        word = str(rng.choice(_UNKNOWN)) if rng.random() < 0.7 else invented_word(rng)
        sentences.append(str(rng.choice(templates)).replace("{}", word))
        groups.append(-1)
    return sentences, groups


def contrast(logits: Tensor, labels: Tensor, groups: Tensor) -> Tensor:
    """Multi-positive softmax in both directions; ``logits`` ``(B, S)``; a crop's positives are its group's words."""
    positive = labels[:, None] == groups[None]
    hidden = logits.masked_fill(~positive, -torch.inf)
    by_image = (logits.logsumexp(1) - hidden.logsumexp(1)).mean()
    has = positive.any(0)
    by_text = (logits.logsumexp(0) - hidden.logsumexp(0))[has].mean()
    return by_image + 0.25 * by_text


@torch.no_grad()
def class_embeddings(model: Any, names: tuple[str, ...]) -> Tensor:
    """Mean unit vector of each name over the templates, ``(K, D)``."""
    sentences = [template.replace("{}", name) for name in names for template in TEMPLATES]
    device = model.logit_scale.device
    features = nnf.normalize(model.encode_text(tokenize(sentences).to(device)).float(), dim=-1)
    return nnf.normalize(features.reshape(len(names), len(TEMPLATES), -1).mean(1), dim=-1)


def natural_crops(pictures: list[Labelled]) -> tuple[Tensor, NDArray[np.int64]]:
    """Crops of ground-truth boxes, normalised ``(N, 3, 128, 128)``, and their classes."""
    crops, labels = [], []
    for picture in pictures:
        image = picture.image()
        for box, label in zip(picture.boxes, picture.labels, strict=True):
            window = (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
            crops.append(cut(image, window, CROP_CONTEXT, IMAGE_SIZE))
            labels.append(int(label))
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    return normalise(pixels), np.asarray(labels, np.int64)


@torch.no_grad()
def cosines(model: Any, pixels: Tensor, names: tuple[str, ...]) -> Tensor:
    """Cosine of every crop with every name, ``(N, K)``; crops are looked at twice, as the product is asked to."""
    text = class_embeddings(model, names)

    def embed(crops: Tensor) -> Tensor:
        return nnf.normalize(model.encode_image(crops).float(), dim=-1)

    parts = [part.to(model.logit_scale.device) for part in torch.split(pixels, 32)]
    both = [nnf.normalize(embed(part) + embed(part.transpose(2, 3)), dim=-1) for part in parts]
    return (torch.cat(both) @ text.t()).cpu()


def best_scale(similarity: Tensor, labels: Tensor) -> float:
    """Find the logit scale with the smallest cross-entropy: a calibrated softmax over the classes."""
    scales = np.exp(np.linspace(np.log(3), np.log(100), 60))
    return float(min(scales, key=lambda s: float(nnf.cross_entropy(float(s) * similarity, labels))))


def measure(model: Any, pixels: Tensor, labels: NDArray[np.int64]) -> tuple[dict[str, float], float]:
    """Top-1 accuracy per class (and mean, and cross-entropy) on crops, and the calibrated logit scale."""
    model.eval()
    similarity = cosines(model, pixels, CLASS_NAMES)
    model.train()
    truth = torch.from_numpy(labels)
    scale = best_scale(similarity, truth)
    right = (similarity.argmax(1) == truth).numpy()
    result = {
        name: round(float(right[labels == k].mean()), 3) for k, name in enumerate(CLASS_NAMES) if (labels == k).any()
    }
    result["mean"] = round(float(np.mean(list(result.values()))), 4)
    result["top1"] = round(float(right.mean()), 4)
    result["cross_entropy"] = round(float(nnf.cross_entropy(scale * similarity, truth)), 4)
    return result, scale


def train(arguments: argparse.Namespace) -> None:
    """Train from the last checkpoint; write the weights after every evaluation that is the best so far."""
    runtime.repeatable(arguments.seed)
    device = runtime.pick_device(arguments.device)
    size = TINY if arguments.tiny else ON_GPU if device.type == "cuda" else ON_CPU
    folder: Path = arguments.work / "classifier"
    model, judge = build().to(device), build().to(device)
    if arguments.start is not None:
        runtime.begin_with(model, load_file(arguments.start / "open_clip_model.safetensors"))
    peak_rate = arguments.rate or (PEAK_RATE if arguments.start is None else PEAK_RATE / 2)
    average = runtime.Average(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate, betas=(0.9, 0.98), weight_decay=0.02)
    minutes = None if arguments.steps else arguments.minutes
    schedule, step, best = runtime.Schedule(minutes, arguments.steps, arguments.stop_after_s), 0, 9.0
    state = runtime.load_checkpoint(folder / "checkpoint.pt")
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.load(state["average"])
        schedule.before_s, step, best = state["elapsed_s"], state["step"], state["best"]
    stream = Stream(CropBatches(size), schedule, arguments.seed, first=step)
    pixels, truth = natural_crops(natural_set("validation", arguments.pictures))
    last, smooth = time.monotonic(), torch.zeros((), device=device)
    model.train()
    batches = stream.loader(WORKERS if device.type == "cuda" else 0)
    while (progress := schedule.progress(step)) < 1:
        stream.tell(progress)
        for group in optimizer.param_groups:
            group["lr"] = runtime.learning_rate(progress, step, peak_rate)
        crops, labels = next(batches)
        sentences, groups = captions(np.random.default_rng([arguments.seed, step, 10]))
        with runtime.mixed(device):
            images = model.encode_image(normalise(crops.to(device).float() / 255))
            texts = model.encode_text(tokenize(sentences).to(device))
        images, texts = nnf.normalize(images.float(), dim=-1), nnf.normalize(texts.float(), dim=-1)
        logits = model.logit_scale.exp() * images @ texts.t()
        loss = contrast(logits, labels.to(device), torch.tensor(groups, device=device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, float(np.log(60)))
        average.update(model, step)
        step += 1
        smooth += (loss.detach() - smooth) / min(50, step)
        if step % 50 == 0:
            runtime.log(folder / "log.jsonl", step=step, progress=progress, loss=float(smooth),
                        images_per_s=step * size / schedule.elapsed_s())  # fmt: skip
        finished = schedule.progress(step) >= 1 or schedule.must_stop()
        if time.monotonic() - last > arguments.evaluate_every_s or finished:
            begun = time.monotonic()
            judge.load_state_dict(average.weights)
            report, scale = measure(judge, pixels, truth)
            runtime.log(folder / "log.jsonl", step=step, progress=progress, scale=scale, top1=report)
            if report["cross_entropy"] <= best:
                best = report["cross_entropy"]
                weights = {**average.on_cpu(), "logit_scale": torch.tensor(float(np.log(scale)))}
                runtime.replace_folder(arguments.work / "trained" / "classifier", partial(save_folder, weights))
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
    parser = argparse.ArgumentParser(description="Train the starter classifier (resumable).")
    parser.add_argument("--threads", type=int, default=1)
    runtime.add_options(parser, minutes=25, evaluate_every_s=180, pictures=100)
    arguments = parser.parse_args()
    runtime.restart_with_allocator(arguments.threads)
    train(arguments)


if __name__ == "__main__":
    main()
