"""The networks that can be converted: what goes in as arrays, how it is traced, and when two answers are the same."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autolabel.geometry import box_iou
from autolabel.models.phrases import Pass
from autolabel.protocols import Task

Arrays = Sequence[NDArray[Any]]
# Bounds of what counts as the same: below what changes a label, above float rounding; px are the network's input's.
_SCORE, _BOX_PX, _SHARE, _COSINE = 5e-4, 0.5, 1e-3, 1e-5
_LOWEST_SCORE = 0.05
"""Boxes below are never stored, and queries that see nothing may change places."""
# Bounds of a shorter number format, which moves every number a little: labels, boxes and masks stay what they are.
_SAME_SCORE, _SAME_BOX_IOU, _SAME_MASK_IOU, _SAME_PROBABILITY = 0.01, 0.95, 0.98, 0.01


class Graph(Protocol):
    """A network, and how to bring its arguments into a converted graph and its answers out of it."""

    name: str
    eager: Callable[..., Any]

    def install(self, quick: Callable[..., Any]) -> None:
        """Put ``quick`` in the place of the eager network."""
        ...

    def network(self) -> nn.Module:
        """Return the module that is traced; its arguments are ``inputs``."""
        ...

    def parts(self) -> Sequence[nn.Module]:
        """Return the modules in which the time goes, for torch's compiler; alike ones share what is compiled."""
        ...

    def moving(self) -> bool:
        """Tell whether the first axis of every input may have any length."""
        ...

    def inputs(self, *args: Any, **kwargs: Any) -> Arrays | None:
        """Return the call's arguments as arrays, or None for a call that only the eager network answers."""
        ...

    def key(self, inputs: Arrays) -> tuple[object, ...]:
        """Say which inputs share a graph."""
        ...

    def outputs(self, arrays: Arrays) -> Any:
        """Return the graph's answers as the eager network gives them."""
        ...

    def differs(self, expected: Any, got: Any, inputs: Arrays) -> str | None:
        """Say where two answers are not the same, or None."""
        ...

    def labels_differ(self, expected: Any, got: Any) -> str | None:
        """Say what would be labeled otherwise by answers of a shorter number format, or None."""
        ...


def graph_of(task: Task, model: Any) -> Graph | None:
    """Return a loaded model's graph; None for a backend whose network is not known here."""
    if task == "detector" and type(getattr(model, "forward", None)).__module__.endswith(".grounding_dino"):
        return DetectorGraph(model)
    if task == "segmenter" and type(model).__name__ == "Sam2Segmenter":
        return EncoderGraph(model)
    if task == "classifier" and type(model).__name__ == "ClipClassifier":
        return CropGraph(model)
    return None


class DetectorGraph:
    """Grounding DINO without its text encoder, for one size of image and one number of tokens.

    Captions are not padded to share a graph: OpenVINO 2026.4 gets the mask of padded tokens wrong in the decoder (the
    repeated mask comes out in another order), by 0.01 to 0.06 of a score.
    """

    name = "detector"

    def __init__(self, detector: Any) -> None:
        self._detector = detector
        self.eager = detector.forward

    def install(self, quick: Callable[..., Any]) -> None:
        """Put ``quick`` in the place of the eager network."""
        self._detector.forward = quick

    def network(self) -> nn.Module:
        """Return the module that is traced."""
        return _Vision(self.eager.model)

    def parts(self) -> Sequence[nn.Module]:
        """Return backbone and layers: between them the package looks at sizes and masks, which breaks a graph."""
        model = self.eager.model.model
        return [model.backbone, *model.encoder.layers, *model.decoder.layers]

    def moving(self) -> bool:
        """Tell whether the first axis may vary: no, the feature maps' sizes become part of the graph."""
        return False

    def inputs(self, pixels: torch.Tensor, mask: torch.Tensor, each: Pass) -> Arrays | None:
        """Pixels, and of the caption its features, masks and positions; an image with padding stays eager."""
        if not bool(mask.all()):
            return None
        model = self.eager.model
        ids = torch.tensor([each.token_ids])
        modelling = sys.modules[type(model).__module__]
        pairs, positions = modelling.generate_masks_with_special_tokens_and_transfer_map(
            ids, model.model.special_tokens
        )
        with self.eager.text.reading(each.token_ids):
            text = model.model.text_backbone.forward(
                ids, pairs[:, None], torch.zeros_like(ids), positions, return_dict=True
            )["last_hidden_state"]
        count = len(pixels)
        caption = (
            part.expand(count, *part.shape[1:]).contiguous().numpy() for part in (text.float(), pairs, positions)
        )
        return [pixels.numpy(), *caption]

    def key(self, inputs: Arrays) -> tuple[object, ...]:
        """Every shape has a graph of its own."""
        return tuple(part.shape for part in inputs)

    def outputs(self, arrays: Arrays) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and relative boxes."""
        return torch.from_numpy(arrays[0]), torch.from_numpy(arrays[1])

    def differs(self, expected: Any, got: Any, inputs: Arrays) -> str | None:
        """Find each box that is worth storing in the other answer, wherever it stands there."""
        sides = np.array([*inputs[0].shape[:1:-1], *inputs[0].shape[:1:-1]], np.float32)
        one, other = (_scored(answer, sides) for answer in (expected, got))
        for mine, theirs in [*zip(other, one, strict=True), *zip(one, other, strict=True)]:
            problem = _missing(mine, theirs)
            if problem is not None:
                return problem
        return None

    def labels_differ(self, expected: Any, got: Any) -> str | None:
        """Find each box that is worth storing in the other answer, in nearly its place with nearly its scores."""
        one, other = (_scored(answer, np.ones(4, np.float32)) for answer in (expected, got))
        for mine, theirs in [*zip(other, one, strict=True), *zip(one, other, strict=True)]:
            problem = _relabeled(mine, theirs)
            if problem is not None:
                return problem
        return None


def _relabeled(
    mine: tuple[NDArray[np.float32], NDArray[np.float32]], theirs: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> str | None:
    """Say which box of ``mine`` that is worth storing has no partner of its place and scores; None: all have one."""
    (scores, boxes), (other_scores, other_boxes) = mine, theirs
    if not np.isfinite(scores).all() or not np.isfinite(boxes).all():
        return "scores or boxes that are not numbers"
    corners, others = (
        np.concatenate([b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2], 1) for b in (boxes, other_boxes)
    )
    for query in np.flatnonzero(scores.max(axis=1) >= _LOWEST_SCORE):
        overlap = box_iou(corners[query : query + 1], others)[0]
        score = np.abs(other_scores - scores[query]).max(axis=1)
        if not ((overlap >= _SAME_BOX_IOU) & (score <= _SAME_SCORE)).any():
            best = int(np.argmax(overlap))
            return f"a box to an IoU of {overlap[best]:.2f} and by {score[best]:.2g} of its score"
    return None


def _scored(answer: Any, sides: NDArray[np.float32]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """For each image scores ``(Q, T)`` in [0, 1] and boxes ``(Q, 4)`` in px of the network's input."""
    logits, boxes = answer
    scores, places = logits.float().sigmoid().cpu().numpy(), boxes.float().cpu().numpy()
    return list(zip(scores, places * sides, strict=True))


def _missing(
    mine: tuple[NDArray[np.float32], NDArray[np.float32]], theirs: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> str | None:
    """Say how far a box of ``mine`` that is worth storing is from the nearest of ``theirs``; None: all are there."""
    scores, boxes = mine
    if not np.isfinite(scores).all() or not np.isfinite(boxes).all():
        return "scores or boxes that are not numbers"
    for query in np.flatnonzero(scores.max(axis=1) >= _LOWEST_SCORE):
        score = np.abs(theirs[0] - scores[query]).max(axis=1)
        px = np.abs(theirs[1] - boxes[query]).max(axis=1)
        off = np.maximum(score / _SCORE, px / _BOX_PX)
        best = int(np.argmin(off))
        if not off[best] <= 1:
            return f"a box by {px[best]:.2g} px and by {score[best]:.2g} of its score"
    return None


class _Vision(nn.Module):
    """Grounding DINO with the caption's features given."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        pixels: torch.Tensor,
        text: torch.Tensor,
        pairs: torch.Tensor,
        positions: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.ones_like(positions)
        with _given(self.model, text, pairs, positions):
            outputs = self.model(
                pixel_values=pixels,
                pixel_mask=torch.ones_like(pixels[:, 0], dtype=torch.long),
                input_ids=tokens,
                attention_mask=tokens,
                token_type_ids=torch.zeros_like(tokens),
            )
        return outputs.logits, outputs.pred_boxes


@contextmanager
def _given(model: Any, text: torch.Tensor, pairs: torch.Tensor, positions: torch.Tensor) -> Iterator[None]:
    """Let the model take masks and text features as given, and write ``logit`` as what OpenVINO knows.

    It changes what every thread sees, so a conversion has a process of its own.
    """
    modelling: Any = sys.modules[type(model).__module__]
    masks, logit = modelling.generate_masks_with_special_tokens_and_transfer_map, torch.special.logit
    encoder = model.model.text_backbone
    own = encoder.__dict__.get("forward")
    modelling.generate_masks_with_special_tokens_and_transfer_map = lambda *_, **__: (pairs, positions)
    torch.special.logit = _logit
    encoder.forward = lambda *_, **__: SimpleNamespace(last_hidden_state=text)
    try:
        yield
    finally:
        modelling.generate_masks_with_special_tokens_and_transfer_map = masks
        torch.special.logit = logit
        if own is None:
            del encoder.forward
        else:
            encoder.forward = own


def _logit(value: torch.Tensor, eps: float) -> torch.Tensor:
    inside = value.clamp(eps, 1 - eps)
    return torch.log(inside / (1 - inside))


class EncoderGraph:
    """SAM 2's image encoder: a square of pixels to feature levels, the batch as it is."""

    name = "segmenter"

    def __init__(self, segmenter: Any) -> None:
        self._segmenter = segmenter
        self.eager = segmenter.encoder

    def install(self, quick: Callable[..., Any]) -> None:
        """Put ``quick`` in the place of the eager network."""
        self._segmenter.encoder = quick

    def network(self) -> nn.Module:
        """Return the module that is traced."""
        return _Called(self.eager, self._segmenter._model)

    def parts(self) -> Sequence[nn.Module]:
        """Return trunk and neck."""
        return [self._segmenter._model.image_encoder]

    def moving(self) -> bool:
        """Tell whether the first axis may vary: on a CPU images are encoded one by one."""
        return False

    def inputs(self, pixels: torch.Tensor) -> Arrays | None:
        """Pixels only."""
        return [pixels.numpy()]

    def key(self, inputs: Arrays) -> tuple[object, ...]:
        """Every batch size has a graph of its own."""
        return tuple(inputs[0].shape)

    def outputs(self, arrays: Arrays) -> list[torch.Tensor]:
        """Feature levels, finest first."""
        return [torch.from_numpy(array) for array in arrays]

    def differs(self, expected: Any, got: Any, inputs: Arrays) -> str | None:
        """Compare level by level, relative to the largest feature."""
        for level, (one, other) in enumerate(zip(expected, got, strict=True)):
            share = float((one - other).abs().max() / one.abs().max().clamp(min=1e-6))
            if not share <= _SHARE:
                return f"features of level {level} by {share:.2g} of the largest"
        return None

    def labels_differ(self, expected: Any, got: Any) -> str | None:
        """Compare the masks that follow for boxes all over the image."""
        one, other = (self._segmenter.sketch([level.float() for level in levels]) for levels in (expected, got))
        both, either = ((one & other).sum(dim=(-2, -1)), (one | other).sum(dim=(-2, -1)))
        lowest = float((both / either.clamp(min=1))[either > 0].min()) if bool((either > 0).any()) else 1.0
        return None if lowest >= _SAME_MASK_IOU else f"a mask to an IoU of {lowest:.3f}"


class CropGraph:
    """The image encoder of a CLIP: any number of crops to a vector each."""

    name = "classifier"

    def __init__(self, classifier: Any) -> None:
        self._classifier = classifier
        self.eager = classifier.encoder

    def install(self, quick: Callable[..., Any]) -> None:
        """Put ``quick`` in the place of the eager network."""
        self._classifier.encoder = quick

    def network(self) -> nn.Module:
        """Return the module that is traced."""
        return _Called(self.eager, self._classifier._model)

    def parts(self) -> Sequence[nn.Module]:
        """Return the image tower."""
        return [self._classifier._model.visual]

    def moving(self) -> bool:
        """Tell whether the first axis may vary: images have different numbers of boxes."""
        return True

    def inputs(self, pixels: torch.Tensor) -> Arrays | None:
        """Pixels of the crops."""
        return [pixels.numpy()]

    def key(self, inputs: Arrays) -> tuple[object, ...]:
        """One graph for any number of crops."""
        return tuple(inputs[0].shape[1:])

    def outputs(self, arrays: Arrays) -> torch.Tensor:
        """``(B, D)`` vectors."""
        return torch.from_numpy(arrays[0])

    def differs(self, expected: Any, got: Any, inputs: Arrays) -> str | None:
        """Compare directions, which are all that is used."""
        cosine = nn.functional.cosine_similarity(expected.double(), got.double(), dim=-1)
        worst = float((1 - cosine).max())
        return None if worst <= _COSINE else f"an embedding by {worst:.2g} (1 - cosine)"

    def labels_differ(self, expected: Any, got: Any) -> str | None:
        """Compare probabilities of the classes that were asked for last."""
        one, other = (self._classifier.opinions(embeddings.float().cpu()) for embeddings in (expected, got))
        worst = float((one - other).abs().max()) if one.numel() else 0.0
        return None if worst <= _SAME_PROBABILITY else f"a probability by {worst:.2g}"


class _Called(nn.Module):
    """A function of a model as a module, so that its weights are found."""

    def __init__(self, function: Callable[..., Any], model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._function = function

    def forward(self, pixels: torch.Tensor) -> Any:
        answer = self._function(pixels)
        return tuple(answer) if isinstance(answer, list) else answer
