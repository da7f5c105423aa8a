"""A batch in portions that memory holds: how it is cut, and how what was said about the portions becomes one again.

A shard is a fixed number of images, so that every engine and every resumed run forms the same ones. How many images
are in memory at once is another matter: large ones go through the models in smaller portions.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from autolabel.labeling import Known, ReadImage, Staged
from autolabel.shards import Classified, Detected, Segmented, StageNotes
from autolabel.types import Float

Item = TypeVar("Item")
_READ_AHEAD = 4
PORTION_PIXELS = 100_000_000
"""A portion ends here even when it could hold more images: 100 megapixels are 300 MB of RGB."""


def portions(images: Iterable[ReadImage], size: int, pixels: int | None = None) -> Iterator[list[ReadImage]]:
    """Cut images into portions of ``size`` or of as many as ``pixels`` allow, one image at least."""
    limit = PORTION_PIXELS if pixels is None else pixels
    portion: list[ReadImage] = []
    held = 0
    for image in images:
        portion.append(image)
        held += pixel_count(image)
        if len(portion) == size or held >= limit:
            yield portion
            portion, held = [], 0
    if portion:
        yield portion


def read_batches(
    read: Callable[[Item], ReadImage], items: Iterable[Item], size: int, pool: ThreadPoolExecutor
) -> Iterator[list[ReadImage]]:
    """Read images in order, some ahead of whoever takes them, and cut them into portions."""
    return portions(_read_ahead(read, items, pool), size)


def _read_ahead(
    read: Callable[[Item], ReadImage], items: Iterable[Item], pool: ThreadPoolExecutor
) -> Iterator[ReadImage]:
    coming = iter(items)
    waiting = deque(pool.submit(read, item) for item in itertools.islice(coming, _READ_AHEAD))
    while waiting:
        image = waiting.popleft().result()
        waiting.extend(pool.submit(read, item) for item in itertools.islice(coming, 1))
        yield image


def pixel_count(image: ReadImage) -> int:
    """Pixels that an image holds in memory."""
    return 0 if image.pixels is None else image.pixels.shape[0] * image.pixels.shape[1]


def part_of(known: Known, start: int, stop: int) -> Known:
    """Take what is known about the images ``start`` to ``stop``, counted from the first of them."""
    if known.detected is None:
        return Known()
    mine = np.flatnonzero((known.detected.images >= start) & (known.detected.images < stop))
    detected = Detected(
        (known.detected.images[mine] - start).astype(np.int32),
        known.detected.boxes_xyxy[mine],
        known.detected.class_scores[mine],
    )
    segmented, classified = known.segmented, known.classified
    if segmented is not None:
        segmented = Segmented(tuple(segmented.masks[i] for i in mine), segmented.scores[mine])
    if classified is not None and classified.probs is not None and classified.embeddings is not None:
        classified = Classified(classified.probs[mine], classified.embeddings[mine])
    return Known(detected, segmented, classified)


def together(parts: Sequence[tuple[int, Staged]]) -> Staged:
    """Put the portions of a batch together, each with its number of images."""
    if len(parts) == 1:
        return parts[0][1]
    starts = np.cumsum([0, *(count for count, _ in parts)])
    staged = [part for _, part in parts]
    detected = Detected(
        np.concatenate([part.detected.images + start for part, start in zip(staged, starts[:-1], strict=True)]).astype(
            np.int32
        ),
        np.concatenate([part.detected.boxes_xyxy for part in staged]),
        np.concatenate([part.detected.class_scores for part in staged]),
    )
    segmented = [part.segmented for part in staged if part.segmented is not None]
    masks = tuple(mask for part in segmented for mask in part.masks)
    scores = np.concatenate([part.scores for part in segmented])
    classified = _classified([part.classified for part in staged if part.classified is not None])
    forward: Counter[str] = Counter()
    for part in staged:
        forward.update(part.forward)  # a Counter adds floats as well
    return Staged(
        detected, Segmented(masks, scores), classified, _notes([part.notes for part in staged]), dict(forward)
    )


def _classified(parts: Sequence[Classified]) -> Classified:
    if any(part.probs is None for part in parts):
        return Classified(None, None)
    # A portion of failed images has embeddings of no dimension.
    dims = max(part.embeddings.shape[1] for part in parts if part.embeddings is not None)
    probs = [part.probs for part in parts if part.probs is not None]
    return Classified(np.concatenate(probs), np.concatenate([_widened(part, dims) for part in parts]))


def _widened(part: Classified, dims: int) -> Float:
    embeddings = part.embeddings
    if embeddings is None or embeddings.shape[1] == dims:
        return np.zeros((0, dims), np.float32) if embeddings is None else embeddings
    return np.zeros((len(embeddings), dims), np.float32)


def _notes(parts: Sequence[Mapping[str, StageNotes]]) -> dict[str, StageNotes]:
    stages = dict.fromkeys(stage for notes in parts for stage in notes)
    return {stage: _sum([notes[stage] for notes in parts if stage in notes]) for stage in stages}


def _sum(notes: Sequence[StageNotes]) -> StageNotes:
    dropped: dict[str, int] = {}
    for note in notes:
        for reason, count in note.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    failures = tuple(failure for note in notes for failure in note.failures)
    return StageNotes(sum(note.seconds for note in notes), dropped, failures)
