"""CLIP, SigLIP and SigLIP 2 through open_clip: crops of regions against the ontology's phrases."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from torch.nn import functional as F

from autolabel.errors import ModelError
from autolabel.models.batching import Batches
from autolabel.models.clip_pixels import ClipPixels, Region
from autolabel.models.crops import BACKGROUNDS, SQUARES, Background, CropStyle, Square
from autolabel.models.hub import OPEN_CLIP_CONFIG, canonical, locate
from autolabel.models.runtime import forward_pass, keep_memory, on_gpu
from autolabel.models.sets import licence_of
from autolabel.models.specs import Options, folder_defaults, least_probability
from autolabel.models.weights import load_strict, read_state_dict, weights_sha256
from autolabel.protocols import ModelRef, Runtime
from autolabel.types import RGB, Classifications, Float, Mask, ModelInfo

TEMPLATES = "a photo of a {}.|a close-up photo of a {}.|{}"
_CPU_CROPS, _MOST_CROPS = 16, 512


@dataclass(frozen=True, slots=True)
class ClipOptions:
    """``templates`` for the phrases, ``style`` of the crops, ``batch`` crops of one forward pass (None: found).

    Labels with a lower probability than ``min_prob`` are not to be trusted. ``mirrored``: a crop's vector is the mean
    of its own and that of the crop mirrored along its diagonal.
    """

    templates: tuple[str, ...]
    style: CropStyle
    batch: int | None
    min_prob: float = 0.0
    mirrored: bool = False


def load(ref: ModelRef, runtime: Runtime) -> ClipClassifier:
    """Load ``ARCHITECTURE/TAG``, a repository of the hub, a folder with open_clip_config.json, or ``starter``.

    Options: ``context`` (margin as a share of the box's longer side, 0.15), ``square`` (expand, pad, off),
    ``background`` (keep, blur, grey), ``templates`` (separated by "|", each with one {}), ``batch`` (crops),
    ``weights`` (a checkpoint file for a bare architecture), ``min_prob`` (a run's default of that name), ``mirrored``
    (true: look at each crop twice, mirrored along its diagonal).
    """
    found = locate(ref, runtime)
    if Options(ref).text("weights", ""):
        return _from_file(ref, runtime, found.weights[0])
    model_name = f"local-dir:{found.folder}"
    digest = weights_sha256(found.weights)
    with _silenced():
        # open_clip itself reads with weights_only=True, and takes the weights of the folder.
        model = open_clip.create_model(model_name, precision="fp32", pretrained_text=False, require_pretrained=True)
        tokenizer = open_clip.get_tokenizer(model_name)
    info = ModelInfo(str(ref), digest, licence_of(canonical(ref)), runtime.device, runtime.dtype)
    return _classifier(ref, info, model, tokenizer, folder_defaults(found.folder / OPEN_CLIP_CONFIG))


def _from_file(ref: ModelRef, runtime: Runtime, weights: Path) -> ClipClassifier:
    architecture = ref.reference
    if architecture not in open_clip.list_models():
        raise ModelError(f"{ref}: open_clip has no architecture {architecture!r}")
    with _silenced():
        model = open_clip.create_model(architecture, precision="fp32", pretrained_text=False)
        tokenizer = open_clip.get_tokenizer(architecture)
    load_strict(model, read_state_dict(weights), weights)
    info = ModelInfo(str(ref), weights_sha256([weights]), None, runtime.device, runtime.dtype)
    return _classifier(ref, info, model, tokenizer, {})


def _classifier(ref: ModelRef, info: ModelInfo, model: Any, tokenizer: Any, defaults: dict[str, str]) -> ClipClassifier:
    runtime = Runtime(info.device, info.dtype)
    options = Options(ref, defaults)
    options.text("weights", "")
    templates = tuple(t for t in options.text("templates", TEMPLATES).split("|") if t)
    if not templates or any(t.count("{}") != 1 for t in templates):
        raise ModelError(f"{ref}: every template needs exactly one {{}}, got {'|'.join(templates)!r}")
    mean = tuple(round(255 * channel) for channel in model.visual.preprocess_cfg["mean"])
    style = CropStyle(
        options.number("context", 0.15),
        cast(Square, options.choice("square", "expand", cast("tuple[str, ...]", SQUARES))),
        cast(Background, options.choice("background", "keep", cast("tuple[str, ...]", BACKGROUNDS))),
        cast("tuple[int, int, int]", mean),
    )
    batch, min_prob, mirrored = options.optional_integer("batch"), least_probability(options), options.flag("mirrored")
    options.done()
    if not on_gpu(runtime):
        keep_memory()
    config = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
    transform = open_clip.transform.image_transform_v2(config, is_train=False)
    model = model.eval().to(runtime.device)
    return ClipClassifier(info, ClipOptions(templates, style, batch, min_prob, mirrored), model, tokenizer, transform)


def hub_ref(ref: ModelRef) -> ModelRef:
    """Replace ``ARCHITECTURE/TAG`` and open_clip's own prefixes by the repository or folder they stand for."""
    reference = ref.reference.removeprefix("hf-hub:").removeprefix("local-dir:")
    architecture, _, tag = reference.partition("/")
    if architecture not in open_clip.list_models() or Path(reference).exists():
        return replace(ref, reference=reference)
    entry = get_pretrained_cfg(architecture, tag)
    if not entry:
        known = ", ".join(list_pretrained_tags_by_model(architecture)) or "none"
        raise ModelError(f"{ref}: open_clip has no weights {tag!r} for {architecture}; known: {known}")
    repository = str(entry.get("hf_hub") or "").strip("/")
    if repository.count("/") != 1:
        raise ModelError(f"{ref}: these weights are not on the hub; download them and add ?weights=<file>")
    return replace(ref, reference=repository)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keep open_clip's loading notes out of the root logger, which it writes to."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class ClipClassifier:
    """Open-vocabulary region classifier.

    A class's text embedding is the mean over its phrases and the templates. Probabilities are the softmax over the
    classes that were asked for of ``logit_scale x cosine``, also for SigLIP, whose own scores are independent
    sigmoids: a row sums to 1 and says which class of this ontology fits best, not whether one fits at all. (Its
    ``logit_bias`` is the same for every class and so drops out.)
    """

    def __init__(self, info: ModelInfo, options: ClipOptions, model: Any, tokenizer: Any, transform: Any) -> None:
        self.info = info
        self._runtime = Runtime(info.device, info.dtype)
        self._options = options
        self._model = model
        self._tokenizer = tokenizer
        self._pixels = ClipPixels(transform, options.style, self._runtime)
        self._batches = Batches(self._runtime, options.batch, cpu=_CPU_CROPS, first=32, most=_MOST_CROPS)
        self.encoder: Callable[[torch.Tensor], torch.Tensor] = model.encode_image
        """The image encoder: ``(B, 3, S, S)`` to ``(B, D)``; whatever gives the same faster may take its place."""
        self._asked: torch.Tensor | None = None
        # One ontology serves a whole run, so its text is encoded once.
        self._text = lru_cache(maxsize=16)(self._encode_text)

    @property
    def min_prob(self) -> float:
        """Probability below which a label is not to be trusted."""
        return self._options.min_prob

    def predict_batch(
        self,
        images: Sequence[RGB],
        boxes_xyxy: Sequence[Float],
        masks: Sequence[Sequence[Mask]] | None,
        classes: Sequence[Sequence[str]],
    ) -> list[Classifications]:
        """Classify each region over ``classes``; the crops of all images go through the model together."""
        regions: list[Region] = []
        for place, (image, boxes) in enumerate(zip(images, boxes_xyxy, strict=True)):
            own = masks[place] if masks else [None] * len(boxes)
            regions += [(image, box, mask) for box, mask in zip(boxes, own, strict=True)]
        text = self._asked = self._text(tuple(tuple(phrases) for phrases in classes)) if classes else None
        embeddings = self._encode_images(regions)
        probs = self._probabilities(embeddings, text).numpy()
        answers = []
        start = 0
        for boxes in boxes_xyxy:
            part = slice(start, start + len(boxes))
            answers.append(Classifications(probs[part], embeddings[part].numpy()))
            start += len(boxes)
        return answers

    def opinions(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Probabilities ``(N, K)`` of the classes asked for last, of ``(N, D)`` vectors: two encoders compared."""
        return self._probabilities(F.normalize(embeddings, dim=-1), self._asked)

    def _probabilities(self, embeddings: torch.Tensor, text: torch.Tensor | None) -> torch.Tensor:
        if text is None:
            return torch.zeros((len(embeddings), 0))
        return (float(self._model.logit_scale.detach().exp()) * (embeddings @ text.T)).softmax(dim=-1)

    def _encode_text(self, classes: tuple[tuple[str, ...], ...]) -> torch.Tensor:
        """One unit vector for each class, ``(K, D)`` float32 on the CPU."""
        sentences = [t.replace("{}", p) for phrases in classes for p in phrases for t in self._options.templates]
        with forward_pass(self._runtime):
            parts = [
                F.normalize(
                    self._model.encode_text(self._tokenizer(sentences[i : i + 256]).to(self._runtime.device)).float(),
                    dim=-1,
                )
                for i in range(0, len(sentences), 256)
            ]
            every = torch.cat(parts).cpu()
            counts = [len(phrases) * len(self._options.templates) for phrases in classes]
            return F.normalize(torch.stack([each.mean(dim=0) for each in torch.split(every, counts)]), dim=-1)

    def _encode_images(self, regions: Sequence[Region]) -> torch.Tensor:
        """Encode regions to unit vectors, ``(N, D)`` float32 on the CPU."""
        if not regions:
            return torch.zeros((0, self._dimension()))
        prepared = self._pixels.prepared(regions, ahead=2 * self._batches.size())
        parts = [part for _, part in self._batches.run(prepared, self._encode)]
        self._pixels.release()
        return torch.cat(parts).cpu()

    def _encode(self, prepared: Sequence[Any]) -> torch.Tensor:
        pixels = self._pixels.batch(prepared)
        with forward_pass(self._runtime):
            vectors = F.normalize(self.encoder(pixels).float(), dim=-1)
            if self._options.mirrored:
                turned = self.encoder(pixels.transpose(2, 3).contiguous())
                vectors = F.normalize(vectors + F.normalize(turned.float(), dim=-1), dim=-1)
            return vectors

    def _dimension(self) -> int:
        return int(self._text((("thing",),)).shape[1])
