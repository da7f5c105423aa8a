"""Annotations of many shards in one file: what other thresholds make of a run is written in few files, not thousands.

::

    RUN/annotations/KEY/000000-000063.parquet     rows of the shards 0 to 63, and the notes of each

A shard's own ``annotations-KEY.parquet`` wins over a pack: it was made later.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from autolabel import columns, parquet, shards
from autolabel.errors import StoreError
from autolabel.shards import Resolved, StageNotes

FOLDER = "annotations"
_NAME = re.compile(r"[0-9]+-[0-9]+\.parquet")


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack file by its name: the shards from ``first`` to ``last``, each of them."""

    first: int
    last: int
    path: Path


def list_packs(run: Path, key: str) -> tuple[Pack, ...]:
    """List the packs that were written under a stage key, in order."""
    folder = run / FOLDER / key
    if not folder.is_dir():
        return ()
    return tuple(sorted((_named(p) for p in folder.glob("[0-9]*.parquet")), key=lambda pack: pack.first))


def write_pack(run: Path, key: str, answers: Mapping[int, tuple[Resolved, StageNotes]]) -> Pack:
    """Write the annotations of some shards, atomically; their numbers must follow on each other."""
    folder = run / FOLDER / key
    folder.mkdir(parents=True, exist_ok=True)
    numbers = list(answers)
    table = shards.resolve_table(Resolved.together([resolved for resolved, _ in answers.values()]))
    counts = [len(resolved.proposals) for resolved, _ in answers.values()]
    table = table.append_column("shard", columns.numbers(np.repeat(np.array(numbers, np.int32), counts), pa.int32()))
    notes = {str(number): noted.to_dict() for number, (_, noted) in answers.items()}
    path = folder / f"{numbers[0]:06d}-{numbers[-1]:06d}.parquet"
    parquet.write(path, table, json.dumps(notes, ensure_ascii=False).encode())
    return Pack(numbers[0], numbers[-1], path)


def read_pack_notes(pack: Pack) -> dict[int, StageNotes]:
    """Read the notes of a pack's shards; costs no data page."""
    values: dict[str, dict[str, Any]] = json.loads(parquet.read_metadata(pack.path))
    return {int(number): StageNotes.from_dict(noted) for number, noted in values.items()}


class PackReader:
    """Reads shards out of packs; holds the table of the last pack it was asked about."""

    def __init__(self) -> None:
        self._held: tuple[Path, pa.Table, NDArray[np.int32]] | None = None

    def read(self, pack: Pack, shard: int) -> Resolved:
        """Read one shard's annotations back."""
        held = self._held
        if held is None or held[0] != pack.path:
            table = parquet.read(pack.path)
            held = self._held = pack.path, table, columns.to_numpy(table.column("shard"))
        start, end = np.searchsorted(held[2], [shard, shard + 1]).tolist()
        return shards.to_resolved(held[1].slice(start, end - start))


def find(packs: tuple[Pack, ...], shard: int) -> Pack | None:
    """Find the pack that answers for a shard; packs come in order and do not overlap."""
    place = bisect_right(packs, shard, key=lambda pack: pack.first) - 1
    return packs[place] if place >= 0 and shard <= packs[place].last else None


def drop_stale(run: Path, key: str) -> None:
    """Remove packs under other keys; what a person put beside them stays."""
    for folder in (run / FOLDER).glob("*/"):
        if folder.name == key:
            continue
        for path in folder.iterdir():
            if _NAME.fullmatch(path.name):
                path.unlink()
        with suppress(OSError):  # something else is in it
            folder.rmdir()


def _named(path: Path) -> Pack:
    try:
        first, last = path.stem.split("-")
        return Pack(int(first), int(last), path)
    except ValueError:
        raise StoreError(
            f"{path} is not a pack of annotations; remove it, and the same command makes it again"
        ) from None
