"""What a noise pass works on: labels to judge, and evidence about the same images, as flat arrays.

Rows are ordered by image. Classes are places in one list of names; -1 is a class outside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autolabel.quality.ragged import Flags, Ints, Reals, starts_of
from autolabel.types import Float, Mask


@dataclass(frozen=True, slots=True)
class Pictures:
    """Images of a pass: paths, content ids ("" where unknown) and sizes ``(I, 2)`` px, width first."""

    paths: tuple[str, ...]
    ids: tuple[str, ...]
    sizes_wh: Float

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True, slots=True)
class Labels:
    """N labels: image and class ``(N,)``, boxes ``(N, 4)`` px.

    ``human`` marks what a person decided, ``crowd`` a region that holds many of its class; neither is judged.
    ``shapes`` are COCO segmentations (run-length or polygons), None where there is only a box. ``settled_xyxy``
    ``(N, 4)`` px are the boxes that people see, where those are not what is compared with evidence: a run's evidence
    are detectors' boxes, so its labels are compared by theirs too, though their masks may have given them others.
    """

    image: Ints
    boxes_xyxy: Float
    label: Ints
    ids: Sequence[str]
    human: Flags
    crowd: Flags
    shapes: Sequence[Any] | None = None
    mask_scores: Reals | None = None
    settled_xyxy: Float | None = None

    def __len__(self) -> int:
        return len(self.image)

    @property
    def shown_xyxy(self) -> Float:
        """Boxes ``(N, 4)`` px as people see them."""
        return self.boxes_xyxy if self.settled_xyxy is None else self.settled_xyxy

    def starts(self, images: int) -> Ints:
        """Where each image's labels begin, ``(images + 1,)``."""
        return starts_of(self.image, images)

    def with_boxes(self, image: Ints, boxes_xyxy: Float, label: Ints, crowd: Flags | None = None) -> Labels:
        """Return bare labels with other contents, for arithmetic."""
        none = np.zeros(len(image), np.bool_)
        return Labels(image, boxes_xyxy, label, (), none, none if crowd is None else crowd)


@dataclass(frozen=True, slots=True)
class Evidence:
    """M boxes that something other than the labels' maker saw: image, likeliest class and its score ``(M,)``.

    ``opinions`` are named class distributions ``(M, K)`` (not normalised), ``embeddings`` ``(M, D)``. ``source``
    ``(M,)`` numbers the places it came from, named in ``names``: their scores are on scales of their own.
    """

    image: Ints
    boxes_xyxy: Float
    label: Ints
    score: Reals
    source: Ints
    names: tuple[str, ...]
    opinions: tuple[tuple[str, Reals], ...] = ()
    embeddings: Reals | None = None
    mask_score: Reals | None = None
    masks: Sequence[Mask | None] | None = None

    def __len__(self) -> int:
        return len(self.image)

    def starts(self, images: int) -> Ints:
        """Where each image's evidence begins, ``(images + 1,)``."""
        return starts_of(self.image, images)

    @classmethod
    def empty(cls) -> Evidence:
        """No evidence."""
        ints = np.zeros(0, np.int64)
        return cls(ints, np.zeros((0, 4), np.float32), ints, np.zeros(0, np.float32), ints, ())

    def take(self, rows: Ints | Flags) -> Evidence:
        """Return chosen rows."""
        return replace(
            self,
            image=self.image[rows],
            boxes_xyxy=self.boxes_xyxy[rows],
            label=self.label[rows],
            score=self.score[rows],
            source=self.source[rows],
            opinions=tuple((name, values[rows]) for name, values in self.opinions),
            embeddings=None if self.embeddings is None else self.embeddings[rows],
            mask_score=None if self.mask_score is None else self.mask_score[rows],
            masks=None if self.masks is None else [self.masks[row] for row in np.arange(len(self))[rows]],
        )


def joined(parts: Sequence[Evidence], classes: int) -> Evidence:
    """Join evidence of several sources over one list of classes.

    A source without class distributions gets its own class's score and an even rest; one without embeddings zeros.
    """
    parts = [part for part in parts if len(part)]
    if len(parts) < 2:
        return parts[0] if parts else Evidence.empty()
    order = np.argsort(np.concatenate([part.image for part in parts]), kind="stable")
    offsets = np.cumsum([0] + [len(part.names) for part in parts[:-1]])
    names = [name for name, _ in max((part.opinions for part in parts), key=len)]
    depth = max((part.embeddings.shape[1] for part in parts if part.embeddings is not None), default=0)

    def stacked(values: Sequence[Any]) -> Any:
        return np.concatenate(values)[order]

    masks = None
    if any(part.masks is not None for part in parts):
        flat = [mask for part in parts for mask in (part.masks or [None] * len(part))]
        masks = [flat[row] for row in order]
    return Evidence(
        image=stacked([part.image for part in parts]),
        boxes_xyxy=stacked([part.boxes_xyxy for part in parts]),
        label=stacked([part.label for part in parts]),
        score=stacked([part.score for part in parts]),
        source=stacked([part.source + offset for part, offset in zip(parts, offsets, strict=True)]),
        names=tuple(name for part in parts for name in part.names),
        opinions=tuple(
            (name, stacked([_opinion(part, number, classes) for part in parts])) for number, name in enumerate(names)
        ),
        embeddings=stacked([_embedding(part, depth) for part in parts]) if depth else None,
        mask_score=stacked([_mask_score(part) for part in parts]),
        masks=masks,
    )


def _opinion(part: Evidence, number: int, classes: int) -> Reals:
    if number < len(part.opinions):
        return part.opinions[number][1]
    own = np.clip(part.score, 0.05, 0.95)
    values = np.repeat(((1 - own) / max(classes - 1, 1))[:, None], classes, axis=1)
    known = part.label >= 0
    values[known, part.label[known]] = own[known]
    return values.astype(np.float16)


def _embedding(part: Evidence, depth: int) -> Reals:
    return part.embeddings if part.embeddings is not None else np.zeros((len(part), depth), np.float16)


def _mask_score(part: Evidence) -> Reals:
    return part.mask_score if part.mask_score is not None else np.full(len(part), np.nan, np.float32)
