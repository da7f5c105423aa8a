"""Tasks for images that have none in the project yet: composed ahead, sent in bulk calls, recorded meanwhile.

One call is under way at a time, and no upload beside it: Label Studio's own database takes one writer, and a second one
waits longer than it would have to, or is refused. While the server works on a call, the next one is composed in a
thread, and the receipts of the last one are written in another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING

from pydantic_core import to_json

from autolabel.types import AnnotatedImage, Image
from autolabel_connectors.ahead import Ahead
from autolabel_connectors.label_studio.compose import Wanted
from autolabel_connectors.label_studio.errors import TooLargeError, UnsureError
from autolabel_connectors.label_studio.remote import chunks
from autolabel_connectors.label_studio.session import WINDOW, Session, count_regions
from autolabel_connectors.ranking import priority

if TYPE_CHECKING:
    from autolabel_connectors.label_studio.existing import Existing
    from autolabel_connectors.label_studio.uploads import Shown

FIRST, LATER = 64, 250
"""A push's first call may be this small, so that the server has something to do early; what follows is composed
meanwhile. Each costs the server a tenth of a second however small it is."""

TOGETHER, MORE_UPLOADS = 25, 100
"""Images that are composed together, as their masks are drawn in as many steps as one, and uploaded: a few at first."""

MAX_BYTES = 16 * 2**20
_ROOM_BYTES = 4 * MAX_BYTES
_MOST_HELD = 20_000
"""Images that are kept in memory to be put in order; of a larger run, the others are read twice."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """A task to be made, its predictions written out as JSON."""

    wanted: Wanted
    predictions: bytes

    def task(self, shown: Shown, image_key: str) -> bytes:
        """Write the task as JSON."""
        data = to_json(self.wanted.data(shown.url, image_key))
        upload = b"" if shown.upload is None else b',"file_upload_id":%d' % shown.upload
        return b'{"data":%b%b%b}' % (data, upload, self.predictions)


class Additions:
    """What a project lacks, beside what ``existing`` saw there; composing begins at once. A context manager."""

    def __init__(self, session: Session, existing: Existing) -> None:
        self._session, self._existing = session, existing
        self._deleted = 0
        self._closed = False
        self._beside = ThreadPoolExecutor(1, "receipts")
        self._written: Future[None] | None = None
        self._ahead = Ahead(self._made_ready(), _ROOM_BYTES)

    def __enter__(self) -> Additions:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Compose no more, and have all receipts written."""
        self._closed = True
        self._ahead.close()
        self._beside.shutdown()
        self._wait()

    def _wait(self) -> None:
        if self._written is not None:
            self._written.result()

    def preview(self) -> None:
        """Say what would be made."""
        while ready := self._ahead.take(1, WINDOW, MAX_BYTES):
            for one in ready:
                self._session.account.tell("create task", one.wanted.image.path, count_regions(len(one.wanted.marks)))
        self._tell_deleted()

    def send(self) -> int:
        """Make the tasks, in the order asked for; returns how many were sent."""
        session, sent = self._session, 0
        least = session.limit if session.uploads else FIRST
        while ready := self._ahead.take(least, session.limit, MAX_BYTES):
            for window, ids in self._made(ready):
                sent += len(window)
                self._wait()
                self._written = self._beside.submit(self._record, window, ids)
            least = max(least, LATER)
        self._tell_deleted()
        return sent

    # What is lacking ----------------------------------------------------------------------------------------------

    def _made_ready(self) -> Iterator[tuple[_Ready, int]]:
        """Compose tasks, and begin to upload their images; each with its size in bytes."""
        uploads, pending = None, list[Image]()
        for batch in chunks(self._lacking(), TOGETHER):
            pending += [item.image for item in batch]
            uploads = None if self._session.dry else self._session.uploads
            if uploads and len(pending) >= (MORE_UPLOADS if uploads.coming else TOGETHER):
                uploads.prepare(pending)
                pending = []
            for wanted in self._session.composer.compose_all(batch):
                predictions = b',"predictions":[%b]' % to_json(wanted.prediction) if wanted.result else b""
                yield _Ready(wanted, predictions), 200 + len(predictions)
        if uploads:
            uploads.prepare(pending)

    def _lacking(self) -> Iterator[AnnotatedImage]:
        session, existing = self._session, self._existing
        paths: set[str] | None = None
        for item in self._ordered():
            image = item.image
            if (image.id, image.path) in existing.seen:
                continue
            noted = None if session.project.made else session.receipts.noted(session.task_note(image.path))
            if noted is not None and noted[0] == image.id:
                self._deleted += 1
                continue
            if image.id in existing.by_content:
                if paths is None:
                    paths = {other.path for other in session.run.images()}
                if not paths.issuperset(path for (_, path), _ in existing.by_content[image.id]):
                    session.account.warn(
                        f"{image.path}: the project has this image under another path; its task there is left, and a "
                        "new one is made"
                    )
            yield item

    def _ordered(self) -> Iterator[AnnotatedImage]:
        session = self._session
        if session.options.order == "path":
            return iter(session.run)
        ranked: list[tuple[float, str]] = []
        held: dict[str, AnnotatedImage] = {}
        for item in session.run:
            if self._closed:
                return iter(())
            doubts = session.issues.get(item.image.path, ())
            ranked.append((-priority(item, doubts, session.options.order), item.image.path))
            if len(held) < _MOST_HELD:
                held[item.image.path] = item
        return (held.pop(path) if path in held else session.run[path] for _, path in sorted(ranked))

    def _tell_deleted(self) -> None:
        if not self._deleted:
            return
        session = self._session
        session.account.counts["images left out whose tasks were deleted there"] = self._deleted
        session.account.warn(
            f"{self._deleted} images had tasks that somebody deleted in Label Studio; they stay deleted. To push them "
            f"again, remove the folder of this project in {session.run.path / 'sync'}"
        )

    # Sending ------------------------------------------------------------------------------------------------------

    def _made(self, window: Sequence[_Ready]) -> Iterator[tuple[Sequence[_Ready], list[int]]]:
        """Make the tasks of one window with their predictions, in one request; smaller ones where that is too big.

        Yields what was made, with the tasks' numbers in order.
        """
        session = self._session
        assert session.media is not None
        images: list[Image] = [one.wanted.image for one in window]
        shown = session.media.show(images)
        key = session.project.controls.image_key
        body = b"[%b]" % b",".join(one.task(shown[one.wanted.image.path], key) for one in window)
        session.in_flight.update({one.wanted.key: count_regions(len(one.wanted.marks)) for one in window})
        ids = self._import(window, body)
        if not ids:
            middle = len(window) // 2
            yield from self._made(window[:middle])
            yield from self._made(window[middle:])
            return
        for one in window:
            session.account.tell("create task", one.wanted.image.path, session.in_flight.pop(one.wanted.key))
        session.account.counts["regions sent"] += sum(len(one.wanted.marks) for one in window)
        session.on_step("tasks", session.account.counts["create task"], len(session.run))
        yield window, ids

    def _import(self, window: Sequence[_Ready], body: bytes) -> list[int]:
        """Send one request; returns the tasks' numbers in order, none where the request was too large."""
        session = self._session
        try:
            with session.uploads.turns.alone() if session.uploads else nullcontext():
                answer = session.api.request(
                    "POST",
                    f"/api/projects/{session.project.id}/import",
                    params={"return_task_ids": "true"},
                    content=body,
                    doing=f"make {len(window)} tasks",
                )
        except TooLargeError:
            if len(window) == 1:
                raise
            session.limit = max(1, len(window) // 2)
            return []
        predicted = sum(bool(one.predictions) for one in window)
        ids = answer.get("task_ids") or []
        if len(ids) != len(window) or answer.get("prediction_count") != predicted:
            raise UnsureError(
                f"of {len(window)} tasks and {predicted} predictions the server kept {answer.get('task_count')} and "
                f"{answer.get('prediction_count')}"
            )
        return [int(task) for task in ids]

    def _record(self, window: Sequence[_Ready], ids: Sequence[int]) -> None:
        """Write down what was made, in one go."""
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        pairs = [(one.wanted, task) for one, task in zip(window, ids, strict=True)]
        self._session.receipts.put(
            [receipt for wanted, task in pairs for receipt in wanted.receipts(task, now)],
            {self._session.task_note(wanted.image.path): [wanted.image.id, task] for wanted, task in pairs},
        )
