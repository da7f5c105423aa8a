"""One shard of a run folder: a fixed set of images, and each stage's output about them as a Parquet file of its own.

A stage file carries its stage's key in its name; so a run whose classifier changed keeps its boxes and masks, and
finds the old answers again when the change is taken back. Every file appears whole or not at all.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from autolabel import columns, parquet
from autolabel.errors import StoreError
from autolabel.geometry import mask_boxes
from autolabel.parquet import Where
from autolabel.types import Failure, Float, Mask

_IMAGES = pa.schema(
    [
        ("path", pa.string()),
        ("uri", pa.string()),
        ("fingerprint", pa.string()),
        ("image_id", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("error_stage", pa.string()),
        ("error", pa.string()),
        ("message", pa.string()),
    ]
)
_DETECT = pa.schema(
    [
        ("image", pa.int32()),
        ("x_min", pa.float32()),
        ("y_min", pa.float32()),
        ("x_max", pa.float32()),
        ("y_max", pa.float32()),
        ("class_scores", pa.list_(pa.float32())),
    ]
)
_BOX = ("x_min", "y_min", "x_max", "y_max")
_SEGMENT = pa.schema(
    [
        ("mask_height", pa.int32()),
        ("mask_width", pa.int32()),
        ("mask_counts", pa.binary()),
        ("mask_score", pa.float32()),
        # The box around the mask, so that a re-resolve unpacks none; NaN where there are no pixels.
        ("mask_box", pa.list_(pa.float32())),
    ]
)
_CLASSIFY = pa.schema([("class_probs", pa.list_(pa.float32())), ("embedding", pa.list_(pa.float16()))])
_RESOLVE = pa.schema(
    [("proposal", pa.int32()), ("id", pa.string()), ("label_id", pa.int32()), ("label", pa.string())],
)


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image of a shard: where it came from, what it is, or why it could not be read."""

    path: str
    uri: str
    fingerprint: str
    image_id: str = ""
    width: int = 0
    height: int = 0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class StageNotes:
    """What a stage says beside its table: seconds taken, boxes dropped by reason, images failed, labels counted."""

    seconds: float = 0.0
    dropped: Mapping[str, int] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Encode for the Parquet file's metadata."""
        return json.dumps(self.to_dict(), ensure_ascii=False, sort_keys=True).encode()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        failures = [asdict(failure) for failure in self.failures]
        return {"seconds": self.seconds, "dropped": self.dropped, "failures": failures, "labels": self.labels}

    @classmethod
    def from_json(cls, data: bytes) -> StageNotes:
        """Decode from the Parquet file's metadata."""
        return cls.from_dict(json.loads(data))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StageNotes:
        """Take what `to_dict` returned."""
        return cls(**{**values, "failures": tuple(Failure(**row) for row in values["failures"])})


@dataclass(frozen=True, slots=True)
class Detected:
    """Proposals of a shard: ``images`` ``(N,)`` places of their images, boxes ``(N, 4)`` px, scores ``(N, K)``."""

    images: NDArray[np.int32]
    boxes_xyxy: Float
    class_scores: Float


@dataclass(frozen=True, slots=True)
class Segmented:
    """A mask (or None) and its quality for each proposal of a shard."""

    masks: tuple[Mask | None, ...]
    scores: Float


@dataclass(frozen=True, slots=True)
class Outlined:
    """Boxes round the masks of a shard's proposals ``(N, 4)`` px, NaN where there is none, and their scores."""

    boxes_xyxy: Float
    scores: Float

    @classmethod
    def of(cls, segmented: Segmented) -> Outlined:
        """Look at every mask."""
        return cls(mask_boxes(segmented.masks), segmented.scores)


@dataclass(frozen=True, slots=True)
class Classified:
    """Probabilities ``(N, K)`` and embeddings ``(N, D)`` of a shard's proposals; ``probs`` None: no classifier ran."""

    probs: Float | None
    embeddings: Float | None


@dataclass(frozen=True, slots=True)
class Resolved:
    """Annotations of a shard: the proposals they are made of, their ids and labels.

    ``boxes_xyxy`` ``(M, 4)`` px are their boxes; None where all have the detector's.
    """

    proposals: NDArray[np.int32]
    ids: tuple[str, ...]
    label_ids: NDArray[np.int32]
    labels: tuple[str, ...]
    boxes_xyxy: Float | None = None

    @classmethod
    def together(cls, parts: Sequence[Resolved]) -> Resolved:
        """Put the annotations of shards behind each other; all, or none, have boxes of their own."""
        boxes = [part.boxes_xyxy for part in parts if part.boxes_xyxy is not None]
        return cls(
            np.concatenate([part.proposals for part in parts]),
            tuple(chain.from_iterable(part.ids for part in parts)),
            np.concatenate([part.label_ids for part in parts]),
            tuple(chain.from_iterable(part.labels for part in parts)),
            np.concatenate(boxes) if boxes else None,
        )


def write_table(path: Path, table: pa.Table, notes: StageNotes) -> None:
    """Write a Parquet file atomically, with the stage's notes in its metadata."""
    parquet.write(path, table, notes.to_json())


def read_notes(path: Where) -> StageNotes:
    """Read only a stage file's notes; costs no data page."""
    return StageNotes.from_json(parquet.read_metadata(path))


def images_table(rows: Sequence[ImageRow]) -> pa.Table:
    """Table of a shard's images."""
    values = [
        {
            **{name: getattr(row, name) for name in ("path", "uri", "fingerprint", "image_id", "width", "height")},
            "error_stage": row.failure.stage if row.failure else None,
            "error": row.failure.error if row.failure else None,
            "message": row.failure.message if row.failure else None,
        }
        for row in rows
    ]
    return columns.table(values, _IMAGES)


def read_images(path: Where) -> tuple[ImageRow, ...]:
    """Read a shard's images back."""
    stored = parquet.read(path).to_pydict()
    stages, errors, messages = (stored.pop(name) for name in ("error_stage", "error", "message"))
    rows = map(ImageRow, *(stored[name] for name in ("path", "uri", "fingerprint", "image_id", "width", "height")))
    return tuple(
        replace(row, failure=Failure(row.path, stage, error, message)) if stage else row
        for row, stage, error, message in zip(rows, stages, errors, messages, strict=True)
    )


def read_listing(path: Where) -> tuple[list[tuple[str, str, str, Failure | None]], StageNotes]:
    """Read only what an index wants of a shard's images: path, fingerprint, image id, failure; and what was noted."""
    table = parquet.read(path, ["path", "fingerprint", "image_id", "error_stage"])
    notes = StageNotes.from_json(parquet.said(path, table.schema.metadata))
    if table.column("error_stage").null_count < len(table):
        return [(row.path, row.fingerprint, row.image_id, row.failure) for row in read_images(path)], notes
    listed = (table.column(name).to_pylist() for name in ("path", "fingerprint", "image_id"))
    return list(zip(*listed, (None for _ in range(len(table))), strict=True)), notes


def detect_table(detected: Detected) -> pa.Table:
    """Table of a shard's proposals."""
    arrays = [columns.numbers(detected.images, pa.int32())]
    arrays += [columns.numbers(detected.boxes_xyxy[:, i], pa.float32()) for i in range(4)]
    arrays.append(_lists(detected.class_scores, pa.float32()))
    return pa.Table.from_arrays(arrays, schema=_DETECT)


def read_detect(path: Where, class_count: int) -> Detected:
    """Read a shard's proposals back."""
    return read_detects([path], class_count)[0][0]


def read_detects(paths: Sequence[Where], class_count: int) -> list[tuple[Detected, StageNotes]]:
    """Read the proposals of many shards back, and what was noted: at once, as numpy wants long arrays."""
    tables, places, notes = _together([parquet.read(path) for path in paths], paths)
    images = columns.to_numpy(tables.column("image")).astype(np.int32)
    boxes, scores = _boxes(tables), _matrix(tables.column("class_scores"), len(tables), class_count)
    return [(Detected(images[mine], boxes[mine], scores[mine]), said) for mine, said in zip(places, notes, strict=True)]


def segment_table(segmented: Segmented) -> pa.Table:
    """Table of a shard's masks, one row for each proposal."""
    masks = segmented.masks
    arrays = [
        columns.column([m.height if m else None for m in masks], pa.int32()),
        columns.column([m.width if m else None for m in masks], pa.int32()),
        columns.blobs(m.counts if m else None for m in masks),
        columns.numbers(segmented.scores, pa.float32()),
        _lists(mask_boxes(masks), pa.float32()),
    ]
    return pa.Table.from_arrays(arrays, schema=_SEGMENT)


def read_outlines(path: Where) -> Outlined:
    """Read only the boxes around a shard's masks back, and their scores."""
    table = parquet.read(path, ["mask_score", "mask_box"])
    if "mask_box" not in table.column_names:  # a run from before they were kept
        return Outlined.of(read_segment(path))
    scores = columns.to_numpy(table.column("mask_score")).astype(np.float32)
    return Outlined(_matrix(table.column("mask_box"), len(table), 4), scores)


def read_segment(path: Where) -> Segmented:
    """Read a shard's masks back."""
    table = parquet.read(path)
    heights, widths, counts = (table.column(n).to_pylist() for n in ("mask_height", "mask_width", "mask_counts"))
    masks = tuple(
        None if data is None else Mask(h, w, data) for h, w, data in zip(heights, widths, counts, strict=True)
    )
    return Segmented(masks, columns.to_numpy(table.column("mask_score")).astype(np.float32))


def classify_table(classified: Classified, count: int) -> pa.Table:
    """Table of a shard's probabilities and embeddings, one row for each of ``count`` proposals."""
    arrays = [
        pa.nulls(count, field.type) if values is None else _lists(values, field.type.value_type)
        for values, field in zip((classified.probs, classified.embeddings), _CLASSIFY, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=_CLASSIFY)


def read_probs(path: Where, class_count: int) -> Float | None:
    """Read only the probabilities of a shard's proposals back ``(N, K)``; None where no classifier ran."""
    return read_many_probs([path], class_count)[0][0]


def read_many_probs(paths: Sequence[Where], class_count: int) -> list[tuple[Float | None, StageNotes]]:
    """Read the probabilities of many shards back, and what was noted: at once, as numpy wants long arrays."""
    table, places, notes = _together([parquet.read(path, ["class_probs"]) for path in paths], paths)
    probs = table.column("class_probs")
    if len(table) and probs.null_count == len(table):
        return [(None, said) for said in notes]
    matrix = _matrix(probs, len(table), class_count)
    return [(matrix[mine], said) for mine, said in zip(places, notes, strict=True)]


def read_classify(path: Where, class_count: int) -> Classified:
    """Read a shard's probabilities and embeddings back."""
    table = parquet.read(path)
    probs, embeddings = table.column("class_probs"), table.column("embedding")
    if len(table) and probs.null_count == len(table):
        return Classified(None, None)
    flat = embeddings.combine_chunks().flatten()
    dims = len(flat) // len(table) if len(table) else 0
    return Classified(_matrix(probs, len(table), class_count), _matrix(embeddings, len(table), dims))


def resolve_table(resolved: Resolved) -> pa.Table:
    """Table of a shard's annotations."""
    arrays = [
        columns.numbers(resolved.proposals, pa.int32()),
        columns.texts(resolved.ids),
        columns.numbers(resolved.label_ids, pa.int32()),
        columns.texts(resolved.labels),
    ]
    table = pa.Table.from_arrays(arrays, schema=_RESOLVE)
    if resolved.boxes_xyxy is not None:
        for place, name in enumerate(_BOX):
            table = table.append_column(name, columns.numbers(resolved.boxes_xyxy[:, place], pa.float32()))
    return table


def read_resolve(path: Where) -> Resolved:
    """Read a shard's annotations back."""
    return to_resolved(parquet.read(path))


def to_resolved(table: pa.Table) -> Resolved:
    """Take annotations from a table's columns."""
    return Resolved(
        columns.to_numpy(table.column("proposal")).astype(np.int32),
        tuple(table.column("id").to_pylist()),
        columns.to_numpy(table.column("label_id")).astype(np.int32),
        tuple(table.column("label").to_pylist()),
        _boxes(table) if _BOX[0] in table.column_names else None,
    )


def add_up(notes: Iterable[StageNotes]) -> tuple[float, Counter[str], list[Failure], Counter[str]]:
    """Add up notes: seconds, drops by reason, failures, labels."""
    seconds, dropped, failures, labels = 0.0, Counter[str](), list[Failure](), Counter[str]()
    for noted in notes:
        seconds += noted.seconds
        dropped.update(noted.dropped)
        failures.extend(noted.failures)
        labels.update(noted.labels)
    return seconds, dropped, failures, labels


def _together(tables: Sequence[pa.Table], paths: Sequence[Where]) -> tuple[pa.Table, list[slice], list[StageNotes]]:
    """One table of all, each one's rows in it, and each one's notes."""
    ends = np.cumsum([len(table) for table in tables]).tolist()
    places = [slice(end - len(table), end) for table, end in zip(tables, ends, strict=True)]
    notes = [StageNotes.from_json(parquet.said(path, t.schema.metadata)) for path, t in zip(paths, tables, strict=True)]
    return pa.concat_tables(tables), places, notes


def _boxes(table: pa.Table) -> Float:
    boxes: Float = np.stack([columns.to_numpy(table.column(name)) for name in _BOX], axis=1).astype(np.float32)
    return boxes


def _lists(matrix: Float, value_type: pa.DataType) -> pa.ListArray:
    rows, width = matrix.shape
    return columns.lists(columns.numbers(matrix.reshape(-1), value_type), np.full(rows, width))


def _matrix(column: pa.ChunkedArray, rows: int, width: int) -> Float:
    flat = columns.to_numpy(column.combine_chunks().flatten())
    if flat.size != rows * width:
        raise StoreError(f"stored rows have {flat.size} values, expected {rows} x {width}; the shard is damaged")
    matrix: Float = flat.reshape(rows, width).astype(np.float32)
    return matrix
