"""Image files sent to the server: each content once, the next read while one is sent, found again by their names."""

from __future__ import annotations

import io
import json
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from PIL import Image as Pillow

from autolabel.types import Image
from autolabel_connectors.ahead import Ahead
from autolabel_connectors.label_studio.errors import ServerError, TooLargeError, UnsureError
from autolabel_connectors.label_studio.http import Api
from autolabel_connectors.label_studio.remote import chunks
from autolabel_connectors.turns import Turns

if TYPE_CHECKING:
    from autolabel.connect import OnStep
    from autolabel.dataset import Run

MAX_FILES = 100
"""Label Studio takes 100 files in an upload, as it comes."""

MAX_BYTES = 24 * 2**20
_WORKERS = 1  # two at once took a third longer, and up to twice as long: the server's database has one writer
_READ_AT_ONCE = 500
"""Numbers that fit into an address."""

_NAME_LENGTH = 32
_TYPES = {"JPEG": ("jpg", "image/jpeg"), "PNG": ("png", "image/png"), "GIF": ("gif", "image/gif"),
          "BMP": ("bmp", "image/bmp"), "WEBP": ("webp", "image/webp")}  # fmt: skip
Batch = Sequence[tuple[str, bytes, str]]
"""Files of one request: of each its name, bytes and type."""

_UPLOADED = re.compile(rf"-([0-9a-f]{{{_NAME_LENGTH}}})(?:_\w+)?\.\w+$")


@dataclass(frozen=True, slots=True)
class Shown:
    """Where a task's image is: its address, and the number of its upload."""

    url: str
    upload: int | None = None


@dataclass(slots=True)
class Uploads:
    """Sends image files, each content once; the server's list of uploads is the record of what is there.

    A file is called by its content's hash, so that an upload finds its task whatever becomes of answers and processes.
    ``turns`` keeps uploads apart from what must not be disturbed: on SQLite, a bulk call beside an upload may find the
    database locked halfway, and leave tasks without predictions.
    """

    api: Api
    run: Run
    project: int
    on_step: OnStep
    known: dict[str, Shown] | None = None
    twins: list[tuple[int, str]] = field(default_factory=list)
    sent: int = 0
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_WORKERS))
    coming: dict[str, Future[list[int]]] = field(default_factory=dict)
    queue: deque[Future[list[int]]] = field(default_factory=deque)
    lock: threading.Lock = field(default_factory=threading.Lock)
    turns: Turns = field(default_factory=Turns)

    def prepare(self, images: Sequence[Image]) -> None:
        """Begin to upload what is missing, beside what the caller does; waits where much is on its way already.

        Another thread than that of `show` may call it.
        """
        with self.lock:
            missing = self._missing(images)
            if missing:
                # Files are read while the request before theirs is under way.
                batches = Ahead(_batches(self.run, missing), MAX_BYTES)
                future = self.pool.submit(self._send_all, batches)
                future.add_done_callback(lambda _: batches.close())
                self.coming.update(dict.fromkeys(map(_name, missing), future))
                self.queue.append(future)
            first = self.queue.popleft() if len(self.queue) > 2 * _WORKERS else None
        if first is not None:
            wait([first])

    def show(self, images: Sequence[Image]) -> dict[str, Shown]:
        """Upload what is missing, in batches of bounded size; no file stays open."""
        self.prepare(images)
        known, lost = self._known(), None
        for attempt in range(4):
            awaited = {name: self.coming[name] for image in images if (name := _name(image)) in self.coming}
            arrived: list[int] = []
            for future in set(awaited.values()):
                try:
                    arrived += future.result()
                except UnsureError as error:
                    lost = error
            for ids in chunks(arrived, _READ_AT_ONCE):
                known.update(self._read({"ids": json.dumps(ids, separators=(",", ":"))}))
            with self.lock:
                for name in awaited:
                    self.coming.pop(name, None)
            missing = {_name(image): image for image in images if _name(image) not in known}
            if not missing:
                break
            if attempt == 3:
                raise lost or ServerError(
                    f"{self.api.url} did not keep {len(missing)} of the uploaded files, among them "
                    f"{next(iter(missing.values())).path!r}; is its disk full?"
                )
            known.update(self._list())
            self.prepare([image for name, image in missing.items() if name not in known])
        self.sent += len(images)
        self.on_step("images", self.sent, len(self.run))
        return {image.path: known[_name(image)] for image in images}

    def rest(self) -> None:
        """Wait until all that was begun has arrived, or failed."""
        with self.lock:
            begun = list(self.queue)
        wait(begun)

    def close(self) -> None:
        """Let what is on its way arrive, and begin nothing more."""
        self.pool.shutdown(cancel_futures=True)

    def _known(self) -> dict[str, Shown]:
        if self.known is None:
            self.known = self._list()
        return self.known

    def _missing(self, images: Sequence[Image]) -> list[Image]:
        known = self._known()
        wanted = {_name(image): image for image in images}
        return [image for name, image in wanted.items() if name not in known and name not in self.coming]

    def sweep(self, in_use: Iterable[str]) -> int:
        """Remove files that the network delivered twice and no task shows; returns how many."""
        self.known = self._list()
        used = set(in_use)
        spare = [upload for upload, url in self.twins if url not in used]
        self.twins = []
        if spare:
            self.api.request(
                "DELETE", self._path("file-uploads"), body={"file_upload_ids": spare}, doing="remove spare uploads"
            )
        return len(spare)

    def _send_all(self, batches: Ahead[Batch]) -> list[int]:
        """Upload files; returns their numbers there, by which they are looked up."""
        sent: list[int] = []
        while taken := batches.take(1, 1, MAX_BYTES):
            for batch in taken:
                sent += self._send(batch)
        return sent

    def _send(self, batch: Batch) -> list[int]:
        files = [(f"f{place}", part) for place, part in enumerate(batch)]
        try:
            with self.turns.together():
                answer = self.api.request(
                    "POST",
                    self._path("import"),
                    params={"commit_to_project": "false"},
                    files=files,
                    doing=f"upload {len(batch)} images",
                )
        except TooLargeError:
            if len(batch) == 1:
                raise
            middle = len(batch) // 2
            return [*self._send(batch[:middle]), *self._send(batch[middle:])]
        return [int(upload) for upload in answer["file_upload_ids"]]

    def _list(self) -> dict[str, Shown]:
        return self._read({"all": "true"})

    def _read(self, params: Mapping[str, str]) -> dict[str, Shown]:
        prefix = urlsplit(self.api.url).path.rstrip("/")
        found: dict[str, Shown] = {}
        for upload in self.api.get(self._path("file-uploads"), params, doing="read the list of uploads"):
            match = _UPLOADED.search(upload["file"])
            shown = Shown(f"{prefix}/data/{upload['file'].lstrip('/')}", int(upload["id"]))
            if match is None:
                continue
            if match[1] in found:
                self.twins.append((int(upload["id"]), shown.url))
            else:
                found[match[1]] = shown
        return found

    def _path(self, tail: str) -> str:
        return f"/api/projects/{self.project}/{tail}"


def _name(image: Image) -> str:
    return image.id[:_NAME_LENGTH]


def _batches(run: Run, images: Iterable[Image]) -> Iterator[tuple[Batch, int]]:
    """Read files into batches of bounded count and size; each with its size in bytes."""
    batch: list[tuple[str, bytes, str]] = []
    size = 0
    for image in images:
        data, extension, kind = _browsable(run, image)
        if batch and (len(batch) >= MAX_FILES or size + len(data) > MAX_BYTES):
            yield batch, size
            batch, size = [], 0
        batch.append((f"{_name(image)}.{extension}", data, kind))
        size += len(data)
    if batch:
        yield batch, size


def _browsable(run: Run, image: Image) -> tuple[bytes, str, str]:
    """Return a file that browsers show, its ending and type; other formats are converted to PNG, pixel for pixel."""
    data = run.read_bytes(image)
    try:
        with Pillow.open(io.BytesIO(data)) as opened:
            known: Any = _TYPES.get(opened.format or "")
    except (OSError, ValueError, Pillow.DecompressionBombError):
        known = None
    if known:
        return data, known[0], known[1]
    buffer = io.BytesIO()
    Pillow.fromarray(run.read_image(image)).save(buffer, "PNG")
    return buffer.getvalue(), "png", "image/png"
