"""Which frame of which task shows which image of a run, told from the frames' names.

An uploaded file is named after its path and ends in 12 hex digits that stand for path and content, so that equal file
names in different folders, and different contents of one path, never meet: ``plates__a__001-0c9f13d2a4be.png``. On a
share or in cloud storage the name is where the file lies; there the run's notes say which content was meant.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from autolabel.types import Image
from autolabel_connectors.cvat.client import Cvat, Row
from autolabel_connectors.receipts import Receipts

Key = tuple[str, str]
"""Path and image id."""

_OPENED_BY_CVAT = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
_OUR_FILE = re.compile(r"-([0-9a-f]{12})\.[A-Za-z]+$")
_OUR_TASK = re.compile(r" \[([0-9a-f]{8})\]$")


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a task; size in px as the server sees it. ``deleted``: a person took it out of the task."""

    number: int
    path: str
    image_id: str
    width: int
    height: int
    deleted: bool = False

    @property
    def image(self) -> Image:
        """The image it shows."""
        return Image(self.image_id, self.path, self.width, self.height)


@dataclass(frozen=True, slots=True)
class OurTask:
    """A task with images of the run."""

    row: Row
    frames: tuple[Frame, ...]

    @property
    def id(self) -> int:
        """The server's id."""
        return int(self.row["id"])


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the run's images are in a project.

    ``half``: tasks of ours without images, left by a cut. ``gone``: tasks we pushed to that are deleted. ``moved``:
    such tasks that are in another project now, or closed to this user.
    """

    tasks: tuple[OurTask, ...] = ()
    half: tuple[Row, ...] = ()
    gone: tuple[int, ...] = ()
    moved: tuple[int, ...] = ()
    places: Mapping[Key, tuple[int, Frame]] = field(default_factory=dict)

    def skipped(self, receipts: Receipts) -> set[Key]:
        """Images of tasks that were moved away: theirs is elsewhere now, so they are not pushed again."""
        return {(path, uid) for task in self.moved for path, uid in noted_frames(receipts, task) or ()}


def file_name(image: Image) -> str:
    """Name of an uploaded image's file: ASCII, unique to path and content, and readable."""
    path = PurePosixPath(image.path)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", "__".join(path.with_suffix("").parts).strip("/"))[-100:]
    return f"{stem or 'image'}-{_file_key(image.path, image.id)}{file_type(image)}"


def file_type(image: Image) -> str:
    """Return the ending of an uploaded image's file: its own, or .png for kinds that CVAT may not open."""
    suffix = PurePosixPath(image.path).suffix
    return suffix if suffix.lower() in _OPENED_BY_CVAT else ".png"


def server_file(image: Image, root: str | None) -> str:
    """Where an image lies on the server's share or in its cloud storage, below ``root``.

    Of an address (``s3://bucket/prefix``) the part below the bucket counts: CVAT's storage is the bucket.
    """
    below = urlsplit(root).path if root and "://" in root else root or ""
    return str(PurePosixPath(below) / image.path.lstrip("/")).lstrip("/")


def task_name(run: str, number: int, keys: Iterable[Key]) -> str:
    """Name of a task; the digits at its end stand for the images it is meant for."""
    digest = hashlib.sha256("\0".join(f"{path}\0{uid}" for path, uid in keys).encode()).hexdigest()[:8]
    return f"{run} {number:03d} [{digest}]"


def note_frames(receipts: Receipts, task: int, keys: Iterable[Key]) -> None:
    """Remember which images a task shows, in the order of its frames."""
    receipts.note(f"task:{task}", [list(key) for key in keys])


def noted_frames(receipts: Receipts, task: int) -> list[Key] | None:
    """Return what was noted about a task's frames."""
    noted = receipts.noted(f"task:{task}")
    return None if noted is None else [(path, uid) for path, uid in noted]


def known_tasks(receipts: Receipts) -> list[int]:
    """Ids of the tasks that this run was pushed to."""
    return [int(uid) for uid in receipts.noted("tasks", [])]


def remember_task(receipts: Receipts, task: int, keys: Iterable[Key]) -> None:
    """Remember a task and what its frames show."""
    note_frames(receipts, task, keys)
    if task not in known_tasks(receipts):
        receipts.note("tasks", [*known_tasks(receipts), task])


def find_places(
    server: Cvat,
    project: int,
    receipts: Receipts,
    images: Mapping[str, Image],
    on_task: Callable[[int, int], None] = lambda _done, _total: None,
) -> Placement:
    """Find the run's images in a project, by notes where there are some, else by the names of the frames."""
    rows = list(server.listed("/api/tasks", project_id=project))
    finder = _Finder([(image.path, image.id) for image in images.values()])
    tasks: list[OurTask] = []
    half: list[Row] = []
    for done, row in enumerate(rows):
        on_task(done, len(rows))
        ours = _OUR_TASK.search(row["name"]) is not None
        if not row.get("size"):
            half += [row] if ours else []
            continue
        noted = noted_frames(receipts, int(row["id"]))
        meta = server.find(f"/api/tasks/{row['id']}/data/meta")
        if meta is None:
            continue  # deleted while we looked; the next pass sees it
        frames = tuple(_frames(meta, noted, finder, ours=ours))
        if frames:
            tasks.append(OurTask(row, frames))
    gone, moved = _lost(server, receipts, {int(row["id"]) for row in rows})
    places: dict[Key, tuple[int, Frame]] = {}
    for task in tasks:
        for frame in task.frames:
            places.setdefault((frame.path, frame.image_id), (task.id, frame))
    return Placement(tuple(tasks), tuple(half), gone, moved, places)


def _lost(server: Cvat, receipts: Receipts, present: set[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    gone: list[int] = []
    moved: list[int] = []
    for task in known_tasks(receipts):
        if task not in present:
            (gone if server.find(f"/api/tasks/{task}") is None else moved).append(task)
    return tuple(gone), tuple(moved)


def _frames(meta: Mapping[str, Any], noted: list[Key] | None, finder: _Finder, *, ours: bool) -> Iterator[Frame]:
    deleted = set(meta.get("deleted_frames") or ())
    # Notes say which images a task was made of; only the names say in which order the server shows them.
    used = finder if noted is None else _Finder(noted)
    for number, row in enumerate(meta.get("frames") or ()):
        key = used.find(row["name"], ours=ours or noted is not None)
        if key is not None:
            yield Frame(number, *key, int(row["width"]), int(row["height"]), number in deleted)


class _Finder:
    """Finds images by the names of frames; prepared on first use, as notes make it unnecessary mostly."""

    def __init__(self, keys: Collection[Key]) -> None:
        self._images = keys
        self._files: dict[str, Key] | None = None
        self._paths: dict[str, Key] = {}

    def find(self, name: str, *, ours: bool) -> Key | None:
        """Return which image a frame of this name shows; paths of shares count in tasks of ``ours`` alone."""
        if self._files is None:
            self._files = {_file_key(*key): key for key in self._images}
            self._paths = {key[0].lstrip("/"): key for key in self._images}
        match = _OUR_FILE.search(name)
        if match is not None and match[1] in self._files:
            return self._files[match[1]]
        if not ours:
            return None
        parts = PurePosixPath(name.lstrip("/")).parts
        found = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((self._paths[path] for path in found if path in self._paths), None)


def _file_key(path: str, image_id: str) -> str:
    return hashlib.sha256(f"{path}\0{image_id}".encode()).hexdigest()[:12]
