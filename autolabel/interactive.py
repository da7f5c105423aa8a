"""Labels for images in memory, by a run's own stages: what an annotation tool asks for while a person waits."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from autolabel.config import Recipe
from autolabel.dataset import ImageProposals, Tables
from autolabel.engine import Done, Engine, Held
from autolabel.engine.local import LocalEngine
from autolabel.engine.sequential import SequentialEngine
from autolabel.geometry import mask_boxes
from autolabel.labeling import Plan, ReadImage
from autolabel.loading import Models
from autolabel.manifest import RunManifest
from autolabel.protocols import Prompt
from autolabel.runner import make_plan, new_run_id, stage_keys
from autolabel.types import RGB, AnnotatedImage, Box, Failure, Float, Image, Mask

_REMEMBERED = 1024
# Windows around a click, as shares of the image's longer side, that are tried where no proposal holds the click.
_WINDOWS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Labelled:
    """One image with its annotations, and with what the models proposed before any threshold."""

    item: AnnotatedImage
    proposals: ImageProposals


@dataclass(frozen=True, slots=True)
class Opened:
    """An image that a person is pointing at: what is kept of it between two clicks."""

    image: Image
    embedded: object | None = None
    pixels: RGB | None = None
    proposals: ImageProposals | None = None


@dataclass(frozen=True, slots=True)
class Pointed:
    """What a person pointed at: its box, its mask where there is a segmenter, and the mask's predicted IoU."""

    box: Box
    mask: Mask | None
    score: float


class Recent(Generic[Key, Value]):
    """The values used last, ``size`` of them; safe between threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """Return a value that is still there."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: Key, value: Value) -> None:
        """Keep a value, and let go of the one that was not used for longest."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            if len(self._values) > self._size:
                self._values.popitem(last=False)


class Labeler:
    """Models that are loaded once and label images in memory under one recipe; safe between threads.

    ``run`` is the manifest of a run under the same recipe: regions then have the ids that they have there.
    """

    def __init__(self, recipe: Recipe, models: Models, *, run: RunManifest | None = None) -> None:
        ontology = recipe.ontology()
        floor = min(recipe.floor(), float(run.resolved["floor"]) if run else 1.0)
        self.recipe = recipe
        self.models = models
        boxes = recipe.box_source(run.resolved if run else None)
        run_id = run.run_id if run else new_run_id(ontology)
        self.plan: Plan = make_plan(recipe, ontology, run_id, floor, boxes=boxes, min_prob=models.min_prob)
        self.keys = stage_keys(self.plan, models)
        self._lock = threading.Lock()
        self._done: Recent[tuple[str, str], Labelled] = Recent(_REMEMBERED)

    @property
    def model_version(self) -> str:
        """Name of the recipe and models for annotation tools: another one whenever an annotation could differ."""
        return self.keys.model_version

    def load(self) -> None:
        """Load the models now, not with the first image."""
        with self._lock:
            for model in self.models.parts().values():
                _ = model.model

    def label(self, images: Sequence[ReadImage]) -> list[Labelled | Failure]:
        """Label images as a run would, in order; one that could not be read or labelled answers with its failure.

        An image that was labelled a short while ago is not labelled again.
        """
        answers: dict[int, Labelled | Failure] = {
            place: known for place, image in enumerate(images) if (known := self._known(image)) is not None
        }
        waiting = [place for place in range(len(images)) if place not in answers]
        size = self.recipe.batch_size
        batches = [waiting[start : start + size] for start in range(0, len(waiting), size)]
        works = [Held.of([images[place] for place in places]) for places in batches]
        for places, done in zip(batches, self._labelled(works), strict=True):
            failures = {failure.path: failure for failure in done.batch.failures}
            rows = done.rows
            tables = Tables(rows, done.batch.detected, done.batch.segmented, done.batch.classified)
            for number, (place, item) in enumerate(zip(places, tables.annotated(done.batch.resolved), strict=True)):
                failure = rows[number].failure or failures.get(rows[number].path)
                if failure is None:
                    # Nothing here asks for embeddings, and those of a thousand images would take a gigabyte.
                    labelled = answers[place] = Labelled(item, replace(tables.proposals(number), embeddings=None))
                    self._done.put((rows[number].image_id, rows[number].path), labelled)
                else:
                    answers[place] = failure
        return [answers[place] for place in range(len(images))]

    def _labelled(self, works: Sequence[Held]) -> Iterator[Done]:
        """Take images through the stages as a run does; one alone gains nothing from threads."""
        overlapping = sum(len(work.rows) for work in works) > 1
        engine: Engine = (LocalEngine if overlapping else SequentialEngine)(self.models, self.plan)
        with self._lock, closing(engine.label(works)) as answers:
            yield from answers

    def open(self, image: ReadImage) -> Opened | Failure:
        """Get an image ready for prompts: encode it, or where the segmenter takes no points, find what it may hold."""
        if image.row.failure is not None or image.pixels is None:
            return image.row.failure or Failure(image.row.path, "read", "ImageError", "there are no pixels")
        about = Image(image.row.image_id, image.row.path, image.row.width, image.row.height)
        model = self._segmenter()
        encodes = model is not None and _takes_prompts(model)
        proposals = None
        if model is None or not (encodes and model.points):
            (labelled,) = self.label([image])
            if isinstance(labelled, Failure):
                return labelled
            proposals = labelled.proposals
        if not encodes or model is None:
            return Opened(about, None, image.pixels, proposals)
        with self._lock:
            return Opened(about, model.embed(image.pixels), None, proposals)

    def segment_prompt(self, opened: Opened, prompt: Prompt, label: str | None = None) -> Pointed | None:
        """Segment what a person points at; None where there is nothing.

        A segmenter that was not trained with points is asked for boxes: of the detector's proposals that hold all
        positive points and whose masks leave out the negative ones, the one that scores best for ``label``; else a
        window around the points. A box is then taken without its points.
        """
        model = self._segmenter()
        if model is not None and _takes_prompts(model) and model.points:
            return self._best(opened, [prompt], prompt)
        if prompt.box is not None:
            return self._best(opened, [Prompt(box=prompt.box)], Prompt())
        if not prompt.positive:
            return None
        found = _proposed(opened.proposals, prompt, self._class_of(label))
        return found or self._best(opened, [Prompt(box=box) for box in _windows(prompt, opened.image)], prompt)

    def _known(self, image: ReadImage) -> Labelled | Failure | None:
        if image.row.failure is not None:
            return image.row.failure
        return self._done.get((image.row.image_id, image.row.path))

    def _segmenter(self) -> Any:
        return None if self.models.segmenter is None else self.models.segmenter.model

    def _class_of(self, label: str | None) -> int | None:
        names = self.plan.ontology.names
        return names.index(label) if label in names else None

    def _best(self, opened: Opened, tries: Sequence[Prompt], wanted: Prompt) -> Pointed | None:
        """Segment some prompts and return the surest answer that does what is ``wanted``, or else the surest."""
        model = self._segmenter()
        if model is None:
            box = tries[0].box
            return None if box is None or len(tries) > 1 else Pointed(box, None, 1.0)
        with self._lock:
            if opened.embedded is not None:
                segments = model.segment_prompts(opened.embedded, tries)
            else:
                boxes: Float = np.array([prompt.box.xyxy for prompt in tries if prompt.box], np.float32)
                (segments,) = model.predict_batch([opened.pixels], [boxes])
        fits = [_fits(mask, wanted) for mask in segments.masks]
        order = sorted(range(len(fits)), key=lambda place: (fits[place], float(segments.scores[place])), reverse=True)
        for place in order:
            box = _box_of(segments.masks[place])
            if box is not None:
                return Pointed(box, segments.masks[place], float(segments.scores[place]))
        return None


def _takes_prompts(model: Any) -> bool:
    """Whether a segmenter offers `Promptable`; asked of each name, as a plug-in's may come by delegation."""
    return all(hasattr(model, name) for name in ("points", "embed", "segment_prompts"))


def _proposed(proposals: ImageProposals | None, prompt: Prompt, label: int | None) -> Pointed | None:
    """Return the proposal that holds all positive points, avoids the negative ones, and scores best for ``label``."""
    if proposals is None or not len(proposals.boxes_xyxy):
        return None
    scores = proposals.class_scores.max(axis=1) if label is None else proposals.class_scores[:, label]
    points = np.array(prompt.positive, np.float32)
    low, high = proposals.boxes_xyxy[:, None, :2], proposals.boxes_xyxy[:, None, 2:]
    holds = ((low <= points) & (points <= high)).all(axis=(1, 2))
    for place in sorted(np.flatnonzero(holds).tolist(), key=lambda place: -float(scores[place])):
        mask = proposals.masks[place]
        box = Box(*proposals.boxes_xyxy[place].tolist()) if mask is None else _box_of(mask)
        if box is not None and (mask is None or not _covers_any(mask, prompt.negative)):
            return Pointed(box, mask, float(proposals.mask_scores[place]) if mask else float(scores[place]))
    return None


def _windows(prompt: Prompt, image: Image) -> list[Box]:
    """Boxes of several sizes around the positive points, cut at the image's edges."""
    points = np.array(prompt.positive, np.float32)
    low, high = points.min(axis=0), points.max(axis=0)
    limit = np.array([image.width, image.height], np.float32)
    boxes = []
    for share in _WINDOWS:
        reach = share * max(image.width, image.height) / 2
        x0, y0 = np.clip(low - reach, 0, limit).tolist()
        x1, y1 = np.clip(high + reach, 0, limit).tolist()
        boxes.append(Box(x0, y0, x1, y1))
    return boxes


def _fits(mask: Mask, wanted: Prompt) -> bool:
    """Whether a mask covers all positive points and none of the negative ones."""
    pixels = mask.decode()
    return all(_at(pixels, point) for point in wanted.positive) and not any(
        _at(pixels, point) for point in wanted.negative
    )


def _covers_any(mask: Mask, points: Sequence[tuple[float, float]]) -> bool:
    if not points:
        return False
    pixels = mask.decode()
    return any(_at(pixels, point) for point in points)


def _at(pixels: np.ndarray[Any, np.dtype[np.bool_]], point: tuple[float, float]) -> bool:
    """Read the pixel under a point; a point on the far edge belongs to the last pixel."""
    height, width = pixels.shape
    return bool(pixels[min(max(int(point[1]), 0), height - 1), min(max(int(point[0]), 0), width - 1)])


def _box_of(mask: Mask) -> Box | None:
    """Return the smallest box around a mask's pixels, or None if it has none."""
    (around,) = mask_boxes([mask]).tolist()
    return None if math.isnan(around[0]) else Box(*around)


def recipe_of(run: RunManifest, changes: Mapping[str, Any]) -> Recipe:
    """Return a run's recipe with ``changes`` laid over it."""
    return Recipe.model_validate(dict(run.recipe)).merged(changes)
