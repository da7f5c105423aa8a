"""One image of the gallery: a thumbnail as a data URI, and its annotations as SVG in the image's own px."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from autolabel.errors import AutolabelError
from autolabel.export.contours import mask_rings, simplify, svg_path
from autolabel.report.sample import Shown
from autolabel.report.statistics import disagrees
from autolabel.types import RGB, Annotation, Image, Mask

if TYPE_CHECKING:
    from autolabel.dataset import Run

# A gallery of a few images may be sharp; one of two hundred has to open quickly.
_SIDES = ((40, 1000), (100, 800))
_SMALLEST_SIDE = 640
_QUALITY = 76


@dataclass(frozen=True, slots=True)
class Shape:
    """One annotation as drawn: place in percent of the image for HTML, px for SVG, and both opinions."""

    label_id: int
    label: str
    score: float
    mask_score: float | None
    x: float
    y: float
    width: float
    height: float
    left: float
    top: float
    bottom: float
    path: str
    differs: bool
    human: bool
    phrase_scores: tuple[float, ...]
    class_probs: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Card:
    """One image as shown; ``source`` is a data URI, or empty with ``problem`` saying why there is no picture."""

    path: str
    width: int
    height: int
    source: str
    problem: str
    reason: str | None
    shapes: tuple[Shape, ...]

    @property
    def folder(self) -> str:
        """Path up to and with the last slash."""
        return self.path[: self.path.rfind("/") + 1]

    @property
    def file(self) -> str:
        """Path after the last slash."""
        return self.path[self.path.rfind("/") + 1 :]

    @property
    def differing(self) -> int:
        """Number of annotations about which the two opinions differ."""
        return sum(shape.differs for shape in self.shapes)

    @property
    def lowest(self) -> float:
        """Lowest score, 1 for a clean image."""
        return min((shape.score for shape in self.shapes), default=1.0)


def thumbnail_side(image_count: int) -> int:
    """Longest side of a thumbnail in px; fewer pixels for many images, so that the file stays bounded."""
    return next((side for limit, side in _SIDES if image_count <= limit), _SMALLEST_SIDE)


def make_card(run: Run, shown: Shown, max_side: int) -> Card:
    """Draw one image; a file that is gone or has changed since costs its picture, not the report."""
    image = shown.item.image
    try:
        source, problem = data_uri(run.read_image(image), max_side), ""
    except (AutolabelError, OSError, KeyError) as error:
        source, problem = "", str(error) or type(error).__name__
    # Small shapes last: they lie on top, where a pointer can reach them.
    ordered = sorted(shown.item.annotations, key=lambda a: -a.box.area)
    shapes = tuple(_shape(a, image, max_side) for a in ordered)
    return Card(image.path, image.width, image.height, source, problem, shown.reason, shapes)


def data_uri(pixels: RGB, max_side: int) -> str:
    """Encode ``(H, W, 3)`` pixels as a WebP data URI of at most ``max_side`` px."""
    from PIL import Image as Pillow

    height, width = pixels.shape[:2]
    scale = min(1.0, max_side / max(height, width))
    if scale < 1:
        size_wh = (max(round(width * scale), 1), max(round(height * scale), 1))
        pixels = np.asarray(cv2.resize(pixels, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "WEBP", quality=_QUALITY, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _shape(annotation: Annotation, image: Image, max_side: int) -> Shape:
    box = annotation.box
    return Shape(
        label_id=annotation.label_id,
        label=annotation.label,
        score=annotation.score,
        mask_score=annotation.mask_score,
        x=round(box.x_min, 1),
        y=round(box.y_min, 1),
        width=round(box.width, 1),
        height=round(box.height, 1),
        left=round(100 * box.x_min / image.width, 2),
        top=round(100 * box.y_min / image.height, 2),
        bottom=round(100 * box.y_max / image.height, 2),
        path=outline(annotation.mask, max(image.width, image.height) / max_side) if annotation.mask else "",
        differs=disagrees(annotation),
        human=annotation.origin == "human",
        phrase_scores=annotation.phrase_scores,
        class_probs=annotation.class_probs,
    )


def outline(mask: Mask, px_per_dot: float) -> str:
    """Draw a mask as an SVG path at ``px_per_dot`` px of the image; specks smaller than a dot are left out."""
    dot = max(px_per_dot, 1.0)
    rings = [ring for ring in mask_rings(mask) if ring.area >= dot * dot]
    return svg_path([simplify(ring, 0.75 * dot, max_area_change=0.5) for ring in rings])
