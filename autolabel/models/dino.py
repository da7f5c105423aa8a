"""What both Grounding DINO backends share: captions, pixel values, passes, and boxes in px of the original."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from autolabel.errors import ModelError
from autolabel.models.batching import CPU_PIXELS, Batches
from autolabel.models.phrases import SPANS, Pass, Span, plan_passes, span_scores
from autolabel.models.runtime import forward_pass, to_device
from autolabel.models.specs import Options
from autolabel.protocols import Runtime
from autolabel.types import RGB, Detections, Float, ModelInfo

if TYPE_CHECKING:
    import torch

Forward = Callable[["torch.Tensor", "torch.Tensor", Pass], tuple["torch.Tensor", "torch.Tensor"]]
"""``(pixel_values (B, 3, H, W), pixel_mask (B, H, W), pass)`` to ``(logits (B, Q, T), boxes (B, Q, 4) cxcywh 0–1)``."""
_MOST_IMAGES = 32

_HEAD = re.compile(r"(bbox|class)_embed(\.\d+)?$")


@dataclass(frozen=True, slots=True)
class DinoModel:
    """A loaded network: its tokenizer, how many tokens it reads, its image processor, and one forward pass."""

    tokenizer: Any
    max_tokens: int
    processor: Any
    forward: Forward


@dataclass(frozen=True, slots=True)
class DinoOptions:
    """Options of both backends.

    ``batch`` images of one forward pass (None: as many as fit on a GPU, as are quickest on a CPU), ``span``, and
    ``phrases_per_pass`` (0: all). Images longer than ``tile_from`` times the input are also shown in tiles of
    ``tile_zoom`` times the input (None: as usual).
    """

    batch: int | None
    span: Span
    phrases_per_pass: int
    tile_from: float | None = None
    tile_zoom: float | None = None

    @classmethod
    def read(cls, options: Options) -> DinoOptions:
        """Read the options."""
        span = options.choice("span", "max", cast("tuple[str, ...]", SPANS))
        return cls(
            options.optional_integer("batch"),
            cast(Span, span),
            options.integer("phrases_per_pass", 0, low=0),
            options.optional_number("tile_from", low=1.0),
            options.optional_number("tile_zoom", low=1.0),
        )


class DinoDetector:
    """Grounding DINO behind ``Forward``: text-prompted boxes with one score for each phrase.

    Images are resized one by one and only those of equal size share a forward pass. Padding images of different
    sizes into one batch would change their scores, because the backbone's windows see the padding.
    """

    def __init__(self, info: ModelInfo, options: DinoOptions, model: DinoModel) -> None:
        self.info = info
        self._runtime = Runtime(info.device, info.dtype)
        self._span = options.span
        self.tile_from, self.tile_zoom = options.tile_from, options.tile_zoom
        self._processor = model.processor
        self._batches = Batches(self._runtime, options.batch, cpu=4, cpu_units=CPU_PIXELS, most=_MOST_IMAGES)
        self.forward = model.forward
        """The network; whatever gives the same answers faster may take its place."""

        # A run asks for the same phrases batch after batch, so they are tokenised once.
        @lru_cache(maxsize=16)
        def plan(phrases: tuple[str, ...]) -> tuple[Pass, ...]:
            return tuple(plan_passes(phrases, model.tokenizer, model.max_tokens, options.phrases_per_pass or None))

        self._plan = plan

    @property
    def input_px(self) -> int | None:
        """Longer side px of what the network is shown, or None where the processor does not bound it."""
        size: Any = getattr(self._processor, "size", None) or {}
        longest = size.get("longest_edge") if hasattr(size, "get") else getattr(size, "longest_edge", None)
        return int(longest) if longest else None

    def predict_batch(self, images: Sequence[RGB], phrases: Sequence[str], min_score: float) -> list[Detections]:
        """Detect ``phrases`` in each image, best box first; leaves out boxes with no phrase at ``min_score``.

        With more phrases than fit one caption the boxes of all passes stand side by side, and a phrase that was not
        in a box's caption scores 0 for it.
        """
        passes = self._plan(tuple(phrases))
        if not passes:
            return [Detections.empty(0) for _ in images]
        found: list[list[Detections]] = [[] for _ in images]
        for places, pixels in self._by_size(images):
            for each in passes:
                for part, answers in self._batches.run(pixels, partial(self._predict, each), pixels[0][0, 0].numel()):
                    for place, answer in zip(places[part], answers, strict=True):
                        relative = _best_first(answer[:, :4], answer[:, 4:], each, len(phrases), min_score)
                        found[place].append(_in_px(relative, images[place]))
        return [_merge(parts) for parts in found]

    def _by_size(self, images: Sequence[RGB]) -> list[tuple[list[int], list[torch.Tensor]]]:
        """Places and pixel values of the images that have one size as the network sees them."""
        groups: dict[tuple[int, ...], tuple[list[int], list[torch.Tensor]]] = {}
        for place, image in enumerate(images):
            pixels = self.pixel_values(image)
            places, stack = groups.setdefault(tuple(pixels.shape), ([], []))
            places.append(place)
            stack.append(pixels)
        return list(groups.values())

    def pixel_values(self, image: RGB) -> torch.Tensor:
        """Resize and normalise one image as the model's own processor does: ``(1, 3, h, w)`` float on the device."""
        import torch

        chw = to_device(torch.from_numpy(np.array(image)), self._runtime).permute(2, 0, 1)
        with torch.inference_mode():
            features = self._processor(images=[chw], return_tensors="pt", device=self._runtime.device)
        return cast("torch.Tensor", features["pixel_values"])

    def _predict(self, each: Pass, images: Sequence[torch.Tensor]) -> Float:
        """Run one pass over images of one size: ``(B, Q, 4 + P)`` relative boxes and phrase scores, on the CPU."""
        import torch

        with forward_pass(self._runtime):
            logits, boxes = self._run(torch.cat(list(images)), each)
            both = torch.cat([boxes.float(), span_scores(logits, each.spans, self._span)], dim=-1)
            # The one moment at which the CPU waits for the device.
            answers: Float = both.cpu().numpy()
        return answers

    def _run(self, pixels: torch.Tensor, each: Pass) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the network; a strip too thin to hold as many proposals as the model picks is padded until it does."""
        import torch

        batch, _, height, width = pixels.shape
        mask = torch.ones((batch, height, width), dtype=torch.long, device=pixels.device)
        while True:
            try:
                return self.forward(pixels, mask, each)
            except RuntimeError as error:
                short, long = sorted(pixels.shape[-2:])
                if "index k out of range" not in str(error) or short == long:
                    raise
                more = min(short, long - short)
                right, bottom = (more, 0) if pixels.shape[-1] == short else (0, more)
                pixels = torch.nn.functional.pad(pixels, (0, right, 0, bottom))
                mask = torch.nn.functional.pad(mask, (0, right, 0, bottom))


def _best_first(boxes: Float, scores: Float, each: Pass, count: int, min_score: float) -> Detections:
    """Of one image's ``(Q, 4)`` relative cxcywh boxes and ``(Q, P)`` scores keep the good ones, best first."""
    best = scores.max(axis=-1)
    if not np.isfinite(best).all():
        raise ModelError("the detector returned scores that are not numbers; run it with dtype float32")
    keep = np.flatnonzero(best >= min_score)
    keep = keep[np.argsort(-best[keep], kind="stable")]
    by_phrase = np.zeros((len(keep), count), np.float32)
    by_phrase[:, list(each.phrases)] = scores[keep]
    return Detections(boxes[keep], by_phrase)


def _in_px(relative: Detections, image: RGB) -> Detections:
    """From centre and size relative to the image to corners in its px, clipped to it."""
    height, width = image.shape[:2]
    centre, half = relative.boxes_xyxy[:, :2], relative.boxes_xyxy[:, 2:] / 2
    corners = np.clip(np.concatenate([centre - half, centre + half], axis=1), 0.0, 1.0)
    scale = np.array([width, height, width, height], np.float32)
    return replace(relative, boxes_xyxy=(corners * scale).astype(np.float32))


def exact_heads(model: torch.nn.Module, runtime: Runtime) -> None:
    """Keep the box and score heads out of autocast, in place: they are small, and coordinates need the digits.

    Measured on an early starter against float32, images of 800 to 2000 px: with bfloat16 the boxes move by 0.9 px in
    the median instead of 1.4, with float16 the 90th percentile falls from 1.5 to 0.4 px.
    """
    if runtime.dtype == "float32":
        return
    for name, module in model.named_modules():
        if _HEAD.search(name) and type(module).__name__ != "ModuleList":
            module.forward = _exact(module.forward, runtime.device.partition(":")[0])


def _exact(forward: Callable[..., Any], device_type: str) -> Callable[..., Any]:
    import torch

    def as_float(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: as_float(each) for key, each in value.items()}
        return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    def exact(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device_type, enabled=False):
            return forward(*(as_float(each) for each in args), **as_float(kwargs))

    return exact


def _merge(parts: Sequence[Detections]) -> Detections:
    """Put the boxes of several passes together, best first."""
    if len(parts) == 1:
        return parts[0]
    boxes: Float = np.concatenate([p.boxes_xyxy for p in parts])
    scores: Float = np.concatenate([p.phrase_scores for p in parts])
    order = np.argsort(-scores.max(axis=1, initial=0.0), kind="stable")
    return Detections(boxes[order], scores[order])
