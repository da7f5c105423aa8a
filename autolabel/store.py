"""The run folder: where a labeling pass keeps everything, and how it is read back.

::

    RUN/manifest.json                       what the run was made of and how far it got
    RUN/shards/000042/images.parquet        a fixed set of images
                      detect-KEY.parquet    low-floor proposals with per-class scores
                      segment-KEY.parquet   masks as COCO RLE, one for each proposal
                      classify-KEY.parquet  class probabilities and embeddings
                      annotations-KEY.parquet
    RUN/annotations/KEY/000000-000063.parquet   the annotations of many shards, made by other thresholds
    RUN/failures.jsonl                      one line for each image that could not be labelled

A new shard appears by one rename, so a kill at any moment loses at most the batches in flight. Where an image file has
changed, its newer shard wins.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import pyarrow as pa
from filelock import FileLock, Timeout

from autolabel import packs, parquet, shards
from autolabel.errors import StoreError
from autolabel.manifest import StageKeys
from autolabel.packs import Pack, PackReader
from autolabel.shards import Detected, ImageRow, Resolved, StageNotes
from autolabel.types import Failure, Float

_STAGES = ("detect", "segment", "classify")
_REMOVERS = 8  # threads that wait for the disk


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
        self._next: int | None = None
        self._packs: dict[str, tuple[Pack, ...]] = {}
        self._listing = Lock()
        self._pack_reader = PackReader()
        self._notes: dict[tuple[int, str, str], StageNotes] = {}
        self._sizes: dict[int, tuple[int, float]] = {}

    def __enter__(self) -> RunFolder:
        self._shards.mkdir(parents=True, exist_ok=True)
        self._next = None
        self._packs.clear()
        self._notes.clear()
        self._sizes.clear()
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
        return sorted(int(name) for name in os.listdir(self._shards) if name.isdigit())  # noqa: PTH208 - paths take longer

    def file(self, shard: int, stage: str, key: str) -> str:
        """Path of one stage's file in a shard; a text, as ten thousand `Path` take longer than what is read there."""
        return f"{self._shards}/{shard:06d}/{stage}-{key}.parquet"

    def images_file(self, shard: int) -> str:
        """Path of a shard's image list."""
        return f"{self._shards}/{shard:06d}/images.parquet"

    def has(self, shard: int, stage: str, key: str) -> bool:
        """Tell whether a shard holds a stage's output under ``key``."""
        if _is_file(self.file(shard, stage, key)):
            return True
        return stage == "annotations" and packs.find(self._packs_of(key), shard) is not None

    def add_shard(
        self, rows: Sequence[ImageRow], notes: StageNotes, files: Mapping[str, tuple[pa.Table, StageNotes]]
    ) -> int:
        """Commit a new shard: its images and stage files (``"detect-KEY"`` → table, notes) appear in one rename."""
        if self._next is None:
            self._next = max(self.numbers(), default=-1) + 1
        number = self._next
        building = self._shards / f".new-{number:06d}"
        building.mkdir()
        tables = {"images": (shards.images_table(rows), notes), **files}
        paths = [building / f"{name}.parquet" for name in tables]
        for path, (table, stage_notes) in zip(paths, tables.values(), strict=True):
            path.write_bytes(parquet.encode(table, stage_notes.to_json()))
        # Together, as a file system writes its journal once for all that wait; the rename must not come first.
        with ThreadPoolExecutor(len(paths) + 1) as pool:
            list(pool.map(_sync, [*paths, building]))
        building.rename(self._shards / f"{number:06d}")
        _sync(self._shards)
        self._next = number + 1
        return number

    def put(self, shard: int, stage: str, key: str, table: pa.Table, notes: StageNotes) -> None:
        """Write one stage's file of an existing shard."""
        shards.write_table(Path(self.file(shard, stage, key)), table, notes)
        self._notes.pop((shard, stage, key), None)

    def put_pack(self, key: str, answers: Mapping[int, tuple[Resolved, StageNotes]]) -> None:
        """Write the annotations of shards that have none under ``key`` and whose numbers follow on each other."""
        packs.write_pack(self.path, key, answers)
        with self._listing:
            self._packs.pop(key, None)

    def stage_notes(self, shard: int, stage: str, key: str) -> StageNotes:
        """Read what a model stage noted about a shard; read once, as a pass asks at its start and at its end."""
        asked = shard, stage, key
        if asked not in self._notes:
            self._notes[asked] = shards.read_notes(self.file(*asked))
        return self._notes[asked]

    def size(self, shard: int) -> tuple[int, float]:
        """Say how many images a shard has, and how many seconds it took to read them; known once it was listed."""
        if shard not in self._sizes:
            self._listing_of(shard)
        return self._sizes[shard]

    def resolved(self, shard: int, key: str) -> Resolved:
        """Read the annotations of a shard under ``key``."""
        own = self.file(shard, "annotations", key)
        pack = None if _is_file(own) else packs.find(self._packs_of(key), shard)
        return shards.read_resolve(own) if pack is None else self._pack_reader.read(pack, shard)

    def resolve_notes(self, key: str) -> Iterator[StageNotes]:
        """Read what resolving each shard noted; a shard that is not resolved raises StoreError."""
        packed: dict[int, StageNotes] = {}
        for pack in self._packs_of(key):
            packed |= packs.read_pack_notes(pack)
        for number in self.numbers():
            own = self.file(number, "annotations", key)
            yield packed[number] if number in packed and not _is_file(own) else shards.read_notes(own)

    def _packs_of(self, key: str) -> tuple[Pack, ...]:
        # Packs are written side by side: a list from before one was written must not outlive it.
        with self._listing:
            if key not in self._packs:
                self._packs[key] = packs.list_packs(self.path, key)
            return self._packs[key]

    def drop_stale_annotations(self, key: str) -> None:
        """Remove resolved annotations under other keys; they are remade from the proposals in no time."""

        def drop(number: int) -> None:
            for entry in os.scandir(self._shards / f"{number:06d}"):
                name = entry.name
                if (
                    name.startswith("annotations-")
                    and name.endswith(".parquet")
                    and name != f"annotations-{key}.parquet"
                ):
                    os.unlink(entry.path)  # noqa: PTH108 - a path for each of many thousand files takes longer

        with ThreadPoolExecutor(_REMOVERS) as pool:
            list(pool.map(drop, self.numbers()))
        packs.drop_stale(self.path, key)
        self._packs.clear()

    def index(self, keys: StageKeys | None = None) -> dict[str, Place]:
        """Map each image path to where it is stored; the newest shard wins. ``keys`` adds the stages' failures."""
        places: dict[str, Place] = {}
        for number in self.numbers():
            for row, (path, fingerprint, uid, failure) in enumerate(self._listing_of(number)):
                places[path] = Place(number, row, fingerprint, uid, failure)
        return places if keys is None else self.with_failures(places, keys)

    def with_failures(self, places: Mapping[str, Place], keys: StageKeys) -> dict[str, Place]:
        """Add to an index which images the model stages could not do."""
        found = dict(places)
        for number in self.numbers():
            for failure in self.stage_failures(number, keys):
                place = places.get(failure.path)
                if place is not None and place.shard == number and place.failure is None:
                    found[failure.path] = replace(place, failure=failure)
        return found

    def opinions(
        self, numbers: Sequence[int], keys: StageKeys, class_count: int
    ) -> list[tuple[Detected, Float | None]]:
        """Read what detector and classifier said about some shards; what they noted is known from then on."""
        detects = shards.read_detects([self.file(n, "detect", keys.detect) for n in numbers], class_count)
        probs = shards.read_many_probs([self.file(n, "classify", keys.classify) for n in numbers], class_count)
        for number, (_, detected), (_, classified) in zip(numbers, detects, probs, strict=True):
            self._notes[number, "detect", keys.detect] = detected
            self._notes[number, "classify", keys.classify] = classified
        return [(mine, own) for (mine, _), (own, _) in zip(detects, probs, strict=True)]

    def _listing_of(self, shard: int) -> list[tuple[str, str, str, Failure | None]]:
        listed, notes = shards.read_listing(self.images_file(shard))
        self._sizes[shard] = len(listed), notes.seconds
        return listed

    def stage_failures(self, shard: int, keys: StageKeys) -> list[Failure]:
        """Images of a shard that a model stage could not do."""
        failures: list[Failure] = []
        for stage in _STAGES:
            key: str = getattr(keys, stage)
            if (shard, stage, key) in self._notes or _is_file(self.file(shard, stage, key)):
                failures.extend(self.stage_notes(shard, stage, key).failures)
        return failures


def _is_file(path: str) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - paths take longer


def _sync(path: Path) -> None:
    """Wait until a file, or where the system can do that a folder, is on the disk."""
    posix = os.name == "posix"
    if not posix and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if posix else os.O_RDWR)
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
    timings["read"] = sum(folder.size(n)[1] for n in numbers)
    noted = {stage: [folder.stage_notes(n, stage, getattr(keys, stage)) for n in numbers] for stage in _STAGES}
    for stage, notes in {**noted, "resolve": folder.resolve_notes(keys.resolve)}.items():
        timings[stage], dropped, _, found = shards.add_up(notes)
        rejects.update(dropped)
        labels.update(found)
    failed = sum(place.failure is not None for place in places.values())
    counts = Counter(images=len(places), labelled=len(places) - failed, failed=failed, annotations=sum(labels.values()))
    return counts, rejects, labels, timings
