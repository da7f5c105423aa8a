"""Domain types: small, frozen, and in pixels. Nothing here imports a model or touches a disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

RGB = NDArray[np.uint8]
"""An upright image: ``(H, W, 3)`` uint8, red first, after EXIF rotation."""

Float = NDArray[np.float32]
Origin = Literal["model", "human"]
Action = Literal["accepted", "edited", "deleted", "added"]
ReviewState = Literal["complete", "skipped"]


@dataclass(frozen=True, slots=True)
class Image:
    """One input image; ``width`` and ``height`` are px after EXIF rotation, ``id`` the sha256 of its bytes."""

    id: str
    path: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Box:
    """Axis-aligned box in float px: origin top-left, half-open, inside the image."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float

    @property
    def width(self) -> float:
        """Width in px."""
        return self.x_max - self.x_min

    @property
    def height(self) -> float:
        """Height in px."""
        return self.y_max - self.y_min

    @property
    def area(self) -> float:
        """Area in px²."""
        return self.width * self.height

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        """``(x_min, y_min, x_max, y_max)`` in px."""
        return (self.x_min, self.y_min, self.x_max, self.y_max)


@dataclass(frozen=True, slots=True)
class Mask:
    """Binary mask of a whole image as COCO run-length encoding (column-major, compressed ``counts``)."""

    height: int
    width: int
    counts: bytes

    @classmethod
    def encode(cls, mask: NDArray[np.bool_]) -> Mask:
        """Encode a boolean ``(H, W)`` array (pycocotools RLE)."""
        from pycocotools import mask as coco_mask

        rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        return cls(int(mask.shape[0]), int(mask.shape[1]), bytes(rle["counts"]))

    def decode(self) -> NDArray[np.bool_]:
        """Return the boolean ``(H, W)`` array."""
        from pycocotools import mask as coco_mask

        return np.asarray(coco_mask.decode(self.to_coco()), dtype=np.bool_)

    @property
    def area(self) -> int:
        """Number of pixels set."""
        from pycocotools import mask as coco_mask

        return int(coco_mask.area(self.to_coco()))

    def to_coco(self) -> dict[str, object]:
        """Return the pycocotools dictionary ``{"size": [H, W], "counts": bytes}``."""
        return {"size": [self.height, self.width], "counts": self.counts}


@dataclass(frozen=True, slots=True)
class Annotation:
    """One labelled region of one image.

    ``phrase_scores`` is the detector's opinion, ``class_probs`` the classifier's (sums to 1); both are ``(K,)``
    over the ontology's classes followed by its negatives. ``score`` is the detector's and ``mask_score`` the
    segmenter's predicted IoU, both in [0, 1]. ``detector_box`` is the detector's own box where ``box`` is the mask's.
    """

    id: str
    image_id: str
    box: Box
    label_id: int
    label: str
    score: float
    phrase_scores: tuple[float, ...]
    class_probs: tuple[float, ...] | None = None
    mask: Mask | None = None
    mask_score: float | None = None
    origin: Origin = "model"
    detector_box: Box | None = None

    @property
    def confidence(self) -> float:
        """How far both models stand behind it, in [0, 1]: ``score`` times the classifier's probability of the label.

        What annotations are ranked by. It is ``score`` alone where no classifier was asked, and for what a person made.
        """
        if self.class_probs is None or self.origin == "human" or self.label_id >= len(self.class_probs):
            return self.score
        return self.score * self.class_probs[self.label_id]

    @property
    def proposed_box(self) -> Box:
        """The detector's own box, whatever ``box`` shows; where a person drew one, that."""
        return self.detector_box or self.box


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image with its annotations, in a stable order."""

    image: Image
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """A doubt about a label, or about a whole image where ``annotation_id`` is None and there is no ``box``.

    ``quality`` is in [0, 1], 0 worst (cleanlab's direction); ``flagged`` says that a person should look. ``box`` is
    where something was overlooked, or a better place for what is there. ``related`` names the other annotations or
    images of a conflict or a duplicate.
    """

    kind: str
    path: str
    image_id: str
    quality: float
    flagged: bool
    reason: str
    annotation_id: str | None = None
    suggested_label: str | None = None
    box: Box | None = None
    related: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Correction:
    """What a person decided about one region.

    ``label``, ``box`` and ``mask`` are as the person left them (None for what was deleted), ``before_*`` as the model
    had made them (None for what was added). ``iou`` compares the two, by masks where both have one. ``annotation_id``
    of an added region is made from the tool's own id. ``at`` is UTC, ISO 8601; ``seconds`` the time spent on the whole
    image, where the tool tells. ``effective`` is False for a version that another person's replaces.
    """

    action: Action
    path: str
    image_id: str
    annotation_id: str
    label: str | None = None
    box: Box | None = None
    mask: Mask | None = None
    before_label: str | None = None
    before_box: Box | None = None
    before_mask: Mask | None = None
    before_score: float | None = None
    iou: float | None = None
    by: str | None = None
    at: str = ""
    source: str = ""
    seconds: float | None = None
    effective: bool = True


@dataclass(frozen=True, slots=True)
class Review:
    """A person's verdict on a whole image: ``complete`` (every region is as it should be) or ``skipped``."""

    state: ReviewState
    path: str
    image_id: str
    by: str | None = None
    at: str = ""
    source: str = ""
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """One row of the failure ledger: which image, at which stage, what went wrong."""

    path: str
    stage: str
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Detections:
    """What a detector says about one image.

    ``boxes_xyxy`` is ``(N, 4)`` float px; ``phrase_scores`` is ``(N, P)`` in [0, 1], one column for each phrase that
    was asked for. A model that segments in the same pass may bring ``masks``, one for each box.
    """

    boxes_xyxy: Float
    phrase_scores: Float
    masks: tuple[Mask, ...] | None = None

    @classmethod
    def empty(cls, phrase_count: int) -> Detections:
        """No boxes, scored against ``phrase_count`` phrases."""
        return cls(np.zeros((0, 4), np.float32), np.zeros((0, phrase_count), np.float32))


@dataclass(frozen=True, slots=True)
class Segments:
    """What a segmenter says about one image: a mask and its predicted IoU ``(N,)`` for each box it was given."""

    masks: tuple[Mask, ...]
    scores: Float


@dataclass(frozen=True, slots=True)
class Classifications:
    """What a classifier says about one image's regions.

    ``probs`` is ``(N, K)``, each row summing to 1 over the classes that were asked for; ``embeddings`` is ``(N, D)``,
    L2-normalised.
    """

    probs: Float
    embeddings: Float


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is recorded about a loaded model: its spec as resolved, weights hash, licence, device and dtype.

    ``forward`` says how its network runs: ``eager``, or through what, and how many times as fast.
    """

    spec: str
    weights_sha256: str | None = None
    licence: str | None = None
    device: str = "cpu"
    dtype: str = "float32"
    forward: str = "eager"
