"""The images of a push: which of them the project shows already, and tasks for those that it does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from autolabel.errors import ServerError
from autolabel.types import Image
from autolabel.wording import counted
from autolabel_connectors.cvat.compose import message_of
from autolabel_connectors.cvat.frames import (
    Frame,
    Key,
    OurTask,
    Placement,
    find_places,
    noted_frames,
    remember_task,
    task_name,
)
from autolabel_connectors.cvat.review import by_region
from autolabel_connectors.cvat.session import ROUNDS, Session, named
from autolabel_connectors.cvat.upload import Uploads
from autolabel_connectors.ranking import priority
from autolabel_connectors.receipts import FOLDER

TASK_IMAGES = 500
JOB_IMAGES = 100
QUALITY = 95


@dataclass(slots=True)
class Images:
    """The images of one push, by path."""

    session: Session
    images: dict[str, Image]

    def settle(self) -> Placement:
        """Make tasks for images that have none, and tell where all are; with a dry run tell what would be made."""
        session = self.session
        placement = self._place()
        new = list(self._new(placement))
        if new and session.dry:
            self._foretell(new, placement)
        elif new:
            self._make_tasks(placement, new)
            placement = self._place()
        strangers = sum(not self._ours(path, uid) for path, uid in placement.places)
        session.account.counts["images left that the run does not have (any more)"] = strangers
        return placement

    def to_show(self, task: OurTask, placement: Placement) -> list[Frame]:
        """Frames of a task whose regions are ours to bring up to date: each image once, in the size the run knows."""
        frames = [f for f in task.frames if placement.places[f.path, f.image_id] == (task.id, f)]
        if len(frames) < len(task.frames):
            self.session.account.warn(f"task {task.id} shows images that another task shows too; delete one of them")
        return list(self._fitting(f for f in frames if self._ours(f.path, f.image_id)))

    def _ours(self, path: str, image_id: str) -> bool:
        return path in self.images and self.images[path].id == image_id

    def _fitting(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        for frame in frames:
            image = self.images[frame.path]
            if (frame.width, frame.height) == (image.width, image.height):
                yield frame
                continue
            self.session.account.warn(
                f"{frame.path}: CVAT shows it as {frame.width}x{frame.height} px, the run has {image.width}x"
                f"{image.height} px, so its regions are not sent; convert the image to PNG"
            )

    def _place(self) -> Placement:
        session = self.session
        if not session.project.id:
            return Placement()
        for _ in range(ROUNDS):
            show = lambda done, total: session.on_step("look for images", done, total)  # noqa: E731
            placement = find_places(session.server, session.project.id, session.receipts, self.images, show)
            half = [row for row in placement.half if str(row["name"]).startswith(f"{session.run.name} ")]
            if not half:
                return placement
            for row in half:
                session.account.tell("finish task", detail=f"task {row['id']} was left without images")
                if not session.dry:
                    self._uploads().finish(row)
            if session.dry:
                return placement
        raise ServerError(f"{session.server.url} keeps tasks without images; delete them there and run push again")

    def _new(self, placement: Placement) -> Iterator[Image]:
        """Images without a frame, in the order in which people should get them."""
        session = self.session
        deleted: set[Key] = set()
        for task in placement.gone:
            deleted |= set(noted_frames(session.receipts, task) or ())
        elsewhere = placement.skipped(session.receipts)
        left = Counter[str]()
        for image in self._ordered():
            key = (image.path, image.id)
            if key in placement.places:
                continue
            if key in deleted or key in elsewhere:
                left["deleted" if key in deleted else "moved"] += 1
                continue
            yield image
        if left["deleted"]:
            session.account.counts["images left out whose tasks were deleted there"] = left["deleted"]
            session.account.warn(
                f"{counted(left['deleted'], 'images')} left out: somebody deleted the tasks in CVAT, and they stay "
                f"deleted. To push them again, remove the folder of this project in {session.run.path / FOLDER}"
            )
        if left["moved"]:
            session.account.counts["images left out whose tasks are elsewhere"] = left["moved"]
            session.account.warn(
                f"{counted(left['moved'], 'images')} left out: the tasks were moved to another project, or this user "
                "may not see them"
            )

    def _ordered(self) -> list[Image]:
        order, run = self.session.options.order, self.session.run
        if order == "path":
            return [self.images[path] for path in sorted(self.images)]
        issues = self.session.composer.issues
        ranked = [(-priority(item, issues.get(item.image.path, ()), order), item.image.path) for item in run]
        return [self.images[path] for _, path in sorted(ranked) if path in self.images]

    def _make_tasks(self, placement: Placement, images: Sequence[Image]) -> None:
        session, uploads = self.session, self._uploads()
        uploads.sweep()
        for name, chunk in self._chunks(images, placement):
            task = uploads.make(session.run, name, chunk, session.on_step)
            remember_task(session.receipts, task, [(image.path, image.id) for image in chunk])
            session.account.tell("create task", detail=f"{name}, {counted(len(chunk), 'images')}")

    def _foretell(self, images: Sequence[Image], placement: Placement) -> None:
        account, composer = self.session.account, self.session.composer
        for name, chunk in self._chunks(images, placement):
            account.tell("create task", detail=f"{name}, {counted(len(chunk), 'images')}")
            for frame, image in enumerate(chunk):
                wanted = composer.compose(self.session.run[image.path], frame, len(chunk))
                for annotation in wanted.annotations.values():
                    account.tell("create region", image.path, named(annotation.label, annotation.score))
                for _, _, doubts in by_region(composer.doubts(image), wanted):
                    account.tell("raise issue", image.path, message_of(doubts))

    def _chunks(self, images: Sequence[Image], placement: Placement) -> Iterator[tuple[str, list[Image]]]:
        """Deal images out to tasks, each with its name."""
        first = 1 + len(placement.tasks) + len(placement.gone) + len(placement.moved)
        for number, start in enumerate(range(0, len(images), TASK_IMAGES), first):
            chunk = list(images[start : start + TASK_IMAGES])
            yield task_name(self.session.run.name, number, [(image.path, image.id) for image in chunk]), chunk

    def _uploads(self) -> Uploads:
        session = self.session
        folder = session.run.path / FOLDER
        folder.mkdir(exist_ok=True)
        return Uploads(session.server, session.project.id, session.options, folder, JOB_IMAGES, QUALITY)
