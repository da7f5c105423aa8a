"""What a person pointed at with a smart tool, and the mask for it as Label Studio's result."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autolabel.connect import Shape
from autolabel.errors import UsageError
from autolabel.interactive import Pointed
from autolabel.protocols import Prompt
from autolabel.types import Annotation, Box, Image
from autolabel_connectors.label_studio.convert import from_region, to_regions
from autolabel_connectors.label_studio.geometry import form_of
from autolabel_connectors.label_studio.label_config import Controls, check_label_config
from autolabel_connectors.shapes import ShapeOptions, draw

_ORDER: tuple[Shape, ...] = ("mask", "polygon", "box")


@dataclass(frozen=True, slots=True)
class Pointing:
    """A prompt in px, and the label that the person chose."""

    prompt: Prompt
    label: str


def read_context(items: Sequence[Any], image: Image) -> Pointing:
    """Read the ``result`` of a request's context: keypoints, with ``is_positive``, and what was drawn around an object.

    A rectangle, ellipse, polygon or stroke stands for its box. The label is that of the item drawn last. Raises
    UsageError where there is nothing to go by.
    """
    positive: list[tuple[float, float]] = []
    negative: list[tuple[float, float]] = []
    box: Box | None = None
    label = ""
    for item in items:
        value = item.get("value") if isinstance(item, Mapping) else None
        if not isinstance(value, Mapping):
            continue
        label = _label(value) or label
        if form_of(item) == "keypoint":
            point = _point(value, image)
            (positive if item.get("is_positive", True) not in (False, 0) else negative).append(point)
        else:
            region = from_region(item, image)
            if region.problem is not None:
                raise UsageError(f"the smart tool: {region.problem}")
            box = region.box
    if box is None and not positive:
        raise UsageError(
            "the smart tool sent no point on an object and no rectangle; use smart KeyPointLabels or RectangleLabels"
        )
    if not label:
        raise UsageError("the smart tool sent no label; choose a label before pointing")
    return Pointing(Prompt(tuple(positive), tuple(negative), box), label)


def controls_for(label_config: str, label: str) -> Controls:
    """Find what can draw a person's label; raises UsageError where nothing can."""
    controls, _ = check_label_config(label_config, (label,), "mask")
    if all(controls.find(kind, label) is None for kind in ("mask", "polygon", "box")):
        raise UsageError(
            f"the label config has no <BrushLabels>, <PolygonLabels> or <RectangleLabels> with {label!r}; add one"
        )
    return controls


def to_result(
    found: Pointed, label: str, image: Image, controls: Controls, limits: ShapeOptions
) -> list[dict[str, Any]]:
    """Write what was found: a brush mask, or polygons or a box where the label config has no brush for the label."""
    annotation = Annotation(
        id=str(uuid.uuid4()),
        image_id=image.id,
        box=found.box,
        label_id=0,
        label=label,
        score=found.score,
        phrase_scores=(found.score,),
        mask=found.mask,
        mask_score=None if found.mask is None else found.score,
    )
    for shape in _ORDER:
        drawing = draw(annotation, shape, limits)
        if controls.find(drawing.kind, label) is not None:
            items = to_regions(annotation, image, drawing, controls)
            # A person made it: it is no annotation of a run, and must not be taken for one.
            return [{name: value for name, value in item.items() if name != "meta"} for item in items]
    raise UsageError(f"{label!r} cannot be drawn in this project; add <BrushLabels> with it to the label config")


def _point(value: Mapping[str, Any], image: Image) -> tuple[float, float]:
    """Read a click in px, on the image."""
    try:
        x, y = float(value["x"]) * image.width / 100, float(value["y"]) * image.height / 100
    except (KeyError, TypeError, ValueError):
        raise UsageError("the smart tool's point has no numbers x and y; click again") from None
    if not (math.isfinite(x) and math.isfinite(y)):
        raise UsageError("the smart tool's point has no numbers x and y; click again")
    return min(max(x, 0.0), float(image.width)), min(max(y, 0.0), float(image.height))


def _label(value: Mapping[str, Any]) -> str:
    for name, labels in value.items():
        if name.endswith("labels") and isinstance(labels, list) and labels:
            return str(labels[0])
    return ""
