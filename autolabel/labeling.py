"""One batch through the stages: read, detect, segment, classify, resolve; every result becomes a table of its shard."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from autolabel.config import Assign
from autolabel.images import Source, decode, image_id, read_bytes, redact
from autolabel.loading import Models
from autolabel.ontology import Ontology
from autolabel.shards import Classified, Detected, ImageRow, Resolved, Segmented, StageNotes
from autolabel.stages.detect import Proposals, propose
from autolabel.stages.isolate import predict_isolated
from autolabel.stages.resolve import Gates, resolve
from autolabel.stages.tiles import Tiles, detect_in_views, segment_in_views
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
    gates: Gates
    floor: float
    proposal_iou: float
    proposal_limit: int
    run_id: str
    tiles: Tiles


@dataclass(frozen=True, slots=True)
class Batch:
    """What the stages say about one batch, and what each of them noted."""

    detected: Detected
    segmented: Segmented
    classified: Classified
    resolved: Resolved
    detect_notes: StageNotes
    segment_notes: StageNotes
    classify_notes: StageNotes
    resolve_notes: StageNotes

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What the models could not do."""
        return (*self.detect_notes.failures, *self.segment_notes.failures, *self.classify_notes.failures)


def run_stages(batch: Sequence[ReadImage], models: Models, plan: Plan) -> Batch:
    """Take one batch through all stages, from pixels to annotations."""
    detected, detect_notes, brought = detect(batch, models, plan)
    if brought is not None:
        segmented, segment_notes = brought, StageNotes()
    else:
        segmented, segment_notes = segment(batch, detected, models, plan.tiles)
    classified, classify_notes = classify(batch, detected, segmented, models, plan.ontology)
    failures = (*detect_notes.failures, *segment_notes.failures, *classify_notes.failures)
    failed = frozenset(failure.path for failure in failures)
    resolved, notes = resolve_shard([image.row for image in batch], detected, classified, failed, plan)
    return Batch(
        detected, segmented, classified, resolved, detect_notes, segment_notes, classify_notes, resolve_notes=notes
    )


def read(source: Source) -> ReadImage:
    """Read and decode one image; what goes wrong becomes its row's failure."""
    started = time.perf_counter()
    row = ImageRow(source.path, redact(source.uri), source.fingerprint)
    try:
        data = read_bytes(source)
    except Exception as error:
        return ReadImage(replace(row, failure=_failure(source.path, "read", error)), None)
    return replace(from_bytes(data, row), seconds=time.perf_counter() - started)


def from_bytes(data: bytes, row: ImageRow) -> ReadImage:
    """Decode one image that is in memory; ``row`` says what it is called."""
    try:
        pixels = decode(data, row.path)
    except Exception as error:  # this is the image's boundary: whatever a file does to a decoder is its own failure
        return ReadImage(replace(row, failure=_failure(row.path, "decode", error)), None)
    height, width = pixels.shape[:2]
    return ReadImage(replace(row, image_id=image_id(data), width=width, height=height), pixels)


def reread(row: ImageRow, source: Source | None) -> ReadImage:
    """Read a stored image again; one that failed before, or without a source because it is out of date, stays dark."""
    if source is None or row.failure is not None:
        return ReadImage(row, None)
    image = read(source)
    if image.row.image_id == row.image_id:
        return ReadImage(row, image.pixels)
    failure = image.row.failure
    if failure is None:
        message = f"'{row.path}' has changed since it was listed; run the same command again"
        failure = Failure(row.path, "read", "ImageError", message)
    return ReadImage(row, None, failure)


def detect(batch: Sequence[ReadImage], models: Models, plan: Plan) -> tuple[Detected, StageNotes, Segmented | None]:
    """Detect the ontology's phrases; a detector that brings masks of its own answers for the segmenter too."""
    ontology = plan.ontology
    class_count = len(ontology.all_classes)
    readable = [i for i, image in enumerate(batch) if image.pixels is not None]
    model: Any = models.detector.model if readable else None
    started = time.perf_counter()
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
    notes = StageNotes(time.perf_counter() - started, dict(dropped), tuple(failures))
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
    started = time.perf_counter()
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
    return Segmented(tuple(masks), scores), StageNotes(time.perf_counter() - started, {}, tuple(failures))


def classify(
    batch: Sequence[ReadImage], detected: Detected, segmented: Segmented, models: Models, ontology: Ontology
) -> tuple[Classified, StageNotes]:
    """Ask the classifier for its opinion on every proposal."""
    if models.classifier is None:
        return Classified(None, None), StageNotes()
    model: Any = models.classifier.model if len(detected.images) else None
    started = time.perf_counter()
    count, class_count = len(detected.images), len(ontology.all_classes)
    whole = all(mask is not None for mask in segmented.masks)

    def predict(places: Sequence[int]) -> Sequence[Classifications]:
        masks = [[segmented.masks[p] for p in np.flatnonzero(detected.images == i)] for i in places] if whole else None
        answers: Sequence[Classifications] = model.predict_batch(
            [batch[i].pixels for i in places], [_boxes(detected, i) for i in places], masks, ontology.prompts
        )
        return answers

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
    return Classified(probs, embeddings), StageNotes(time.perf_counter() - started, {}, tuple(failures))


def resolve_shard(
    rows: Sequence[ImageRow],
    detected: Detected,
    classified: Classified,
    failed: frozenset[str],
    plan: Plan,
) -> tuple[Resolved, StageNotes]:
    """Turn a shard's stored proposals into annotations; images in ``failed`` get none."""
    started = time.perf_counter()
    names = plan.ontology.names
    proposals, ids, label_ids = list[int](), list[str](), list[int]()
    rejects, labels = Counter[str](), Counter[str]()
    for place, row in enumerate(rows):
        mine = np.flatnonzero(detected.images == place)
        if len(mine) == 0 or row.path in failed:
            continue
        resolution = resolve(
            detected.boxes_xyxy[mine],
            detected.class_scores[mine],
            None if classified.probs is None else classified.probs[mine],
            gates=plan.gates,
            assign=plan.assign,
            class_count=len(names),
        )
        rejects.update(resolution.rejects)
        for kept, label in zip(mine[resolution.kept].tolist(), resolution.labels.tolist(), strict=True):
            proposals.append(kept)
            label_ids.append(label)
            ids.append(annotation_id(plan.run_id, row, detected.boxes_xyxy[kept]))
            labels[names[label]] += 1
    resolved = Resolved(
        np.array(proposals, np.int32), tuple(ids), np.array(label_ids, np.int32), tuple(names[i] for i in label_ids)
    )
    return resolved, StageNotes(time.perf_counter() - started, dict(rejects), (), dict(labels))


def annotation_id(run_id: str, row: ImageRow, box_xyxy: Float) -> str:
    """Name a region for ever: uuid5 of run, image and box to 0.01 px.

    The label is left out on purpose: a region that is relabelled stays the same region to a connector.
    """
    box = " ".join(f"{value:.2f}" for value in box_xyxy)
    return str(uuid.uuid5(uuid.UUID(run_id), f"{row.image_id} {row.path} {box}"))


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
