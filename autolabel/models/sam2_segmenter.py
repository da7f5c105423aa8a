"""SAM 2 for labeling: each image is encoded once, and the boxes of several are decoded together.

The package's own predictor decodes image by image and has a 1024-px model's feature sizes written in; here any
``image_size`` works. Masks are encoded by other threads while the next boxes are decoded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from autolabel.models.batching import CPU_PIXELS, Batches
from autolabel.models.masks import Window, encode_masks
from autolabel.models.runtime import forward_pass, helpers, on_gpu, to_device
from autolabel.protocols import Prompt, Runtime
from autolabel.types import RGB, Float, Mask, ModelInfo, Segments

Ints = NDArray[np.int64]

_MOST_IMAGES, _MOST_BOXES = 32, 256
_CPU_BOXES = 4
_WAITING = 8
"""Decoded chunks whose masks may wait to be encoded, so that their memory stays bounded."""
# What SAM calls its points: beside the object, on it, and the corners of a box.
_NEGATIVE, _POSITIVE, _CORNERS = 0, 1, (2, 3)


@dataclass(frozen=True, slots=True)
class Sam2Options:
    """``batch`` images encoded at once, ``boxes`` decoded at once, ``multimask``: best of three masks for a box.

    Without a number as many images or boxes are taken as fit on a GPU, and as are quickest on a CPU.
    With a ``margin`` a mask ends where its box does, grown by that share of the longer side; official models have none.
    ``points`` says that the model was trained with points too, as official ones are. ``window`` is the least side px
    of what it is shown of a large image (None: its input), ``zoom`` that side in longer sides of a box (None: twice).
    """

    batch: int | None
    boxes: int | None
    multimask: bool
    margin: float | None = None
    points: bool = True
    window: int | None = None
    zoom: float | None = None


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
        self._images = Batches(self._runtime, options.batch, cpu=4, cpu_units=CPU_PIXELS, most=_MOST_IMAGES)
        self._boxes = Batches(self._runtime, options.boxes, cpu=_CPU_BOXES, first=8, most=_MOST_BOXES)
        self.encoder: Callable[[torch.Tensor], Sequence[torch.Tensor]] = lambda px: model.forward_image(px)[
            "backbone_fpn"
        ]
        """The image encoder: ``(B, 3, S, S)`` to feature levels; whatever gives the same faster may take its place."""
        self.decoder: Any = model.sam_mask_decoder
        """The mask decoder, called with the arguments of the package's; may be replaced likewise."""
        self._position: torch.Tensor | None = None
        self._mean = torch.tensor([0.485, 0.456, 0.406], device=info.device)[:, None, None]
        self._std = torch.tensor([0.229, 0.224, 0.225], device=info.device)[:, None, None]

    @property
    def input_px(self) -> int:
        """Side px of the square that the network is shown."""
        return int(self._model.image_size)

    @property
    def window_px(self) -> int:
        """Least side px of a window in a large image."""
        return self._options.window or self.input_px

    @property
    def window_zoom(self) -> float | None:
        """Side of a window in longer sides of its box; None: as usual."""
        return self._options.zoom

    def predict_batch(self, images: Sequence[RGB], boxes_xyxy: Sequence[Float]) -> list[Segments]:
        """Return one mask and its predicted IoU for each ``(N, 4)`` px box; an image without boxes is not encoded."""
        masks, scores = list[Mask](), list[Float]()
        waiting: deque[Future[tuple[list[Mask], Float]]] = deque()

        def collect(left: int) -> None:
            while len(waiting) > left:
                done, quality = waiting.popleft().result()
                masks.extend(done)
                scores.append(quality)

        busy = [place for place, boxes in enumerate(boxes_xyxy) if len(boxes)]
        encode = partial(self._embed_places, images)
        for part, embedded in self._images.run(busy, encode, self.input_px**2):
            asked = _Asked.of([boxes_xyxy[place] for place in busy[part]], [images[p].shape[:2] for p in busy[part]])
            decode = partial(self._decode_rows, embedded, asked)
            for rows in asked.groups(together=on_gpu(self._runtime)):
                for some, (logits, quality) in self._boxes.run(rows, decode):
                    waiting.append(helpers().submit(self._finish, logits, quality, asked, rows[some]))
                    collect(_WAITING)
        collect(0)
        every = np.concatenate([np.zeros(0, np.float32), *scores])
        ends = np.cumsum([len(boxes) for boxes in boxes_xyxy])
        return [
            Segments(tuple(masks[end - len(boxes) : end]), every[end - len(boxes) : end])
            for boxes, end in zip(boxes_xyxy, ends.tolist(), strict=True)
        ]

    @property
    def points(self) -> bool:
        """Whether the model was trained with points."""
        return self._options.points

    def embed(self, image: RGB) -> _Seen:
        """Encode one image, for any number of prompts."""
        height, width = image.shape[:2]
        return _Seen(self._embed([image]), (height, width))

    def segment_prompts(self, embedded: _Seen, prompts: Sequence[Prompt]) -> Segments:
        """Return one mask and its predicted IoU for each prompt; a lone click gets the best of three masks."""
        masks, scores = list[Mask](), list[float]()
        for prompt in prompts:
            points, kinds = _points_of(prompt)
            alone = prompt.box is None and len(points) == 1
            scaled = self._scaled(points, embedded.size_hw)[None]
            owner, multimask = np.zeros(1, np.int64), alone or self._options.multimask
            logits, quality = self._decode(embedded.features, owner, scaled, multimask, kinds)
            box = None if prompt.box is None else np.array([prompt.box.xyxy], np.float32)
            windows = None if box is None else self._windows(box, embedded.size_hw)
            masks += encode_masks(logits, embedded.size_hw, windows)
            scores.append(float(quality[0]))
        return Segments(tuple(masks), np.array(scores, np.float32))

    def _scaled(self, points_xy: Float, size_hw: tuple[int, ...]) -> Float:
        """``(N, 2)`` px of an image in px of the model's square input."""
        scale = np.array([size_hw[1], size_hw[0]], np.float32)
        scaled: Float = (points_xy.astype(np.float32) / scale * self._model.image_size).astype(np.float32)
        return scaled

    def _windows(self, boxes_xyxy: Float, size_hw: tuple[int, ...]) -> list[Window] | None:
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
        chw = to_device(torch.from_numpy(np.array(image)), self._runtime).permute(2, 0, 1)
        size = self._model.image_size
        # Channel by channel: in float a photo of 48 megapixels takes 200 MB a channel, and several times that at once.
        planes = [
            F.interpolate((plane.float() / 255)[None, None], (size, size), mode="bilinear", antialias=True)[0, 0]
            for plane in chw
        ]
        return (torch.stack(planes) - self._mean) / self._std

    def _embed_places(self, images: Sequence[RGB], places: Sequence[int]) -> _Embedded:
        return self._embed([images[place] for place in places])

    def _embed(self, images: Sequence[RGB]) -> _Embedded:
        pixels = torch.stack([self.pixel_values(image) for image in images])
        with forward_pass(self._runtime):
            return self._embedded(self.encoder(pixels))

    def _embedded(self, levels: Sequence[torch.Tensor]) -> _Embedded:
        """Make of the encoder's answer what the decoder is given."""
        model = self._model
        *fine, coarse = levels[-model.num_feature_levels :]
        if model.directly_add_no_mem_embed:
            # The embedding that stands for "no memory of earlier frames", as the model was trained on images.
            coarse = coarse + model.no_mem_embed.reshape(1, -1, 1, 1)
        return _Embedded(coarse, tuple(fine))

    def sketch(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Masks ``(B, 9, S/4, S/4)`` of boxes all over each image, from the encoder's answer: two encoders compared."""
        side = self._model.image_size / 3
        corners = [[(x * side, y * side), ((x + 1) * side, (y + 1) * side)] for y in range(3) for x in range(3)]
        prompts = np.array(corners, np.float32)
        features = self._embedded(levels)
        images = [
            self._decode(features, np.full(len(prompts), row), prompts, self._options.multimask)[0] > 0
            for row in range(len(features.coarse))
        ]
        return torch.stack(images)

    def _decode_rows(
        self, embedded: _Embedded, asked: _Asked, rows: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode the boxes ``rows`` of a batch."""
        corners = [self._scaled(asked.boxes[row].reshape(2, 2), asked.sizes_hw[asked.owners[row]]) for row in rows]
        return self._decode(embedded, asked.owners[list(rows)], np.stack(corners), self._options.multimask)

    def _decode(
        self,
        embedded: _Embedded,
        owners: Ints,
        prompts: Float,
        multimask: bool,
        kinds: Sequence[int] = _CORNERS,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode prompts of several images at once: mask logits ``(n, S/4, S/4)`` and predicted IoU ``(n,)``.

        ``prompts`` is ``(n, P, 2)`` px of the square input, and ``kinds`` says what each of the P points is.
        """
        encoder = self._model.sam_prompt_encoder
        points = to_device(torch.from_numpy(prompts), self._runtime)
        labels = to_device(torch.tensor([kinds], dtype=torch.int), self._runtime).expand(len(points), -1)
        with forward_pass(self._runtime):
            if self._position is None:
                self._position = encoder.get_dense_pe()
            sparse, dense = encoder(points=(points, labels), boxes=None, masks=None)
            coarse, *fine = _per_prompt((embedded.coarse, *embedded.fine), owners, self._runtime)
            logits, quality, _, _ = self.decoder(
                image_embeddings=coarse,
                image_pe=self._position,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=multimask,
                repeat_image=False,
                high_res_features=fine or None,
            )
            best = quality.argmax(dim=1)
            rows = torch.arange(len(best), device=best.device)
            return logits[rows, best].float(), quality[rows, best].float().clamp(0, 1)

    def _finish(
        self, logits: torch.Tensor, quality: torch.Tensor, asked: _Asked, rows: Sequence[int]
    ) -> tuple[list[Mask], Float]:
        """Make masks of the decoded boxes ``rows``, each at the size of its image."""
        masks = list[Mask]()
        with torch.inference_mode():
            owners = asked.owners[list(rows)]
            for owner in np.unique(owners).tolist():
                mine = np.flatnonzero(owners == owner)
                part = slice(int(mine[0]), int(mine[-1]) + 1)
                windows = self._windows(asked.boxes[list(rows[part])], asked.sizes_hw[owner])
                masks += encode_masks(logits[part], asked.sizes_hw[owner], windows)
            scores: Float = quality.cpu().numpy()
        return masks, scores


@dataclass(frozen=True, slots=True)
class _Asked:
    """The boxes of some images: ``(n, 4)`` px, image by image, the image of each, and the images' sizes."""

    boxes: Float
    owners: Ints
    sizes_hw: Sequence[tuple[int, int]]

    @classmethod
    def of(cls, boxes_xyxy: Sequence[Float], shapes: Sequence[tuple[int, ...]]) -> _Asked:
        owners = np.repeat(np.arange(len(boxes_xyxy)), [len(boxes) for boxes in boxes_xyxy])
        return cls(np.concatenate(boxes_xyxy), owners, [(shape[0], shape[1]) for shape in shapes])

    def groups(self, *, together: bool) -> list[list[int]]:
        """Rows that may share a decode: all where batches pay, else each image's, whose features need no copies."""
        if together:
            return [list(range(len(self.owners)))]
        return [np.flatnonzero(self.owners == owner).tolist() for owner in range(len(self.sizes_hw))]


def _per_prompt(levels: Sequence[torch.Tensor], owners: Ints, runtime: Runtime) -> list[torch.Tensor]:
    """Features of the image of each prompt: a view where there is one image, else copies."""
    first = int(owners[0])
    if (owners == first).all():
        return [level[first : first + 1].expand(len(owners), -1, -1, -1) for level in levels]
    index = to_device(torch.from_numpy(owners), runtime)
    return [level[index] for level in levels]


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
