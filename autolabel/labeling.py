"""One batch through the stages: read, detect, segment, classify, resolve; every result becomes a table of its shard."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import numpy as np

from autolabel.config import Assign, BoxSource
from autolabel.images import Admit, Source, decode, image_id, read_bytes, redact
from autolabel.loading import Models
from autolabel.models.runtime import clock
from autolabel.ontology import Ontology
from autolabel.resolving import Part, resolve_parts
from autolabel.shards import Classified, Detected, ImageRow, Outlined, Resolved, Segmented, StageNotes
from autolabel.stages.detect import Proposals, propose
from autolabel.stages.isolate import predict_isolated
from autolabel.stages.resolve import Gates
from autolabel.stages.tiles import Tiles, detect_in_views
from autolabel.stages.windows import segment_in_views
from autolabel.types import RGB, Classifications, Detections, Failure, Float, Mask, Segments

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class ReadImage:
    """An image of a batch: its row for the store, and its pixels, or None when it could not be read."""

    row: ImageRow
    pixels: RGB | None
    lost: Failure | None = None
    """Set when an image that was read before cannot be read again."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides a batch's results, beside its pixels and the models."""

    ontology: Ontology
    assign: Assign
    boxes: BoxSource
    gates: Gates
    min_prob: float
    floor: float
    proposal_iou: float
    proposal_limit: int
    run_id: str
    tiles: Tiles


@dataclass(frozen=True, slots=True)
class Known:
    """What is stored about images already and need not be asked again: the first stages, as each builds on the last."""

    detected: Detected | None = None
    segmented: Segmented | None = None
    classified: Classified | None = None


NOTHING: Final = Known()


@dataclass(frozen=True, slots=True)
class Staged:
    """What the stages said so far about some images; ``notes`` by stage, of those that were run and not known.

    ``forward`` are seconds in forward passes, by stage.
    """

    detected: Detected
    segmented: Segmented | None = None
    classified: Classified | None = None
    notes: Mapping[str, StageNotes] = field(default_factory=dict)
    forward: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """What the stages say about one batch; ``notes`` by stage, of those that were run and not known before."""

    detected: Detected
    segmented: Segmented
    classified: Classified
    resolved: Resolved
    notes: Mapping[str, StageNotes]

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What the models could not do."""
        return tuple(failure for notes in self.notes.values() for failure in notes.failures)


class Stopwatch:
    """How long a stage is busy: waiting for another model's forward pass to end is not its own time."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._forward, self._waited = clock()

    @property
    def seconds(self) -> float:
        """Seconds since the start, without the time spent waiting."""
        return time.perf_counter() - self._started - (clock()[1] - self._waited)

    @property
    def forward(self) -> float:
        """Seconds of these in forward passes."""
        return clock()[0] - self._forward


def run_detect(batch: Sequence[ReadImage], models: Models, plan: Plan, known: Known = NOTHING) -> Staged:
    """First stage: proposals, and masks where the detector brings them."""
    if known.detected is not None:
        return Staged(known.detected)
    watch = Stopwatch()
    detected, notes, brought = detect(batch, models, plan)
    forward = {"detect": watch.forward}
    if brought is None:
        return Staged(detected, notes={"detect": notes}, forward=forward)
    # The detector's own masks are stored first, as without boxes nobody reads them.
    return Staged(detected, brought, notes={"segment": StageNotes(), "detect": notes}, forward=forward)


def run_segment(
    batch: Sequence[ReadImage], staged: Staged, models: Models, plan: Plan, known: Known = NOTHING
) -> Staged:
    """Second stage: a mask for each proposal that has none."""
    if staged.segmented is not None:
        return staged
    if known.segmented is not None:
        return replace(staged, segmented=known.segmented)
    watch = Stopwatch()
    segmented, notes = segment(batch, staged.detected, models, plan.tiles)
    forward = {**staged.forward, "segment": watch.forward}
    return replace(staged, segmented=segmented, notes={**staged.notes, "segment": notes}, forward=forward)


def run_classify(
    batch: Sequence[ReadImage], staged: Staged, models: Models, plan: Plan, known: Known = NOTHING
) -> Staged:
    """Third stage: the classifier's opinion on each proposal."""
    if known.classified is not None:
        return replace(staged, classified=known.classified)
    if staged.segmented is None:
        raise ValueError("the stage before was not run")
    watch = Stopwatch()
    classified, notes = classify(batch, staged.detected, staged.segmented, models, plan.ontology)
    forward = {**staged.forward, "classify": watch.forward}
    return replace(staged, classified=classified, notes={**staged.notes, "classify": notes}, forward=forward)


def finish(rows: Sequence[ImageRow], staged: Staged, plan: Plan) -> Batch:
    """Last stage: annotations from what the models said."""
    if staged.segmented is None or staged.classified is None:
        raise ValueError("the stages before were not run")
    failed = frozenset(failure.path for notes in staged.notes.values() for failure in notes.failures)
    resolved, notes = resolve_shard(rows, staged, failed, plan)
    return Batch(staged.detected, staged.segmented, staged.classified, resolved, {**staged.notes, "resolve": notes})


def read(source: Source, admit: Admit | None = None) -> ReadImage:
    """Read and decode one image; what goes wrong becomes its row's failure.

    ``admit`` is told the number of pixels before they are decoded, and may wait; that time is not counted.
    """
    started, waited = time.perf_counter(), 0.0

    def wait(pixels: int) -> None:
        nonlocal waited
        asked = time.perf_counter()
        if admit is not None:
            admit(pixels)
        waited = time.perf_counter() - asked

    row = ImageRow(source.path, redact(source.uri), source.fingerprint)
    try:
        data = read_bytes(source)
    except Exception as error:
        return ReadImage(replace(row, failure=_failure(source.path, "read", error)), None)
    return replace(from_bytes(data, row, wait), seconds=time.perf_counter() - started - waited)


def from_bytes(data: bytes, row: ImageRow, admit: Admit | None = None) -> ReadImage:
    """Decode one image that is in memory; ``row`` says what it is called."""
    try:
        pixels = decode(data, row.path, admit=admit)
    except Exception as error:  # this is the image's boundary: whatever a file does to a decoder is its own failure
        return ReadImage(replace(row, failure=_failure(row.path, "decode", error)), None)
    height, width = pixels.shape[:2]
    return ReadImage(replace(row, image_id=image_id(data), width=width, height=height), pixels)


def reread(row: ImageRow, source: Source | None, admit: Admit | None = None) -> ReadImage:
    """Read a stored image again; one that failed before, or without a source because it is out of date, stays dark."""
    if source is None or row.failure is not None:
        return ReadImage(row, None)
    image = read(source, admit)
    if image.row.image_id == row.image_id:
        return ReadImage(row, image.pixels, seconds=image.seconds)
    failure = image.row.failure
    if failure is None:
        message = f"'{row.path}' has changed since it was listed; run the same command again"
        failure = Failure(row.path, "read", "ImageError", message)
    return ReadImage(row, None, failure, image.seconds)


def detect(batch: Sequence[ReadImage], models: Models, plan: Plan) -> tuple[Detected, StageNotes, Segmented | None]:
    """Detect the ontology's phrases; a detector that brings masks of its own answers for the segmenter too."""
    ontology = plan.ontology
    class_count = len(ontology.all_classes)
    readable = [i for i, image in enumerate(batch) if image.pixels is not None]
    model: Any = models.detector.model if readable else None
    watch = Stopwatch()
    answers: list[Detections | Exception] = predict_isolated(
        lambda places: detect_in_views(
            model, [_pixels(batch[i]) for i in places], ontology.phrases, plan.floor, plan.tiles
        ),
        readable,
    )
    failures, dropped = [image.lost for image in batch if image.lost], Counter[str]()
    found: list[tuple[int, Proposals]] = []
    for place, answer in zip(readable, answers, strict=True):
        row = batch[place].row
        if isinstance(answer, Exception):
            failures.append(_failure(row.path, "detect", answer))
            continue
        try:
            proposals = propose(
                answer,
                ontology.phrase_owners,
                class_count,
                size_wh=(row.width, row.height),
                floor=plan.floor,
                iou=plan.proposal_iou,
                limit=plan.proposal_limit,
            )
        except ValueError as error:  # the model's arrays do not fit together
            failures.append(_failure(row.path, "detect", error))
            continue
        found.append((place, proposals))
        dropped.update(proposals.dropped)
    detected = Detected(
        np.concatenate([np.full(len(p), place, np.int32) for place, p in found] or [np.zeros(0, np.int32)]),
        _stack([p.boxes_xyxy for _, p in found], 4),
        _stack([p.class_scores for _, p in found], class_count),
    )
    notes = StageNotes(watch.seconds, dict(dropped), tuple(failures))
    if not any(p.masks is not None for _, p in found):
        return detected, notes, None
    masks = tuple(mask for _, p in found for mask in (p.masks or (None,) * len(p)))
    return detected, notes, Segmented(masks, np.ones(len(masks), np.float32))


def segment(
    batch: Sequence[ReadImage], detected: Detected, models: Models, tiles: Tiles
) -> tuple[Segmented, StageNotes]:
    """Refine every proposal into a mask; images without proposals cost nothing."""
    count = len(detected.images)
    masks: list[Mask | None] = [None] * count
    scores = np.zeros(count, np.float32)
    failures = [image.lost for image in batch if image.lost]
    model = models.segmenter.model if models.segmenter is not None and count else None
    watch = Stopwatch()
    if model is not None:
        answers: dict[int, Segments | Exception] = _per_image(
            batch,
            detected,
            lambda places: segment_in_views(
                model, [_pixels(batch[i]) for i in places], [_boxes(detected, i) for i in places], tiles
            ),
        )
        for place, answer in answers.items():
            mine = np.flatnonzero(detected.images == place)
            if isinstance(answer, Exception) or len(answer.masks) != len(mine):
                failures.append(_failure(batch[place].row.path, "segment", _as_error(answer, len(mine))))
                continue
            for proposal, mask in zip(mine, answer.masks, strict=True):
                masks[proposal] = mask
            scores[mine] = answer.scores
    return Segmented(tuple(masks), scores), StageNotes(watch.seconds, {}, tuple(failures))


def classify(
    batch: Sequence[ReadImage], detected: Detected, segmented: Segmented, models: Models, ontology: Ontology
) -> tuple[Classified, StageNotes]:
    """Ask the classifier for its opinion on every proposal."""
    if models.classifier is None:
        return Classified(None, None), StageNotes()
    model: Any = models.classifier.model if len(detected.images) else None
    watch = Stopwatch()
    count, class_count = len(detected.images), len(ontology.all_classes)

    def predict(places: Sequence[int]) -> Sequence[Classifications]:
        # Images whose masks are whole go together, those that lack one by themselves: what an image is answered must
        # not hang on its neighbours.
        masks = {i: [segmented.masks[p] for p in np.flatnonzero(detected.images == i)] for i in places}
        answers: dict[int, Classifications] = {}
        for whole in (True, False):
            part = [i for i in places if all(mask is not None for mask in masks[i]) is whole]
            if not part:
                continue
            answered = model.predict_batch(
                [batch[i].pixels for i in part],
                [_boxes(detected, i) for i in part],
                [masks[i] for i in part] if whole else None,
                ontology.prompts,
            )
            answers.update(zip(part, answered, strict=True))
        return [answers[i] for i in places]

    answers: dict[int, Classifications | Exception] = _per_image(batch, detected, predict)
    good = [a for a in answers.values() if not isinstance(a, Exception)]
    dims = good[0].embeddings.shape[1] if good else 0
    probs = np.full((count, class_count), 1.0 / class_count, np.float32)
    embeddings = np.zeros((count, dims), np.float32)
    failures = [image.lost for image in batch if image.lost]
    for place, answer in answers.items():
        mine = np.flatnonzero(detected.images == place)
        if isinstance(answer, Exception) or answer.probs.shape != (len(mine), class_count):
            failures.append(_failure(batch[place].row.path, "classify", _as_error(answer, len(mine))))
            continue
        probs[mine], embeddings[mine] = answer.probs, answer.embeddings
    return Classified(probs, embeddings), StageNotes(watch.seconds, {}, tuple(failures))


def resolve_shard(
    rows: Sequence[ImageRow],
    staged: Staged,
    failed: frozenset[str],
    plan: Plan,
) -> tuple[Resolved, StageNotes]:
    """Turn what all models said about a shard into annotations; images in ``failed`` get none."""
    if staged.segmented is None or staged.classified is None:
        raise ValueError("the stages before were not run")
    images = [None if row.path in failed else (row.image_id, row.path) for row in rows]
    outlined = Outlined.of(staged.segmented) if plan.boxes == "mask" else None
    return resolve_parts([Part(images, staged.detected, staged.classified.probs, outlined)], plan)[0]


def _per_image(
    batch: Sequence[ReadImage], detected: Detected, predict: Callable[[Sequence[int]], Sequence[Answer]]
) -> dict[int, Answer | Exception]:
    """Answers by place, for the images that have proposals and pixels."""
    places = [place for place in np.unique(detected.images).tolist() if batch[place].pixels is not None]
    return dict(zip(places, predict_isolated(predict, places), strict=True))


def _pixels(image: ReadImage) -> RGB:
    if image.pixels is None:
        raise ValueError(f"'{image.row.path}' was not read")
    return image.pixels


def _boxes(detected: Detected, place: int) -> Float:
    boxes: Float = detected.boxes_xyxy[detected.images == place]
    return boxes


def _stack(parts: Sequence[Float], width: int) -> Float:
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, width), np.float32)


def _failure(path: str, stage: str, error: Exception) -> Failure:
    return Failure(path, stage, type(error).__name__, str(error))


def _as_error(answer: object, expected: int) -> Exception:
    return answer if isinstance(answer, Exception) else ValueError(f"the model did not answer for all {expected} boxes")
