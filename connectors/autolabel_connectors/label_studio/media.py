"""How a task comes to show its image: an upload, a file that the server reads from its own disk, or an address."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlsplit

from autolabel.errors import UsageError
from autolabel.types import Image
from autolabel_connectors.label_studio.errors import ServerError
from autolabel_connectors.label_studio.http import Api
from autolabel_connectors.label_studio.uploads import Shown, Uploads

if TYPE_CHECKING:
    from autolabel.connect import OnStep, PushOptions
    from autolabel.dataset import Run

_ROOT = re.compile(r'LOCAL_FILES_DOCUMENT_ROOT="([^"]+)"')
_CLOUDS = {"s3": "S3", "gs": "Google Cloud Storage", "azure-blob": "Azure Blob Storage"}


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
