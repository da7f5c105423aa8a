"""How a task comes to show its image: an upload, a file that the server reads from its own disk, or an address."""

from __future__ import annotations

import io
import json
import posixpath
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlsplit

from PIL import Image as Pillow

from autolabel.errors import UsageError
from autolabel.types import Image
from autolabel_connectors.label_studio.http import Api, ServerError, TooLargeError, UnsureError
from autolabel_connectors.label_studio.remote import chunks
from autolabel_connectors.turns import Turns

if TYPE_CHECKING:
    from autolabel.connect import OnStep, PushOptions
    from autolabel.dataset import Run

MAX_FILES = 100
"""Label Studio takes 100 files in an upload, as it comes."""

MAX_BYTES = 24 * 2**20
_WORKERS = 2
_READ_AT_ONCE = 500
"""Numbers that fit into an address."""

_NAME_LENGTH = 32
_TYPES = {"JPEG": ("jpg", "image/jpeg"), "PNG": ("png", "image/png"), "GIF": ("gif", "image/gif"),
          "BMP": ("bmp", "image/bmp"), "WEBP": ("webp", "image/webp")}  # fmt: skip
_UPLOADED = re.compile(rf"-([0-9a-f]{{{_NAME_LENGTH}}})(?:_\w+)?\.\w+$")
_ROOT = re.compile(r'LOCAL_FILES_DOCUMENT_ROOT="([^"]+)"')
_CLOUDS = {"s3": "S3", "gs": "Google Cloud Storage", "azure-blob": "Azure Blob Storage"}


@dataclass(frozen=True, slots=True)
class Shown:
    """Where a task's image is: its address, and the number of its upload."""

    url: str
    upload: int | None = None


class Media(Protocol):
    """Puts images where people's browsers find them."""

    def show(self, images: Sequence[Image]) -> Mapping[str, Shown]:
        """Return where each image is, by path, after bringing there what is missing."""
        ...


def open_media(api: Api, run: Run, project: int, options: PushOptions, on_step: OnStep) -> Media:
    """Choose how images reach the server; raises UsageError where the choice needs more, or is CVAT's."""
    if options.media == "upload":
        return Uploads(api, run, project, on_step)
    if options.media == "share":
        raise UsageError("--media share is CVAT's; Label Studio reads files of its own machine with --media local")
    if not options.media_root:
        what = "s3://bucket/folder" if options.media == "cloud" else "/data/photos"
        raise UsageError(f"--media {options.media} needs --media-root, for example --media-root {what}")
    if options.media == "cloud":
        return Cloud(options.media_root.rstrip("/"))
    return LocalFiles(api, run, project, options.media_root)


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
                future = self.pool.submit(self._send_all, missing)
                self.coming.update(dict.fromkeys(map(_name, missing), future))
                self.queue.append(future)
            first = self.queue.popleft() if len(self.queue) > 2 * _WORKERS else None
        if first is not None:
            wait([first])

    def show(self, images: Sequence[Image]) -> dict[str, Shown]:
        """Upload what is missing, in parallel batches of bounded size; no file stays open."""
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

    def _send_all(self, images: Sequence[Image]) -> list[int]:
        """Upload files; returns their numbers there, by which they are looked up."""
        return [upload for batch in _batches(self.run, images) for upload in self._send(batch)]

    def _send(self, batch: Sequence[tuple[str, bytes, str]]) -> list[int]:
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


@dataclass(slots=True)
class LocalFiles:
    """Files that the server reads from its own disk, below its document root; a local storage lets people see them."""

    api: Api
    run: Run
    project: int
    root: str
    _document_root: str | None = None
    _folders: set[str] = field(default_factory=set)

    def show(self, images: Sequence[Image]) -> dict[str, Shown]:
        """Return addresses below ``/data/local-files/``; makes the storage that serves them if there is none."""
        root = posixpath.normpath(self.root)
        if self._document_root is None:
            self._document_root = self._ask_document_root(root)
        base = self._document_root
        found: dict[str, Shown] = {}
        for image in images:
            full = posixpath.join(root, self._relative(image))
            inside = posixpath.relpath(full, base)
            self._serve(root if root != base else posixpath.join(base, inside.split("/")[0]), inside)
            url = f"{urlsplit(self.api.url).path.rstrip('/')}/data/local-files/?d={quote(inside)}"
            if not found:
                self._try(url, full)
            found[image.path] = Shown(url)
        return found

    def _relative(self, image: Image) -> str:
        local = self.run.local_path(image)
        if local is not None and local.resolve().is_relative_to(self.root):
            return local.resolve().relative_to(self.root).as_posix()
        return image.path

    def _ask_document_root(self, root: str) -> str:
        """Learn the server's document root from what it says about a folder that cannot be in it."""
        problem = self._validate("/")
        if "LOCAL_FILES_SERVING_ENABLED" in problem and "DOCUMENT_ROOT" not in problem:
            raise UsageError(
                f"{self.api.url} serves no local files; start Label Studio with "
                "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true, or use --media upload"
            )
        match = _ROOT.search(problem)
        base = posixpath.normpath(match[1]) if match else root
        if base != root and not root.startswith(f"{base}/"):
            raise UsageError(
                f"--media-root {root} is not below the folder that {self.api.url} serves files from ({base}); set "
                "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT there, or move the images"
            )
        return base

    def _serve(self, folder: str, inside: str) -> None:
        """See to a local storage over ``folder``, as Label Studio serves only what one covers."""
        if folder in self._folders:
            return
        if "/" not in inside:
            raise UsageError(
                f"{inside!r} lies directly in Label Studio's document root, which it does not serve; move the images "
                "into a folder there"
            )
        storages = self.api.get("/api/storages/localfiles", {"project": self.project}, doing="read local storages")
        paths = [posixpath.normpath(str(storage.get("path"))) for storage in storages]
        if not any(folder == path or folder.startswith(f"{path}/") for path in paths):
            problem = self._validate(folder)
            if problem:
                raise UsageError(f"{self.api.url} cannot serve {folder}: {problem}")
            with self.api.asking("make a local storage") as sdk:
                sdk.import_storage.local.create(
                    project=self.project, path=folder, title="autolabel", use_blob_urls=True
                )
        self._folders.add(folder)

    def _validate(self, folder: str) -> str:
        """Ask whether the server could serve a folder; returns its objection, empty where there is none."""
        try:
            self.api.request(
                "POST",
                "/api/storages/localfiles/validate",
                body={"project": self.project, "path": folder, "use_blob_urls": True},
                repeatable=True,
                doing=f"ask whether {folder} can be served",
            )
        except ServerError as error:
            if error.status not in (400, 500):
                raise
            return str(error)
        return ""

    def _try(self, url: str, full: str) -> None:
        prefix = urlsplit(self.api.url).path.rstrip("/")
        if not self.api.exists(url.removeprefix(prefix)):
            raise UsageError(
                f"{self.api.url} does not find {full}; --media-root is the folder of the images as the server sees it"
            )


@dataclass(frozen=True, slots=True)
class Cloud:
    """Images in a bucket or on a web server: the prefix and their paths."""

    prefix: str

    def __post_init__(self) -> None:
        scheme = urlsplit(self.prefix).scheme
        if scheme not in (*_CLOUDS, "http", "https"):
            raise UsageError(
                f"--media-root must begin with s3://, gs://, azure-blob:// or https:// for --media cloud, got "
                f"{self.prefix!r}"
            )

    def show(self, images: Sequence[Image]) -> dict[str, Shown]:
        """Return the images' addresses."""
        web = self.prefix.startswith("http")
        return {image.path: Shown(f"{self.prefix}/{quote(image.path) if web else image.path}") for image in images}

    def warning(self, api: Api, project: int) -> str:
        """Say that the project has no storage to open such addresses with; empty where it has one."""
        name = _CLOUDS.get(urlsplit(self.prefix).scheme)
        if name is None:
            return ""
        kinds = [str(storage.get("type", "")) for storage in api.get("/api/storages", {"project": project})]
        wanted = {"S3": "s3", "Google Cloud Storage": "gcs", "Azure Blob Storage": "azure"}[name]
        if any(kind.startswith(wanted) for kind in kinds):
            return ""
        return f"the project has no {name} source, so people will see no images; add one under Settings → Cloud Storage"


def _name(image: Image) -> str:
    return image.id[:_NAME_LENGTH]


def _batches(run: Run, images: Iterable[Image]) -> Iterator[list[tuple[str, bytes, str]]]:
    """Read files into batches of bounded count and size, each ``(file name, bytes, type)``."""
    batch: list[tuple[str, bytes, str]] = []
    size = 0
    for image in images:
        data, extension, kind = browsable(run, image)
        if batch and (len(batch) >= MAX_FILES or size + len(data) > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((f"{_name(image)}.{extension}", data, kind))
        size += len(data)
    if batch:
        yield batch


def browsable(run: Run, image: Image) -> tuple[bytes, str, str]:
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
