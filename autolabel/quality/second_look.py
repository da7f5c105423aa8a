"""What a run's detector saw when it looked again: each image mirrored, and in overlapping pieces.

The same detector in another view is weaker evidence than another detector, but its slips differ from view to view, and
in a piece of an image it sees what was too small before. `autolabel.second_look` takes the look; here it is kept and
read: ``RUN/second_look/part-000000.parquet``, a row for each box, the images looked at in its notes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from autolabel.manifest import fingerprint, write_atomically
from autolabel.quality.from_run import DETECTOR
from autolabel.quality.material import Evidence, Pictures
from autolabel.types import Float

if TYPE_CHECKING:
    from autolabel.dataset import Run

FOLDER: Final = "second_look"
VIEWS: Final = ("second look, mirrored", "second look, in pieces")
_VERSION: Final = 1
_META: Final = b"autolabel.second_look"
_SCHEMA: Final = pa.schema(
    [
        ("image_id", pa.string()),
        ("view", pa.int8()),
        ("x_min", pa.float32()),
        ("y_min", pa.float32()),
        ("x_max", pa.float32()),
        ("y_max", pa.float32()),
        ("scores", pa.list_(pa.float16())),
    ]
)


@dataclass(frozen=True, slots=True)
class Seen:
    """Boxes ``(N, 4)`` px of one image, their scores ``(N, K)`` over classes and negatives, and their view ``(N,)``."""

    boxes_xyxy: Float
    scores: Float
    view: Any


def key_of(run: Run) -> str:
    """Fingerprint of what a second look depends on beside an image: the detector and what it was asked."""
    return fingerprint([run.manifest.keys.detect, _VERSION])


def write_part(run: Run, seen: Mapping[str, Seen]) -> Path:
    """Add what was seen in some images, by their ids, as a file of its own."""
    folder = run.path / FOLDER
    folder.mkdir(exist_ok=True)
    numbers = [int(path.stem.removeprefix("part-")) for path in folder.glob("part-*.parquet")]
    found = [one for one in seen.values() if len(one.boxes_xyxy)]
    boxes = np.concatenate([one.boxes_xyxy for one in found] or [np.zeros((0, 4), np.float32)])
    scores = [row for one in found for row in one.scores.astype(np.float16)]
    columns = [
        pa.array([image for image, one in seen.items() for _ in range(len(one.boxes_xyxy))], pa.string()),
        pa.array(np.concatenate([one.view for one in found] or [np.zeros(0)]).astype(np.int8)),
        *(pa.array(boxes[:, place].astype(np.float32)) for place in range(4)),
        pa.array(scores, _SCHEMA.field("scores").type),
    ]
    notes = {_META: json.dumps({"key": key_of(run), "images": list(seen)}).encode()}
    table = pa.Table.from_arrays(columns, schema=_SCHEMA).replace_schema_metadata(notes)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    path = folder / f"part-{max(numbers, default=-1) + 1:06d}.parquet"
    write_atomically(path, sink.getvalue().to_pybytes())
    return path


def looked_at(run: Run) -> set[str]:
    """Ids of the images that were looked at again, by the detector and phrases that the run has now."""
    return {image for path in _parts(run) for image in _notes(pq.read_schema(path))["images"]}


def read_second_look(run: Run, pictures: Pictures, classes: int) -> Evidence:
    """Read what is stored, as evidence about ``pictures`` over ``classes``; empty where there is nothing."""
    places: dict[str, list[int]] = {}
    for number, key in enumerate(pictures.ids):
        places.setdefault(key, []).append(number)
    known = len(run.ontology.classes)
    image: list[Any] = []
    boxes: list[Any] = []
    scores: list[Any] = []
    views: list[Any] = []
    for path in _parts(run):
        table = pq.read_table(path)
        stacked = np.stack([table.column(name).to_numpy() for name in _SCHEMA.names[2:6]], axis=1)
        flat = table.column("scores").combine_chunks().flatten().to_numpy(zero_copy_only=False)
        rows = flat.reshape(len(table), -1) if len(table) else np.zeros((0, known), np.float16)
        ids = np.asarray(table.column("image_id").to_pylist(), object)
        view = table.column("view").to_numpy()
        for copy in range(max(map(len, places.values()), default=0)):
            # Two files of the same bytes are one picture twice.
            place = np.array([(places.get(one) or [-1])[copy : copy + 1] or [-1] for one in ids], np.int64).reshape(-1)
            mine = place >= 0
            image.append(place[mine])
            boxes.append(stacked[mine])
            scores.append(rows[mine])
            views.append(view[mine])
    if not image or not sum(map(len, image)):
        return Evidence.empty()
    joint = np.concatenate(image)
    order = np.argsort(joint, kind="stable")
    of_class = np.concatenate(scores)[order][:, :known]
    return Evidence(
        joint[order],
        np.concatenate(boxes)[order].astype(np.float32),
        of_class.argmax(1).astype(np.int64),
        of_class.max(1).astype(np.float32),
        np.concatenate(views)[order].astype(np.int64),
        VIEWS,
        ((DETECTOR, np.pad(of_class, ((0, 0), (0, classes - known)))),),
    )


def _parts(run: Run) -> Sequence[Path]:
    """Files of the present detector, in order; what another one saw is left alone."""
    key = key_of(run)
    found = sorted((run.path / FOLDER).glob("part-*.parquet"))
    return [path for path in found if _notes(pq.read_schema(path)).get("key") == key]


def _notes(schema: pa.Schema) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((schema.metadata or {}).get(_META, b"{}"))
    return values
