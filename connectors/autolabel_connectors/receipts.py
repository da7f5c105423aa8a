"""Which region on a server is which annotation of ours, and as what it was pushed; safe against a kill.

::

    RUN/sync/label-studio-localhost-8080-defects/
        receipts.jsonl      one line for each fact, appended and synced; the last one about a region stands

Receipts remember; the server knows. A connector that finds them lost, or itself cut off between the server's commit
and its own, makes them again from the identities that it wrote into the server's own records.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic_core import to_json

from autolabel.corrections import source_slug
from autolabel.errors import StoreError
from autolabel.manifest import write_atomically
from autolabel.types import Box, Mask

FOLDER = "sync"
_FILE = "receipts.jsonl"


@dataclass(frozen=True, slots=True)
class Receipt:
    """One annotation of ours on a server, as it was pushed.

    ``remote_ids`` are the tool's ids of its parts (one, but for polygons in several parts); ``digest`` stands for its
    geometry as the server holds it, without the label; ``payload`` for everything that was sent about it.
    """

    path: str
    image_id: str
    annotation_id: str
    remote_task: str
    remote_ids: tuple[str, ...]
    digest: str
    payload: str
    label: str
    box: Box
    mask: Mask | None = None
    score: float | None = None
    model_version: str = ""
    pushed_at: str = ""


class Receipts:
    """The receipts of one run on one project; open with `open_receipts`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / _FILE
        self._receipts: dict[str, dict[str, Receipt]] = {}
        self._notes: dict[str, Any] = {}
        self._facts = 0
        self._read()

    def of(self, path: str) -> list[Receipt]:
        """Receipts of one image."""
        return list(self._receipts.get(path, {}).values())

    def __iter__(self) -> Iterator[Receipt]:
        return (receipt for receipts in self._receipts.values() for receipt in receipts.values())

    def __len__(self) -> int:
        return sum(map(len, self._receipts.values()))

    def put(self, receipts: Iterable[Receipt], notes: Mapping[str, Any] | None = None) -> None:
        """Record regions that are on the server now, and small facts about them, in one write.

        An earlier receipt of the same annotation gives way.
        """
        put = list(receipts)
        news = self._news(notes or {})
        self._append([{"put": _to_values(receipt)} for receipt in put] + [{"note": fact} for fact in news.items()])
        for receipt in put:
            self._keep(receipt)
        self._notes.update(news)

    def drop(self, receipts: Iterable[Receipt]) -> None:
        """Forget regions that we removed from the server. What a person removed keeps its receipt."""
        gone = [(receipt.path, receipt.annotation_id) for receipt in receipts]
        self._append([{"drop": place} for place in gone])
        for place in gone:
            self._forget(*place)

    def note(self, key: str, value: Any) -> None:
        """Remember a small fact (JSON), such as a project's id."""
        self.note_all({key: value})

    def note_all(self, facts: Mapping[str, Any]) -> None:
        """Remember many small facts at once."""
        self.put((), facts)

    def noted(self, key: str, default: Any = None) -> Any:
        """Return a remembered fact."""
        return self._notes.get(key, default)

    def compact(self) -> None:
        """Rewrite the file without what later lines have replaced."""
        if len(self._notes) + len(self) < self._facts:
            lines: list[dict[str, Any]] = [{"note": fact} for fact in self._notes.items()]
            lines += [{"put": _to_values(receipt)} for receipt in self]
            write_atomically(self._file, _encode(lines))
            self._facts = len(lines)

    def _news(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in facts.items() if self._notes.get(key) != value}

    def _append(self, facts: list[dict[str, Any]]) -> None:
        if not facts:
            return
        with self._file.open("ab") as stream:
            stream.write(_encode(facts))
            stream.flush()
            os.fsync(stream.fileno())
        self._facts += len(facts)

    def _take(self, fact: Mapping[str, Any]) -> None:
        self._facts += 1
        if "put" in fact:
            self._keep(_from_values(fact["put"]))
        elif "drop" in fact:
            self._forget(*fact["drop"])
        else:
            key, value = fact["note"]
            self._notes[key] = value

    def _keep(self, receipt: Receipt) -> None:
        self._receipts.setdefault(receipt.path, {})[receipt.annotation_id] = receipt

    def _forget(self, path: str, annotation_id: str) -> None:
        self._receipts.get(path, {}).pop(annotation_id, None)

    def _read(self) -> None:
        if not self._file.is_file():
            return
        data = self._file.read_bytes()
        whole, _, torn = data.rpartition(b"\n")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(
                    f"{self._file}, line {number} is damaged ({error}); remove the file: a push finds its regions again"
                ) from None
        if torn:
            # A kill cut the last line short; what it said is found again on the server.
            write_atomically(self._file, whole + b"\n" if whole else b"")


@contextmanager
def open_receipts(run: Path, source: str) -> Iterator[Receipts]:
    """Open a run's receipts for one project, alone: two processes must not sync the same project at once."""
    folder = run / FOLDER / source_slug(source)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise StoreError(f"{folder} is in use by another autolabel process; wait for it to finish its sync") from None
    try:
        receipts = Receipts(folder)
        yield receipts
        receipts.compact()
    finally:
        lock.release()


def _encode(facts: Iterable[Mapping[str, Any]]) -> bytes:
    # Three times as fast as the json module.
    return b"".join(to_json(fact) + b"\n" for fact in facts)


def _to_values(receipt: Receipt) -> dict[str, Any]:
    mask = receipt.mask
    packed = None if mask is None else [mask.height, mask.width, mask.counts.decode("ascii")]
    return {**{name: getattr(receipt, name) for name in Receipt.__slots__}, "box": receipt.box.xyxy, "mask": packed}


def _from_values(values: Mapping[str, Any]) -> Receipt:
    packed = values["mask"]
    mask = None if packed is None else Mask(packed[0], packed[1], packed[2].encode("ascii"))
    return Receipt(**{**values, "box": Box(*values["box"]), "mask": mask, "remote_ids": tuple(values["remote_ids"])})
