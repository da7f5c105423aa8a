"""Stored proposals to annotations, many shards at a time: numpy wants long arrays, and shards are short."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autolabel import shards
from autolabel.manifest import StageKeys
from autolabel.shards import Detected, Outlined, Resolved, StageNotes
from autolabel.stages.resolve import FATES, rejects_of, settle, settled_boxes
from autolabel.store import Place, RunFolder
from autolabel.types import Float

if TYPE_CHECKING:
    from autolabel.labeling import Plan

# Arithmetic is done once for a group of shards. They are read by one thread: a shard's files are so small that a second
# one only fights it for Python's lock, and both take longer.
_WRITERS = 8
_GROUP_ROWS = 1024
Live = Mapping[int, Mapping[int, tuple[str, str]]]
"""By shard and row: image id and path."""


@dataclass(frozen=True, slots=True)
class Part:
    """A shard to resolve: for each of its images ``(image id, path)``, or None where it is to have no annotations."""

    images: Sequence[tuple[str, str] | None]
    detected: Detected
    probs: Float | None
    outlined: Outlined | None = None
    """Only where boxes are taken from masks."""


def resolve_parts(parts: Sequence[Part], plan: Plan) -> list[tuple[Resolved, StageNotes]]:
    """Turn the proposals of shards into their annotations."""
    if not parts:
        return []
    started = time.perf_counter()
    names = plan.ontology.names
    wanted = [_wanted(part) for part in parts]
    sizes = [len(mine) for mine in wanted]
    offsets = np.cumsum([0, *(len(part.images) for part in parts)]).tolist()
    pairs = list(zip(parts, wanted, strict=True))
    # A run's classifier has answered for every shard with proposals, or for none.
    judged = any(part.probs is not None and len(mine) for part, mine in pairs)
    width = len(plan.ontology.all_classes)
    images = [part.detected.images[mine] + offset for (part, mine), offset in zip(pairs, offsets, strict=False)]
    boxes = _rows((part.detected.boxes_xyxy[mine] for part, mine in pairs), 4)
    settled = settled_boxes(boxes, *_outlines(pairs)) if plan.boxes == "mask" else None
    labels, fates = settle(
        np.concatenate([np.zeros(0, np.int64), *images]),
        boxes,
        _rows((part.detected.class_scores[mine] for part, mine in pairs), width),
        _rows((part.probs[mine] for part, mine in pairs if part.probs is not None), width) if judged else None,
        gates=plan.gates,
        assign=plan.assign,
        class_count=len(names),
        settled_xyxy=settled,
    )
    ends = np.cumsum(sizes)
    answers = []
    for (part, mine), own, fate, end in zip(
        pairs, np.split(labels, ends[:-1]), np.split(fates, ends[:-1]), ends.tolist(), strict=True
    ):
        kept = np.flatnonzero(fate == FATES.index("kept"))
        kept = kept[np.argsort(part.detected.images[mine[kept]], kind="stable")]
        proposals, label_ids = mine[kept].astype(np.int32), own[kept].astype(np.int32)
        found = tuple(names[i] for i in label_ids.tolist())
        shown = None if settled is None else settled[kept + end - len(mine)]
        ids = tuple(annotation_ids(plan.run_id, part.images, part.detected, proposals))
        answers.append(
            (Resolved(proposals, ids, label_ids, found, shown), dict(rejects_of(fate)), dict(Counter(found)))
        )
    each = (time.perf_counter() - started) / max(len(parts), 1)
    return [(resolved, StageNotes(each, rejects, (), labels)) for resolved, rejects, labels in answers]


def annotation_ids(
    run_id: str, images: Sequence[tuple[str, str] | None], detected: Detected, proposals: NDArray[np.int32]
) -> Iterator[str]:
    """Name regions for ever: uuid5 of run, image and the detector's box to 0.01 px.

    Label and mask are left out on purpose: a region that is relabelled, or takes its box from its mask, stays the same
    region to a connector.
    """
    space = uuid.UUID(run_id).bytes
    starts: dict[int, hashlib._Hash] = {}
    rows = detected.images[proposals].tolist()
    for row, box in zip(rows, detected.boxes_xyxy[proposals].tolist(), strict=True):
        start = starts.get(row)
        if start is None:
            image = images[row]
            assert image is not None
            start = starts[row] = hashlib.sha1(space + f"{image[0]} {image[1]} ".encode(), usedforsecurity=False)
        digest = start.copy()
        digest.update(b"%.2f %.2f %.2f %.2f" % tuple(box))
        # As uuid.uuid5 writes it, without the object: version 5, variant 1 of RFC 4122.
        text = digest.hexdigest()
        variant = "89ab"[int(text[16], 16) & 3]
        yield f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


def live_images(places: Mapping[str, Place], replaced: Set[str] = frozenset()) -> Live:
    """Say which images of each shard are to have annotations: the newest of their path that did not fail.

    Paths in ``replaced`` are about to get a newer shard, and have none.
    """
    live: dict[int, dict[int, tuple[str, str]]] = {}
    for path, place in places.items():
        if place.failure is None and path not in replaced:
            live.setdefault(place.shard, {})[place.row] = (place.image_id, path)
    return live


def resolve_folder(
    folder: RunFolder, keys: StageKeys, plan: Plan, live: Live, numbers: Sequence[int]
) -> Iterator[tuple[int, StageNotes]]:
    """Make the annotations of the shards ``numbers``, in order; yield each one's notes once they are written.

    Images that a stage could not do get none, also where ``live`` does not know of it. Shards that have none yet are
    written together; what is made anew goes to the shard's own file, which wins.
    """
    class_count = len(plan.ontology.all_classes)

    def read(group: Sequence[int]) -> list[Part]:
        return [
            part(number, *opinions)
            for number, opinions in zip(group, folder.opinions(group, keys, class_count), strict=True)
        ]

    def part(number: int, detected: Detected, probs: Float | None) -> Part:
        segments = folder.file(number, "segment", keys.segment)
        outlined = shards.read_outlines(segments) if plan.boxes == "mask" else None
        failed = {failure.path for failure in folder.stage_failures(number, keys)}
        mine = {row: image for row, image in live.get(number, {}).items() if image[1] not in failed}
        rows = max(max(mine, default=-1), int(detected.images.max(initial=-1))) + 1
        return Part([mine.get(row) for row in range(rows)], detected, probs, outlined)

    def write(answers: dict[int, tuple[Resolved, StageNotes]]) -> list[tuple[int, StageNotes]]:
        if len(answers) > 1 and not any(folder.has(number, "annotations", keys.resolve) for number in answers):
            folder.put_pack(keys.resolve, answers)
        else:
            for number, (resolved, notes) in answers.items():
                folder.put(number, "annotations", keys.resolve, shards.resolve_table(resolved), notes)
        return [(number, notes) for number, (_, notes) in answers.items()]

    with ThreadPoolExecutor(_WRITERS) as writers:
        # Files are synced side by side: on a busy disk each sync waits for what others write, and all for the same.
        writing: deque[Future[list[tuple[int, StageNotes]]]] = deque()
        for group in _groups(numbers, live):
            answers = resolve_parts(read(group), plan)
            writing.append(writers.submit(write, dict(zip(group, answers, strict=True))))
            if len(writing) > _WRITERS:
                yield from writing.popleft().result()
        while writing:
            yield from writing.popleft().result()


def _groups(numbers: Sequence[int], live: Live) -> Iterator[list[int]]:
    """Split ascending shard numbers into groups that follow on each other, of about as many images."""
    group: list[int] = []
    rows = 0
    for number in numbers:
        if group and (rows >= _GROUP_ROWS or number != group[-1] + 1):
            yield group
            group, rows = [], 0
        group.append(number)
        rows += len(live.get(number, ()))
    if group:
        yield group


def _wanted(part: Part) -> NDArray[np.int64]:
    """Places of a shard's proposals whose images are to have annotations."""
    wanted = np.array([image is not None for image in part.images], np.bool_)
    return np.flatnonzero(wanted[part.detected.images]) if len(wanted) else np.zeros(0, np.int64)


def _outlines(pairs: Sequence[tuple[Part, NDArray[np.int64]]]) -> tuple[Float, Float]:
    """Boxes ``(N, 4)`` px around the wanted proposals' masks, and the masks' scores ``(N,)``."""
    boxes: list[Float] = [np.zeros((0, 4), np.float32)]
    scores: list[Float] = [np.zeros(0, np.float32)]
    for part, mine in pairs:
        known = part.outlined
        boxes.append(np.full((len(mine), 4), np.nan, np.float32) if known is None else known.boxes_xyxy[mine])
        scores.append(np.zeros(len(mine), np.float32) if known is None else known.scores[mine])
    return np.concatenate(boxes), np.concatenate(scores)


def _rows(arrays: Iterable[Float], width: int) -> Float:
    return np.concatenate([np.zeros((0, width), np.float32), *arrays])
