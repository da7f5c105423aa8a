"""A CVAT auto-annotation function: the detections of a recipe, for ``cvat-cli`` and for CVAT's agents.

    cvat-cli task auto-annotate 12 --function-module autolabel_connectors.cvat_function -p prompt=str:"scratch. dent."

The same recipe gives the same regions as ``autolabel run`` on the frames that CVAT hands out.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cvat_sdk.auto_annotation as cvataa
import numpy as np

from autolabel.config import Recipe, load_recipe
from autolabel.connect import Shape
from autolabel.dataset import Run
from autolabel.errors import AutolabelError, UsageError
from autolabel.images.pixels import to_rgb
from autolabel.interactive import Labeler, recipe_of
from autolabel.labeling import ReadImage
from autolabel.loading import models_for
from autolabel.shards import ImageRow
from autolabel.types import Annotation, Failure, Image, Mask
from autolabel_connectors.cvat.convert import to_shapes
from autolabel_connectors.cvat.labels import TYPES, Labels, LabelSpec
from autolabel_connectors.shapes import SHAPES, Drawing, ShapeOptions, draw

if TYPE_CHECKING:
    import PIL.Image

    from autolabel.manifest import RunManifest


def create(
    *,
    recipe: str | None = None,
    prompt: str | None = None,
    run: str | None = None,
    models: str | None = None,
    detector: str | None = None,
    segmenter: str | None = None,
    classifier: str | None = None,
    assign: str | None = None,
    min_score: float | None = None,
    min_prob: float | None = None,
    min_area: float | None = None,
    nms_iou: float | None = None,
    boxes: str | None = None,
    floor: float | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    offline: bool = False,
    shape: str = "auto",
    max_vertices: int = 100,
    min_iou: float = 0.95,
) -> DetectionFunction:
    """Make the function; the parameters are those of ``autolabel run`` and ``autolabel push``.

    ``run`` is a run folder whose recipe is used. Models are loaded with the first image. Raises AutolabelError that
    names the parameter, its value and the remedy.
    """
    thresholds = {
        "min_score": min_score,
        "min_prob": min_prob,
        "min_area_px": min_area,
        "nms_iou": nms_iou,
        "boxes": boxes,
    }
    changes: dict[str, Any] = {
        "prompt": prompt,
        "models": models,
        "detector": detector,
        "segmenter": segmenter,
        "classifier": classifier,
        "assign": assign,
        "thresholds": thresholds,
        "proposals": {"floor": floor},
        "batch_size": batch_size,
        "device": device,
        "dtype": dtype,
    }
    if shape not in SHAPES:
        raise UsageError(f"shape must be one of {', '.join(SHAPES)}, got {shape!r}; write -p shape=str:auto")
    manifest = Run(Path(run)).manifest if run is not None else None
    if manifest is not None and recipe is None:
        settled = recipe_of(manifest, changes)
    else:
        settled = load_recipe(recipe)[0].merged(changes)
    limits = ShapeOptions(max_vertices=max_vertices, min_iou=min_iou)
    return DetectionFunction(settled, shape, limits, manifest=manifest, offline=offline)


class DetectionFunction:
    """What CVAT calls: ``spec`` says the labels, ``detect`` finds regions in one frame. Safe between threads."""

    def __init__(
        self,
        recipe: Recipe,
        shape: Shape,
        limits: ShapeOptions,
        *,
        manifest: RunManifest | None = None,
        offline: bool = False,
        given: Mapping[str, object] | None = None,
    ) -> None:
        self._recipe, self._shape, self._limits, self._manifest = recipe, shape, limits, manifest
        self._models = models_for(recipe, offline=offline, given=given)
        self._labelers: dict[float | None, Labeler] = {}
        self._lock = threading.Lock()
        names = recipe.ontology().names
        labels = {name: LabelSpec(number, name) for number, name in enumerate(names)}
        self._labels = Labels(labels, {one.id: one for one in labels.values()}, dict(enumerate(names)))
        kind = "any" if shape == "auto" else TYPES[shape]
        # No attributes: the SDK takes no fractions in a number's range, so a score travels as the shape's own field.
        self._spec = cvataa.DetectionFunctionSpec(
            labels=[cvataa.label_spec(name, number, type=kind) for number, name in enumerate(names)]
        )

    @property
    def spec(self) -> Any:
        """The labels of the recipe, as a ``DetectionFunctionSpec``."""
        return self._spec

    def detect(self, context: Any, image: PIL.Image.Image) -> list[Any]:
        """Find the regions of one frame, as shapes.

        ``context.conf_threshold`` takes the place of the recipe's lowest score; with ``context.conv_mask_to_poly``
        masks become polygons. Raises AutolabelError if the frame cannot be labelled.
        """
        threshold = context.conf_threshold
        frame = _read(image, str(context.frame_name))
        (answer,) = self._labeler(threshold).label([frame])
        if isinstance(answer, Failure):
            raise AutolabelError(f"frame {context.frame_name!r}: {answer.stage}: {answer.message}")
        shapes: list[Any] = []
        for annotation in answer.item.annotations:
            if threshold is not None and annotation.score < threshold:
                continue  # a class with a lower threshold of its own
            drawing = self._drawing(annotation, answer.item.image, polygons=bool(context.conv_mask_to_poly))
            made = to_shapes(annotation, answer.item.image, drawing, self._labels, frame=0)
            shapes += map(_request, made)
        return shapes

    def _labeler(self, threshold: float | None) -> Labeler:
        with self._lock:
            if threshold not in self._labelers:
                recipe = self._recipe
                if threshold is not None:
                    recipe = recipe.merged({"thresholds": {"min_score": threshold}})
                self._labelers = {threshold: Labeler(recipe, self._models, run=self._manifest)}
            return self._labelers[threshold]

    def _drawing(self, annotation: Annotation, image: Image, *, polygons: bool) -> Drawing:
        """Draw a region in the shape asked for; where there is no mask, its box is drawn in that shape."""
        shape: Shape = "polygon" if polygons and self._shape in ("mask", "auto") else self._shape
        drawing = draw(annotation, shape, self._limits)
        if self._shape == "auto" or drawing.kind == shape:
            return drawing
        x0, y0, x1, y1 = annotation.box.xyxy
        if shape == "polygon":
            ring = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)
            return Drawing("polygon", annotation.box, (ring,))
        pixels = np.zeros((image.height, image.width), np.bool_)
        left, top = min(int(x0), image.width - 1), min(int(y0), image.height - 1)
        pixels[top : max(int(np.ceil(y1)), top + 1), left : max(int(np.ceil(x1)), left + 1)] = True
        return Drawing("mask", annotation.box, mask=Mask.encode(pixels))


def _read(image: PIL.Image.Image, name: str) -> ReadImage:
    """Turn a frame into upright RGB pixels, as a run reads its files."""
    from PIL import ImageOps

    pixels = to_rgb(ImageOps.exif_transpose(image))
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(f"{width}x{height} ".encode() + pixels.tobytes()).hexdigest()
    return ReadImage(ImageRow(name, "", "", digest, width, height), pixels)


def _request(shape: Mapping[str, Any]) -> Any:
    """Build the SDK's request from a shape of ours; CVAT says itself where a shape comes from."""
    from cvat_sdk import models

    fields = {name: value for name, value in shape.items() if name not in ("source", "attributes", "type")}
    return models.LabeledShapeRequest(**fields, type=shape["type"], attributes=[])
