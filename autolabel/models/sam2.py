"""SAM 2 and 2.1 through the sam2 package: each image is encoded once, the boxes of several are decoded together.

The package's own predictor decodes image by image and has a 1024-px model's feature sizes written in; here any
``image_size`` works, and the configuration is read as a file, never through Hydra's search path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from autolabel.errors import ModelError
from autolabel.models.hub import Located, locate
from autolabel.models.runtime import inference, keep_memory, on_gpu
from autolabel.models.sets import licence_of
from autolabel.models.specs import Options
from autolabel.models.weights import load_strict, read_state_dict, weights_sha256
from autolabel.protocols import ModelRef, Prompt, Runtime
from autolabel.types import RGB, Float, Mask, ModelInfo, Segments

_NAME = re.compile(r"sam2(?P<minor>[._]1)?[_-]hiera[_-](?P<size>tiny|small|base[_-]plus|large|t|s|b\+|l)(?![a-z])")
_SIZES = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}
# What the official builder adds for images: where a single mask is unstable, take the best of the three others.
_DECODER_EXTRAS = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}
_UPSAMPLED_PIXELS = 16_000_000
# What SAM calls its points: beside the object, on it, and the corners of a box.
_NEGATIVE, _POSITIVE, _CORNERS = 0, 1, (2, 3)


@dataclass(frozen=True, slots=True)
class Sam2Options:
    """``batch`` images encoded at once, ``boxes`` decoded at once, ``multimask``: best of three masks for a box.

    With a ``margin`` a mask ends where its box does, grown by that share of the longer side; official models have none.
    ``points`` says that the model was trained with points too, as official ones are.
    """

    batch: int
    boxes: int
    multimask: bool
    margin: float | None = None
    points: bool = True


def load(ref: ModelRef, runtime: Runtime) -> Sam2Segmenter:
    """Load an official ``.pt``, a folder with ``config.yaml`` and weights, a repository of the hub, or ``starter``.

    Options: ``config`` (path or name of a configuration; otherwise chosen by the checkpoint's name), ``batch``,
    ``boxes``, ``multimask``, ``margin``, ``points``. A configuration may state its own in a table ``autolabel``.
    """
    gpu = on_gpu(runtime)
    path = _one_checkpoint(locate(ref, runtime), ref)
    config = _config_file(Options(ref).text("config", ""), path, ref)
    options = Options(ref, _own_options(config))
    options.text("config", "")
    settings = Sam2Options(
        options.integer("batch", 8 if gpu else 1),
        options.integer("boxes", 64 if gpu else 8),
        options.flag("multimask"),
        options.number("margin", 0.0) if options.text("margin", "") else None,
        options.flag("points", True),
    )
    options.done()
    model = build(config)
    if not gpu:
        keep_memory()
    digest = weights_sha256([path])
    load_strict(model, read_state_dict(path), path)
    info = ModelInfo(str(ref), digest, licence_of(ref), runtime.device, runtime.dtype)
    return Sam2Segmenter(info, settings, model.eval().to(runtime.device))


def _own_options(config: Path) -> dict[str, str]:
    """Options that a configuration states for itself, as strings."""
    from omegaconf import OmegaConf

    content: Any = OmegaConf.to_container(OmegaConf.load(config), resolve=True)
    table = content.get("autolabel") if isinstance(content, dict) else None
    return {str(name): str(value) for name, value in (table or {}).items()}


def build(config: Path) -> Any:
    """Build an untrained SAM 2 from a configuration file with a ``model`` table.

    Raises ModelError when the file names anything to construct that is not part of the sam2 package.
    """
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    content: Any = OmegaConf.to_container(OmegaConf.load(config), resolve=True)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ModelError(f"{config} has no table 'model'; is it a configuration of SAM 2?")
    table: dict[str, Any] = content["model"]
    _check_targets(table, config)
    table["sam_mask_decoder_extra_args"] = {**_DECODER_EXTRAS, **(table.get("sam_mask_decoder_extra_args") or {})}
    table["compile_image_encoder"] = False
    return instantiate(table, _recursive_=True)


def _check_targets(table: Any, config: Path) -> None:
    """Allow the model's own parts only: a configuration names what is called, so one from elsewhere could harm."""
    if isinstance(table, dict):
        target = table.get("_target_", "sam2.modeling.")
        if not str(target).startswith("sam2.modeling."):
            raise ModelError(f"{config} asks to construct {target!r}; only sam2.modeling is allowed")
    for value in table.values() if isinstance(table, dict) else table if isinstance(table, list) else ():
        _check_targets(value, config)


def _one_checkpoint(found: Located, ref: ModelRef) -> Path:
    if len(found.weights) == 1:
        return found.weights[0]
    wanted = f"{ref.reference.split('/')[-1].replace('-', '_')}.pt"
    for path in found.weights:
        if path.name == wanted:
            return path
    names = ", ".join(path.name for path in found.weights)
    raise ModelError(f"{ref} holds several checkpoints ({names}); name one: {ref.reference}/<file>")


def _config_file(given: str, weights: Path, ref: ModelRef) -> Path:
    """Find the configuration: the one that is given, the one beside the weights, or the package's by name."""
    import sam2

    configs = Path(str(sam2.__file__)).parent / "configs"
    if given:
        for path in (
            Path(given).expanduser(),
            *configs.glob(f"**/{Path(given).name}"),
            *configs.glob(f"**/{given}.yaml"),
        ):
            if path.is_file():
                return path
        known = ", ".join(sorted(p.stem for p in configs.glob("sam2*/sam2*_hiera_?*.yaml") if "training" not in str(p)))
        raise ModelError(f"{ref}: no configuration {given!r}; give a path or one of {known}")
    if (weights.parent / "config.yaml").is_file():
        return weights.parent / "config.yaml"
    match = _NAME.search(weights.name.lower())
    if match is None:
        raise ModelError(
            f"{ref}: the name {weights.name} does not say which SAM 2 it is; add ?config=sam2.1_hiera_t (or a path)"
        )
    size = _SIZES.get(match["size"].replace("-", "_"), match["size"])
    version = "sam2.1" if match["minor"] else "sam2"
    return configs / version / f"{version}_hiera_{size}.yaml"


@dataclass(frozen=True, slots=True)
class _Embedded:
    """Features of some images: ``(B, C, S/16, S/16)``, and the finer levels, finest first, where the model has them."""

    coarse: torch.Tensor
    fine: tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True)
class _Seen:
    """One image that was encoded for prompts."""

    features: _Embedded
    size_hw: tuple[int, int]


class Sam2Segmenter:
    """SAM 2, prompted by boxes, and by points where a person clicks."""

    def __init__(self, info: ModelInfo, options: Sam2Options, model: Any) -> None:
        self.info = info
        self._runtime = Runtime(info.device, info.dtype)
        self._options = options
        self._model = model
        self._mean = torch.tensor([0.485, 0.456, 0.406], device=info.device)[:, None, None]
        self._std = torch.tensor([0.229, 0.224, 0.225], device=info.device)[:, None, None]

    @property
    def input_px(self) -> int:
        """Side px of the square that the network is shown."""
        return int(self._model.image_size)

    def predict_batch(self, images: Sequence[RGB], boxes_xyxy: Sequence[Float]) -> list[Segments]:
        """Return one mask and its predicted IoU for each ``(N, 4)`` px box; an image without boxes is not encoded."""
        masks: list[list[Mask]] = [[] for _ in images]
        scores: list[list[float]] = [[] for _ in images]
        busy = [place for place, boxes in enumerate(boxes_xyxy) if len(boxes)]
        with inference(self._runtime):
            for start in range(0, len(busy), self._options.batch):
                places = busy[start : start + self._options.batch]
                embedded = self._embed([images[place] for place in places])
                owners = np.repeat(np.arange(len(places)), [len(boxes_xyxy[place]) for place in places])
                corners = [self._scaled(boxes_xyxy[p].reshape(-1, 2), images[p].shape[:2]) for p in places]
                prompts = np.concatenate(corners).reshape(-1, 2, 2)
                for first in range(0, len(owners), self._options.boxes):
                    part = slice(first, first + self._options.boxes)
                    logits, quality = self._decode(embedded, owners[part], prompts[part], self._options.multimask)
                    for row, owner in enumerate(owners[part]):
                        scores[places[owner]].append(float(quality[row]))
                    for owner in dict.fromkeys(owners[part].tolist()):
                        own = owners[part] == owner
                        place = places[owner]
                        done = len(masks[place])
                        boxes = boxes_xyxy[place][done : done + int(own.sum())]
                        windows = self._windows(boxes, images[place].shape[:2])
                        mine = logits[torch.from_numpy(own).to(logits.device)]
                        masks[place] += _full_size(mine, images[place].shape[:2], windows)
        return [Segments(tuple(m), np.array(s, np.float32)) for m, s in zip(masks, scores, strict=True)]

    @property
    def points(self) -> bool:
        """Whether the model was trained with points."""
        return self._options.points

    def embed(self, image: RGB) -> _Seen:
        """Encode one image, for any number of prompts."""
        height, width = image.shape[:2]
        with inference(self._runtime):
            return _Seen(self._embed([image]), (height, width))

    def segment_prompts(self, embedded: _Seen, prompts: Sequence[Prompt]) -> Segments:
        """Return one mask and its predicted IoU for each prompt; a lone click gets the best of three masks."""
        masks, scores = list[Mask](), list[float]()
        with inference(self._runtime):
            for prompt in prompts:
                points, kinds = _points_of(prompt)
                alone = prompt.box is None and len(points) == 1
                scaled = self._scaled(points, embedded.size_hw)[None]
                logits, quality = self._decode(
                    embedded.features, np.zeros(1, np.int64), scaled, alone or self._options.multimask, kinds
                )
                box = None if prompt.box is None else np.array([prompt.box.xyxy], np.float32)
                windows = None if box is None else self._windows(box, embedded.size_hw)
                masks += _full_size(logits, embedded.size_hw, windows)
                scores.append(float(quality[0]))
        return Segments(tuple(masks), np.array(scores, np.float32))

    def _scaled(self, points_xy: Float, size_hw: tuple[int, ...]) -> Float:
        """``(N, 2)`` px of an image in px of the model's square input."""
        scale = np.array([size_hw[1], size_hw[0]], np.float32)
        scaled: Float = (points_xy.astype(np.float32) / scale * self._model.image_size).astype(np.float32)
        return scaled

    def _windows(self, boxes_xyxy: Float, size_hw: tuple[int, ...]) -> list[tuple[slice, slice]] | None:
        """Rows and columns in which each box's mask may lie; None: anywhere."""
        if self._options.margin is None:
            return None
        height, width = size_hw
        grow = self._options.margin * (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).max(axis=1)
        low = np.clip(np.floor(boxes_xyxy[:, :2] - grow[:, None]), 0, None).astype(int)
        high = np.minimum(np.ceil(boxes_xyxy[:, 2:] + grow[:, None]), (width, height)).astype(int)
        return [(slice(y0, y1), slice(x0, x1)) for (x0, y0), (x1, y1) in zip(low, high, strict=True)]

    def pixel_values(self, image: RGB) -> torch.Tensor:
        """Squash one image to the model's square input and normalise it: ``(3, S, S)`` float on the device."""
        chw = torch.from_numpy(np.array(image)).to(self._runtime.device).permute(2, 0, 1)
        size = self._model.image_size
        # Channel by channel: in float a photo of 48 megapixels takes 200 MB a channel, and several times that at once.
        planes = [
            F.interpolate((plane.float() / 255)[None, None], (size, size), mode="bilinear", antialias=True)[0, 0]
            for plane in chw
        ]
        return (torch.stack(planes) - self._mean) / self._std

    def _embed(self, images: Sequence[RGB]) -> _Embedded:
        model = self._model
        features = model.forward_image(torch.stack([self.pixel_values(image) for image in images]))["backbone_fpn"]
        levels = list(features[-model.num_feature_levels :])
        if model.directly_add_no_mem_embed:
            # The embedding that stands for "no memory of earlier frames", as the model was trained on images.
            levels[-1] = levels[-1] + model.no_mem_embed.reshape(1, -1, 1, 1)
        return _Embedded(levels[-1], tuple(levels[:-1]))

    def _decode(
        self,
        embedded: _Embedded,
        owners: np.ndarray[Any, Any],
        prompts: Float,
        multimask: bool,
        kinds: Sequence[int] = _CORNERS,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode prompts of several images at once: mask logits ``(n, S/4, S/4)`` and predicted IoU ``(n,)``.

        ``prompts`` is ``(n, P, 2)`` px of the square input, and ``kinds`` says what each of the P points is.
        """
        model = self._model
        index = torch.from_numpy(owners).to(embedded.coarse.device)
        points = torch.from_numpy(prompts).to(embedded.coarse.device)
        labels = torch.tensor([kinds], dtype=torch.int, device=points.device).expand(len(points), -1)
        sparse, dense = model.sam_prompt_encoder(points=(points, labels), boxes=None, masks=None)
        logits, quality, _, _ = model.sam_mask_decoder(
            image_embeddings=embedded.coarse[index],
            image_pe=model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            repeat_image=False,
            high_res_features=[level[index] for level in embedded.fine] or None,
        )
        best = quality.argmax(dim=1)
        rows = torch.arange(len(best), device=best.device)
        return logits[rows, best].float(), quality[rows, best].float().clamp(0, 1).cpu()


def _points_of(prompt: Prompt) -> tuple[Float, tuple[int, ...]]:
    """Points ``(P, 2)`` px, the corners of the box first, and what each of them is."""
    corners = () if prompt.box is None else (prompt.box.xyxy[:2], prompt.box.xyxy[2:])
    points = (*corners, *prompt.positive, *prompt.negative)
    kinds = (
        *(_CORNERS if corners else ()),
        *(_POSITIVE for _ in prompt.positive),
        *(_NEGATIVE for _ in prompt.negative),
    )
    return np.array(points, np.float32).reshape(-1, 2), kinds


def _full_size(
    logits: torch.Tensor, size_hw: tuple[int, int], windows: Sequence[tuple[slice, slice]] | None
) -> list[Mask]:
    """Upsample ``(n, h, w)`` logits to the image, a few at a time so that memory stays bounded, and cut at 0."""
    at_once = max(1, _UPSAMPLED_PIXELS // (size_hw[0] * size_hw[1]))
    masks: list[Mask] = []
    for start in range(0, len(logits), at_once):
        part = logits[start : start + at_once, None]
        full = F.interpolate(part, size_hw, mode="bilinear", align_corners=False)[:, 0] > 0
        for place, mask in enumerate(full.cpu().numpy(), start):
            masks.append(Mask.encode(mask if windows is None else _inside(mask, windows[place])))
    return masks


def _inside(
    mask: np.ndarray[Any, np.dtype[np.bool_]], window: tuple[slice, slice]
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Keep a mask's pixels within ``window`` and clear the others."""
    kept = np.zeros_like(mask)
    kept[window] = mask[window]
    return kept
