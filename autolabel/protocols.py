"""What a backend must offer. A third party's detector needs one function and one entry point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from autolabel.types import RGB, Box, Classifications, Detections, Float, Mask, ModelInfo, Segments

Task = Literal["detector", "segmenter", "classifier"]
ENTRY_POINT_GROUPS: dict[Task, str] = {
    "detector": "autolabel.detectors",
    "segmenter": "autolabel.segmenters",
    "classifier": "autolabel.classifiers",
}


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where and how models run: torch device and dtype names, and whether files may be downloaded.

    ``cpu`` says how forward passes on a CPU are made: ``eager``, through ``openvino``, or ``auto`` by what is quicker.
    With ``exact`` the dtype was asked for, and no shorter one may take its place. ``compile`` says whether those on a
    CUDA device go through torch's compiler: ``on``, ``off``, or ``auto`` where that pays.
    """

    device: str = "cpu"
    dtype: str = "float32"
    offline: bool = False
    cpu: str = "auto"
    exact: bool = False
    compile: str = "auto"


@runtime_checkable
class Detector(Protocol):
    """Text-prompted detector."""

    info: ModelInfo

    def predict_batch(self, images: Sequence[RGB], phrases: Sequence[str], min_score: float) -> Sequence[Detections]:
        """Detect ``phrases`` in each image; boxes whose best phrase scores below ``min_score`` may be left out."""
        ...


@runtime_checkable
class Segmenter(Protocol):
    """Box-prompted segmenter."""

    info: ModelInfo

    def predict_batch(self, images: Sequence[RGB], boxes_xyxy: Sequence[Float]) -> Sequence[Segments]:
        """Segment each image's ``(N, 4)`` px boxes; an image without boxes costs nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a person pointed at in one image: points ``(x, y)`` px on it, points beside it, and a box around it."""

    positive: tuple[tuple[float, float], ...] = ()
    negative: tuple[tuple[float, float], ...] = ()
    box: Box | None = None


@runtime_checkable
class Promptable(Protocol):
    """What a segmenter may offer beside `Segmenter`: an image is encoded once, then each click is cheap.

    ``points`` says whether it was trained with points; one that was not is asked for boxes alone.
    """

    points: bool

    def embed(self, image: RGB) -> object:
        """Encode one image; what comes back is passed on to `segment_prompts` and may be kept for a while."""
        ...

    def segment_prompts(self, embedded: object, prompts: Sequence[Prompt]) -> Segments:
        """Return a mask and its predicted IoU for each prompt about one encoded image."""
        ...


@runtime_checkable
class Classifier(Protocol):
    """Region classifier over an open vocabulary."""

    info: ModelInfo

    def predict_batch(
        self,
        images: Sequence[RGB],
        boxes_xyxy: Sequence[Float],
        masks: Sequence[Sequence[Mask]] | None,
        classes: Sequence[Sequence[str]],
    ) -> Sequence[Classifications]:
        """Classify each region over ``classes``, each given by its phrases; ``masks`` may hide the background."""
        ...


Loader = Callable[["ModelRef", Runtime], object]
"""What an entry point names: it takes the reference and the runtime, and returns a loaded model."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A parsed model spec ``backend:reference@revision?option=value``."""

    backend: str
    reference: str
    revision: str | None = None
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        options = "?" + "&".join(f"{k}={v}" for k, v in self.options) if self.options else ""
        colon = ":" if self.reference else ""
        return f"{self.backend}{colon}{self.reference}{revision}{options}"
