"""New tasks for images that the project does not show yet: created, filled, and finished after a cut."""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolabel.connect import OnStep, PushOptions
from autolabel.errors import ServerError, UsageError
from autolabel.types import Image
from autolabel_connectors.cvat.client import Cvat, Row, wait_for
from autolabel_connectors.cvat.errors import DeniedError, StuckError, TooLargeError, UncertainError
from autolabel_connectors.cvat.frames import file_name, file_type, server_file

if TYPE_CHECKING:
    from autolabel.dataset import Run

logger = logging.getLogger(__name__)

REQUEST_BYTES = 32 * 2**20
"""Files go together up to this size; a larger one goes alone, by TUS in pieces of 10 MiB."""

PATIENCE_SECONDS = 3600.0
"""How long a task may be in the making."""

_SMALLEST_REQUEST = 2**16
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Uploads:
    """How images reach the server. ``quality``: JPEG quality of what people see; the originals stay."""

    server: Cvat
    project: int
    options: PushOptions
    folder: Path
    images_per_job: int
    quality: int

    def sweep(self) -> None:
        """Remove what a killed process left in the staging folder."""
        for leftover in self.folder.glob("upload-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def make(self, run: Run, name: str, images: Sequence[Image], on_step: OnStep) -> int:
        """Make a task that shows ``images`` in this order and return its id; raises ServerError, UsageError."""
        size, tries = REQUEST_BYTES, 0
        with tempfile.TemporaryDirectory(prefix="upload-", dir=self.folder) as staging:
            files = None if self._on_server else _staged(run, images, Path(staging), on_step)
            while True:
                tries += 1
                task = self._task(name)
                try:
                    self._fill(task, images, files, size, on_step)
                except (DeniedError, StuckError):
                    raise
                except ServerError as error:
                    if self._finished(task, len(images)):
                        return task
                    self.remove(task)
                    if isinstance(error, TooLargeError) and size > _SMALLEST_REQUEST:
                        size, tries = size // 4, tries - 1
                    elif tries == _TRIES or not isinstance(error, UncertainError | TooLargeError):
                        raise
                    logger.warning("%s; making the task again", error)
                else:
                    return task

    def finish(self, row: Row) -> bool:
        """Wait for a task of ours that has no images yet, or remove it; returns whether it has images now."""
        if self._finished(int(row["id"]), None):
            return True
        self.remove(int(row["id"]))
        return False

    def remove(self, task: int) -> None:
        """Remove a task that holds no image, and so no work; leaves any other alone."""
        row = self.server.find(f"/api/tasks/{task}")
        if row is None or row.get("size"):
            return
        for last in (False, True):
            try:
                self.server.call("DELETE", f"/api/tasks/{task}")
            except UncertainError:
                if last:
                    raise
            if self.server.find(f"/api/tasks/{task}") is None:
                return

    @property
    def _on_server(self) -> bool:
        return self.options.media in {"share", "cloud"}

    def _task(self, name: str) -> int:
        """Create an empty task, or find the one that a lost answer was about."""
        body = {"name": name, "project_id": self.project, "segment_size": self.images_per_job}
        for _ in range(_TRIES):
            try:
                return int(self.server.call("POST", "/api/tasks", body=body)["id"])
            except UncertainError as error:
                for row in self.server.listed("/api/tasks", project_id=self.project):
                    if row["name"] == name and not row.get("size"):
                        return int(row["id"])
                lost = error
        raise lost

    def _fill(self, task: int, images: Sequence[Image], files: list[Path] | None, size: int, on_step: OnStep) -> None:
        data: dict[str, Any] = {"image_quality": self.quality, "sorting_method": "predefined"}
        if files is None:
            data |= {"server_files": [server_file(image, self.options.media_root) for image in images]}
            data |= {"use_cache": True, "copy_data": False}
            if self.options.media == "cloud":
                data |= {"cloud_storage_id": self.options.storage_id}
            said = self.server.call("POST", f"/api/tasks/{task}/data/", body=data) or {}
            rq_id = said.get("rq_id") if isinstance(said, dict) else None
        else:
            progress = _progress(lambda done, total: on_step("upload", done, total))
            rq_id = self.server.upload(task, files, size, progress, data)
        status = self._wait(rq_id or creation_of(task), task)
        if status is not None and status["status"] == "failed":
            raise ServerError(self._why(status))
        row = self.server.get(f"/api/tasks/{task}")
        if row.get("size") != len(images):
            raise UncertainError(
                f"task {task} shows {row.get('size') or 0} images, not the {len(images)} that were sent"
            )

    def _finished(self, task: int, count: int | None) -> bool:
        """Wait while the server works on a task's images, and tell whether they are there."""
        self._wait(creation_of(task), task)
        row = self.server.find(f"/api/tasks/{task}")
        size = 0 if row is None else row.get("size") or 0
        return size > 0 if count is None else size == count

    def _wait(self, request: str, task: int) -> Row | None:
        """Wait for the server to make a task of its images; raises StuckError when it does not get to it."""
        status = wait_for(self.server, request, patience=PATIENCE_SECONDS)
        if status is not None and status["status"] not in ("finished", "failed"):
            raise StuckError(
                f"{self.server.url} has not made task {task} of its images in {PATIENCE_SECONDS / 60:.0f} minutes "
                f"({status['status']}); see that its import workers run, then run the same command again"
            )
        return status

    def _why(self, status: Mapping[str, Any]) -> str:
        lines = [line for line in str(status.get("message") or "no reason given").strip().splitlines() if line.strip()]
        said = lines[-1][:400] if lines else "no reason given"
        remedy = {
            "share": "check that the share is mounted in CVAT and --media-root is the folder below it",
            "cloud": "check the storage id, that CVAT may read the bucket, and --media-root",
        }.get(self.options.media, "open the image it names; convert it to PNG or JPEG if CVAT cannot read it")
        return f"the server could not make a task of the images: {said}; {remedy}"


def check_media(options: PushOptions) -> None:
    """Raise UsageError where the options do not say how CVAT gets the images."""
    if options.media == "local":
        raise UsageError("CVAT serves no local files; use media = share (a folder mounted in CVAT), cloud, or upload")
    if options.media == "cloud" and options.storage_id is None:
        raise UsageError(
            "media = cloud needs the id of a cloud storage that CVAT knows (its page 'Cloud storages' shows it): "
            "give --storage-id"
        )


def creation_of(task: int) -> str:
    """Id of the background request that makes a task of its images."""
    return f"action=create&target=task&target_id={task}"


def _staged(run: Run, images: Sequence[Image], folder: Path, on_step: OnStep) -> list[Path]:
    """Lay the images' files into a folder under the names they will have; raises StoreError for a changed one."""
    files = []
    for done, image in enumerate(images):
        on_step("images", done, len(images))
        path = folder / file_name(image)
        if file_type(image).lower() == ".png" and not image.path.lower().endswith(".png"):
            path.write_bytes(_as_png(run, image))
        else:
            path.write_bytes(run.read_bytes(image))
        files.append(path)
    on_step("images", len(images), len(images))
    return files


def _as_png(run: Run, image: Image) -> bytes:
    from PIL import Image as Pillow

    buffer = io.BytesIO()
    Pillow.fromarray(run.read_image(image)).save(buffer, "PNG")
    return buffer.getvalue()


def _progress(report: Callable[[int, int], None]) -> Any:
    """Make an SDK progress reporter of a function of bytes done and bytes in all."""
    from cvat_sdk.core.progress import BaseProgressReporter

    class Reporter(BaseProgressReporter):  # type: ignore[misc]  # without cvat-sdk it is Any
        done = 0
        total = 0

        def start2(self, total: int, **options: Any) -> None:
            super().start2(total=total, **options)
            self.done, self.total = 0, total

        def report_status(self, progress: int) -> None:
            super().report_status(progress)
            self._show(progress)

        def advance(self, delta: int) -> None:
            super().advance(delta)
            self._show(self.done + delta)

        def _show(self, done: int) -> None:
            self.done = done
            report(min(max(done, 0), self.total), self.total)

    return Reporter()
