"""The run folder: where a labeling pass keeps everything, and how it is read back.

::

    RUN/manifest.json                       what the run was made of and how far it got
    RUN/shards/000042/images.parquet        a fixed set of images
                      detect-KEY.parquet    low-floor proposals with per-class scores
                      segment-KEY.parquet   masks as COCO RLE, one for each proposal
                      classify-KEY.parquet  class probabilities and embeddings
                      annotations-KEY.parquet
    RUN/failures.jsonl                      one line for each image that could not be labelled

A new shard appears by one rename, so a kill at any moment loses at most the batch in flight. Where an image file has
changed, its newer shard wins.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from filelock import FileLock, Timeout

from autolabel import shards
from autolabel.errors import StoreError
from autolabel.manifest import StageKeys
from autolabel.shards import ImageRow, StageNotes
from autolabel.types import Failure

_STAGES = ("detect", "segment", "classify")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image is stored: its shard, its row there, and whether it is in the failure ledger."""

    shard: int
    row: int
    fingerprint: str
    image_id: str
    failure: Failure | None = None


class RunFolder:
    """The write side of a run folder; one process at a time holds its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._shards = path / "shards"
        self._lock = FileLock(path / ".lock", timeout=0)

    def __enter__(self) -> RunFolder:
        self._shards.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise StoreError(
                f"{self.path} is in use by another autolabel process; wait for it, or name another --run"
            ) from None
        for leftover in (*self._shards.glob(".new-*"), *self.path.rglob(".*.parquet-*"), *self.path.glob(".manifest*")):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def numbers(self) -> list[int]:
        """Numbers of the shards there are, in order."""
        if not self._shards.is_dir():
            return []
        return sorted(int(entry.name) for entry in self._shards.iterdir() if entry.name.isdigit())

    def file(self, shard: int, stage: str, key: str) -> Path:
        """Path of one stage's file in a shard."""
        return self._shards / f"{shard:06d}" / f"{stage}-{key}.parquet"

    def images_file(self, shard: int) -> Path:
        """Path of a shard's image list."""
        return self._shards / f"{shard:06d}" / "images.parquet"

    def has(self, shard: int, stage: str, key: str) -> bool:
        """Tell whether a shard holds a stage's output under ``key``."""
        return self.file(shard, stage, key).is_file()

    def add_shard(
        self, rows: Sequence[ImageRow], notes: StageNotes, files: Mapping[str, tuple[pa.Table, StageNotes]]
    ) -> int:
        """Commit a new shard: its images and stage files (``"detect-KEY"`` → table, notes) appear in one rename."""
        number = max(self.numbers(), default=-1) + 1
        building = self._shards / f".new-{number:06d}"
        building.mkdir()
        shards.write_table(building / "images.parquet", shards.images_table(rows), notes)
        for name, (table, stage_notes) in files.items():
            shards.write_table(building / f"{name}.parquet", table, stage_notes)
        building.rename(self._shards / f"{number:06d}")
        _sync_folder(self._shards)
        return number

    def put(self, shard: int, stage: str, key: str, table: pa.Table, notes: StageNotes) -> None:
        """Write one stage's file of an existing shard."""
        shards.write_table(self.file(shard, stage, key), table, notes)

    def drop_stale_annotations(self, key: str) -> None:
        """Remove resolved annotations under other keys; they are remade from the proposals in no time."""
        for path in self._shards.glob("*/annotations-*.parquet"):
            if path.name != f"annotations-{key}.parquet":
                path.unlink()

    def index(self, keys: StageKeys | None = None) -> dict[str, Place]:
        """Map each image path to where it is stored; the newest shard wins. ``keys`` adds the stages' failures."""
        places: dict[str, Place] = {}
        for number in self.numbers():
            failed = {f.path: f for f in self.stage_failures(number, keys)} if keys else {}
            for row, image in enumerate(shards.read_images(self.images_file(number))):
                failure = image.failure or failed.get(image.path)
                places[image.path] = Place(number, row, image.fingerprint, image.image_id, failure)
        return places

    def stage_failures(self, shard: int, keys: StageKeys) -> list[Failure]:
        """Images of a shard that a model stage could not do."""
        paths = [self.file(shard, stage, getattr(keys, stage)) for stage in _STAGES]
        return shards.count_notes([path for path in paths if path.is_file()])[2]


def _sync_folder(path: Path) -> None:
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def totals(
    folder: RunFolder, keys: StageKeys, places: Mapping[str, Place]
) -> tuple[Counter[str], Counter[str], Counter[str], dict[str, float]]:
    """Add up a run: counts of images and annotations, rejects by reason, labels, seconds by stage."""
    numbers = folder.numbers()
    rejects, labels, timings = Counter[str](), Counter[str](), dict[str, float]()
    stage_keys = {**{stage: getattr(keys, stage) for stage in _STAGES}, "annotations": keys.resolve}
    read_seconds, *_ = shards.count_notes([folder.images_file(n) for n in numbers])
    timings["read"] = read_seconds
    for stage, key in stage_keys.items():
        seconds, dropped, _, found = shards.count_notes([folder.file(n, stage, key) for n in numbers])
        timings["resolve" if stage == "annotations" else stage] = seconds
        rejects.update(dropped)
        labels.update(found)
    failed = sum(place.failure is not None for place in places.values())
    counts = Counter(images=len(places), labelled=len(places) - failed, failed=failed, annotations=sum(labels.values()))
    return counts, rejects, labels, timings
