"""Bringing a project up to date with a run: look at what the server holds, send what differs, look again.

Nothing rests on an answer having arrived. Each task is read, compared with the run and its receipts, sent what differs,
and read again until nothing differs; what is about to be sent is written down first (`ledger`), so that after a lost
answer or a kill our own doing is not taken for a person's. Regions that a person moved, renamed, marked or deleted, and
frames whose job is at review or done, are left as they are. Right before an update or a deletion the task is read once
more: CVAT would bring a shape back that somebody has just deleted.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from autolabel.connect import Change, PushReport
from autolabel.errors import ServerError
from autolabel.types import Correction, Image, LabelIssue
from autolabel_connectors.cvat.client import Cvat, Row, as_moment
from autolabel_connectors.cvat.compose import Composer, Wanted, marked, message_of, part_digest, payload_of
from autolabel_connectors.cvat.errors import GoneError, TooLargeError, UncertainError
from autolabel_connectors.cvat.frames import (
    Frame,
    Key,
    OurTask,
    Placement,
    find_places,
    known_tasks,
    noted_frames,
    remember_task,
    task_name,
)
from autolabel_connectors.cvat.held import HeldImage, HeldTask, batches_done, homes_of, look_at, read_task
from autolabel_connectors.cvat.ledger import Deed, Intent, read_ledger, write_ledger
from autolabel_connectors.cvat.project import Project, gone, open_project
from autolabel_connectors.cvat.review import by_region, raise_issues
from autolabel_connectors.cvat.upload import Uploads
from autolabel_connectors.merge import Plan, added_id, plan
from autolabel_connectors.ranking import model_version, priority
from autolabel_connectors.receipts import FOLDER, Receipt
from autolabel_connectors.shapes import Region

if TYPE_CHECKING:
    from autolabel.connect import OnStep, PushOptions, Target
    from autolabel.dataset import Run
    from autolabel_connectors.receipts import Receipts

TASK_IMAGES = 500
JOB_IMAGES = 100
QUALITY = 95
MAX_BYTES = 8 * 2**20
MAX_SHAPES = 5000
_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Send:
    """One annotation's shapes for one request, and the intent to write down first."""

    action: Deed
    shapes: list[Row]
    intent: Intent | None


@dataclass(slots=True)
class Push:
    """One push of a run to a project; `run_all` does it."""

    server: Cvat
    run: Run
    target: Target
    options: PushOptions
    receipts: Receipts
    on_step: OnStep
    counts: Counter[str] = field(default_factory=Counter)
    changes: list[Change] = field(default_factory=list)
    warnings: dict[str, None] = field(default_factory=dict)
    issues: dict[str, list[LabelIssue]] = field(default_factory=dict)
    limit_bytes: int = MAX_BYTES
    own_ids: set[str] = field(default_factory=set)
    _composer: Composer | None = None
    _told: set[tuple[str, str]] = field(default_factory=set)

    def run_all(self) -> PushReport:
        """Push until the server holds what it should; raises ServerError where it never does."""
        for issue in self.run.issues():
            self.issues.setdefault(issue.path, []).append(issue)
        dry = self.options.dry_run
        project = open_project(self.server, self.target.project, self.run.labels, self.options.shape, dry_run=dry)
        # What people drew in an earlier project of this name, deleted since, is not in this one: it is pushed.
        self.own_ids = {
            c.annotation_id
            for c in self.run.corrections()
            if isinstance(c, Correction)
            and c.action == "added"
            and c.source == self.target.source
            and project.id
            and c.at >= as_moment(project.created)
        }
        if project.made:
            self._tell("create project", detail=project.name)
        self._remember(project)
        self.warnings.update(dict.fromkeys(project.warnings))
        self._composer = Composer(project.labels, self.options, model_version(self.run), self.issues)
        try:
            self._images_and_regions(project)
        except GoneError as error:
            raise gone(self.server, project, error) from None
        self.warnings.update(self._composer.warnings)
        counts = {name: count for name, count in sorted(self.counts.items()) if count}
        return PushReport(project.url(self.server), counts, tuple(self.changes), tuple(self.warnings))

    def _images_and_regions(self, project: Project) -> None:
        images = {image.path: image for image in self.run.images()}
        placement = self._place(project, images)
        new = list(self._new_images(placement, images))
        if new and self.options.dry_run:
            self._foretell(new, placement)
        elif new:
            self._make_tasks(project, placement, new)
            placement = self._place(project, images)
        strangers = sum(key[0] not in images or images[key[0]].id != key[1] for key in placement.places)
        self.counts["images left that the run does not have (any more)"] = strangers
        for done, task in enumerate(placement.tasks):
            self.on_step("tasks", done, len(placement.tasks))
            frames = [f for f in task.frames if placement.places[f.path, f.image_id] == (task.id, f)]
            if len(frames) < len(task.frames):
                self.warnings[f"task {task.id} shows images that another task shows too; delete one of them"] = None
            frames = [f for f in frames if f.path in images and images[f.path].id == f.image_id]
            if not self.options.dry_run and task.id not in known_tasks(self.receipts):
                self._remember_task(task)
            TaskSync(self, project, task, self._fitting(frames, images)).run_all()
        self.on_step("tasks", len(placement.tasks), len(placement.tasks))

    # Images -------------------------------------------------------------------------------------------------------

    def _place(self, project: Project, images: dict[str, Image]) -> Placement:
        if not project.id:
            return Placement()
        for _ in range(_ROUNDS):
            show = lambda done, total: self.on_step("look for images", done, total)  # noqa: E731
            placement = find_places(self.server, project.id, self.receipts, images, show)
            half = [row for row in placement.half if str(row["name"]).startswith(f"{self.run.name} ")]
            if not half:
                return placement
            for row in half:
                self._tell("finish task", detail=f"task {row['id']} was left without images")
                if not self.options.dry_run:
                    self._uploads(project).finish(row)
            if self.options.dry_run:
                return placement
        raise ServerError(f"{self.server.url} keeps tasks without images; delete them there and run push again")

    def _new_images(self, placement: Placement, images: dict[str, Image]) -> Iterator[Image]:
        """Images without a frame, in the order in which people should get them."""
        deleted: set[Key] = set()
        for task in placement.gone:
            deleted |= set(noted_frames(self.receipts, task) or ())
        elsewhere = placement.skipped(self.receipts)
        left = Counter[str]()
        for image in self._ordered(images):
            key = (image.path, image.id)
            if key in placement.places:
                continue
            if key in deleted or key in elsewhere:
                left["deleted" if key in deleted else "moved"] += 1
                continue
            yield image
        folder = self.run.path / FOLDER
        if left["deleted"]:
            self.counts["images left out whose tasks were deleted there"] = left["deleted"]
            self.warnings[
                f"{left['deleted']} images were in tasks that somebody deleted in CVAT; they stay deleted. To push "
                f"them again, remove the folder of this project in {folder}"
            ] = None
        if left["moved"]:
            self.counts["images left out whose tasks are elsewhere"] = left["moved"]
            self.warnings[
                f"{left['moved']} images are in tasks that were moved to another project, or that this user may not "
                "see; they are left there"
            ] = None

    def _ordered(self, images: dict[str, Image]) -> list[Image]:
        order = self.options.order
        if order == "path":
            return [images[path] for path in sorted(images)]
        ranked = [(-priority(i, self.issues.get(i.image.path, ()), order), i.image.path) for i in self.run]
        return [images[path] for _, path in sorted(ranked) if path in images]

    def _make_tasks(self, project: Project, placement: Placement, images: Sequence[Image]) -> None:
        uploads = self._uploads(project)
        uploads.sweep()
        first = 1 + len(placement.tasks) + len(placement.gone) + len(placement.moved)
        for number, chunk in self._chunks(images, first):
            keys = [(image.path, image.id) for image in chunk]
            name = task_name(self.run.name, number, keys)
            task = uploads.make(self.run, name, chunk, self.on_step)
            remember_task(self.receipts, task, keys)
            self._tell("create task", detail=f"{name}, {len(chunk)} images")

    def _foretell(self, images: Sequence[Image], placement: Placement) -> None:
        assert self._composer is not None
        first = 1 + len(placement.tasks) + len(placement.gone) + len(placement.moved)
        for number, chunk in self._chunks(images, first):
            name = task_name(self.run.name, number, [(image.path, image.id) for image in chunk])
            self._tell("create task", detail=f"{name}, {len(chunk)} images")
            for frame, image in enumerate(chunk):
                wanted = self._composer.compose(self.run[image.path], frame, len(chunk))
                for annotation in wanted.annotations.values():
                    self._tell("create region", image.path, _named(annotation.label, annotation.score))
                for _, _, doubts in by_region(self._composer.doubts(image), wanted):
                    self._tell("raise issue", image.path, message_of(doubts))

    @staticmethod
    def _chunks(images: Sequence[Image], first: int) -> Iterator[tuple[int, list[Image]]]:
        for number, start in enumerate(range(0, len(images), TASK_IMAGES), first):
            yield number, list(images[start : start + TASK_IMAGES])

    def _uploads(self, project: Project) -> Uploads:
        folder = self.run.path / FOLDER
        folder.mkdir(exist_ok=True)
        return Uploads(self.server, project.id, self.options, folder, JOB_IMAGES, QUALITY)

    def _fitting(self, frames: Iterable[Frame], images: dict[str, Image]) -> list[Frame]:
        """Frames that show the image in the size that the run knows."""
        fit = []
        for frame in frames:
            image = images[frame.path]
            if (frame.width, frame.height) != (image.width, image.height):
                self.warnings[
                    f"{frame.path}: CVAT shows it as {frame.width}x{frame.height} px, the run has {image.width}x"
                    f"{image.height} px, so its regions are not sent; convert the image to PNG"
                ] = None
                continue
            fit.append(frame)
        return fit

    # Memory -------------------------------------------------------------------------------------------------------

    def _remember(self, project: Project) -> None:
        """Note which project this is; receipts of one that was deleted say nothing about it."""
        if self.options.dry_run or self.receipts.noted("project") == project.identity:
            return
        self.receipts.drop(list(self.receipts))
        self.receipts.note("tasks", [])
        self.receipts.note("project", project.identity)

    def _remember_task(self, task: OurTask) -> None:
        """Note a task of ours that was found by the names of its frames."""
        if [frame.number for frame in task.frames] == list(range(len(task.frames))):
            remember_task(self.receipts, task.id, [(frame.path, frame.image_id) for frame in task.frames])

    def _tell(self, what: str, path: str = "", detail: str = "", key: str = "") -> None:
        """Report a change, once however often it has to be sent."""
        if key and (what, key) in self._told:
            return
        self._told.add((what, key))
        self.counts[what] += 1
        self.changes.append(Change(what, path, detail))


@dataclass(slots=True)
class TaskSync:
    """Brings the regions of one task up to date."""

    push: Push
    project: Project
    task: OurTask
    frames: list[Frame]
    wanted: dict[int, Wanted] = field(default_factory=dict)
    answered: set[int] = field(default_factory=set)
    batches: int = 0

    def run_all(self) -> None:
        """Send and look again until nothing differs; raises ServerError where that never comes."""
        push = self.push
        assert push._composer is not None
        total = len(self.task.frames)
        size = int(self.task.row.get("size") or total)
        for frame in self.frames:
            self.wanted[frame.number] = push._composer.compose(push.run[frame.path], frame.number, size)
        last: ServerError | None = None
        for number in range(_ROUNDS):
            held = read_task(push.server, self.task.id)
            sends, kept = self._look(held)
            if push.options.dry_run or not sends:
                push.counts["regions left as people have them"] += kept
                if not push.options.dry_run:
                    write_ledger(push.receipts, self.task.id, [])
                raise_issues(push, self.task, self.frames, held, self.wanted)
                return
            try:
                self._send(sends, held)
            except TooLargeError:
                if push.limit_bytes < 2**10:
                    raise
                push.limit_bytes //= 4
            except UncertainError as error:
                last = error
                time.sleep(push.server.pace * min(5.0, 0.1 * 2**number))
        raise ServerError(
            f"{push.server.url} does not keep the regions of task {self.task.id} ({last or 'they differ each time'}); "
            "see its log, then run the same command again"
        )

    def _look(self, held: HeldTask) -> tuple[list[Send], int]:
        """Compare with the run; returns what has to be sent, and how many regions stay as people have them."""
        push = self.push
        assert push._composer is not None
        ledger = read_ledger(push.receipts, self.task.id)
        done = batches_done(ledger, held, self.project.labels) | self.answered
        sends: list[Send] = []
        put: list[Receipt] = []
        drop: list[Receipt] = []
        kept = 0
        homes = homes_of(push.receipts, self.wanted.values())
        for frame in self.frames:
            wanted = self.wanted[frame.number]
            image = look_at(
                wanted.image,
                held.shapes.get(frame.number, []),
                push.receipts.of(frame.path),
                ledger=ledger,
                done_batches=done,
                composer=push._composer,
                wanted=wanted,
                task=self.task.id,
                homes=homes,
            )
            put += image.put
            drop += image.drop
            found = self._plan(frame, held, image, wanted)
            kept += found.kept
            sends += self._sends(frame, image, wanted, found)
            if not frame.deleted and not held.closed(frame.number):
                sends += [Send("delete", [twin], None) for twin in image.twins]
        if not push.options.dry_run:
            known = {(r.path, r.annotation_id): r for f in self.frames for r in push.receipts.of(f.path)}
            push.receipts.put([r for r in put if known.get((r.path, r.annotation_id)) != r])
            push.receipts.drop(drop)
        return sends, kept

    def _plan(self, frame: Frame, held: HeldTask, image: HeldImage, wanted: Wanted) -> Plan:
        source, push = self.push.target.source, self.push
        own = {added_id(source, str(self.task.id), region.remote_id) for region in image.comparison.added}
        found = plan(
            list(wanted.annotations.values()),
            image.comparison,
            lambda annotation: payload_of(wanted.shapes[annotation.id]),
            own_ids=own | push.own_ids,
            closed=frame.deleted or held.closed(frame.number),
        )
        # Somebody changed no outline but an attribute, a flag, the order: theirs, too.
        update = tuple(entry for entry in found.update if not _touched(image, *entry[1:]))
        delete = tuple(entry for entry in found.delete if not _touched(image, *entry))
        touched = len(found.update) - len(update) + len(found.delete) - len(delete)
        return replace(found, update=update, delete=delete, kept=found.kept + touched)

    def _sends(self, frame: Frame, image: HeldImage, wanted: Wanted, found: Plan) -> Iterator[Send]:
        push, path = self.push, frame.path
        composer = push._composer
        assert composer is not None
        for annotation in found.create:
            parts = wanted.shapes[annotation.id]
            receipt = composer.receipt(wanted, annotation.id, self.task.id)
            push._tell("create region", path, _named(annotation.label, annotation.score), annotation.id)
            yield Send("create", parts, Intent("create", receipt, frozenset(map(part_digest, parts))))
        for annotation, receipt, region in found.update:
            old = [image.shapes[uid] for uid in region.part_ids]
            parts = wanted.shapes[annotation.id]
            intent = Intent(
                "update",
                composer.receipt(wanted, annotation.id, self.task.id, region.part_ids),
                frozenset(map(part_digest, (*old, *parts))),
            )
            push._tell("update region", path, _change(receipt, intent.receipt), annotation.id)
            paired = [_over(*pair) for pair in zip(old, parts, strict=False)]
            yield Send("update", paired, intent)
            if len(parts) > len(old):
                yield Send("create", parts[len(old) :], intent)
            if len(old) > len(parts):
                yield Send("delete", old[len(parts) :], intent)
        for receipt, region in found.delete:
            old = [image.shapes[uid] for uid in region.part_ids]
            push._tell("delete region", path, _named(receipt.label, receipt.score), receipt.annotation_id)
            yield Send("delete", old, Intent("delete", receipt, frozenset(map(part_digest, old))))

    def _send(self, sends: Sequence[Send], held: HeldTask) -> None:
        """Send all in bounded batches: what goes first, then what changes, then what is new."""
        push = self.push
        batches: list[tuple[Deed, list[Send]]] = []
        for action in ("delete", "update", "create"):
            batches += [(action, batch) for batch in self._batched([s for s in sends if s.action == action])]
        intents: dict[tuple[str, str], Intent] = {}
        numbers = []
        for _, batch in batches:
            self.batches += 1
            numbers.append(self.batches)
            for send in batch:
                if send.intent is not None:
                    key = send.intent.receipt.path, send.intent.receipt.annotation_id
                    intents[key] = replace(send.intent, batch=self.batches)
        write_ledger(push.receipts, self.task.id, intents.values())
        for done, ((action, batch), number) in enumerate(zip(batches, numbers, strict=True)):
            push.on_step("regions", done, len(batches))
            shapes = [shape for send in batch for shape in send.shapes]
            if action != "create":
                shapes = self._unchanged(shapes, held)
            if not shapes:
                continue
            answer = push.server.patch_annotations(self.task.id, action, shapes)
            if action == "create" and len(answer) != len(shapes):
                raise ServerError(
                    f"of {len(shapes)} shapes for task {self.task.id} the server kept {len(answer)}; look at the task, "
                    "and run the same command again"
                )
            self.answered.add(number)
        push.on_step("regions", len(batches), len(batches))

    def _unchanged(self, shapes: Sequence[Row], held: HeldTask) -> list[Row]:
        """Shapes that are on the server now just as they were when the changes were planned."""
        before = {shape["id"]: shape for rows in held.shapes.values() for shape in rows}
        now = {shape["id"]: shape for shape in self.push.server.annotations(self.task.id).get("shapes") or ()}
        return [shape for shape in shapes if _essence(now.get(shape["id"])) == _essence(before.get(shape["id"]))]

    def _batched(self, sends: Sequence[Send]) -> Iterator[list[Send]]:
        batch: list[Send] = []
        size = count = 0
        for send in sends:
            weight = sum(len(json.dumps(shape)) for shape in send.shapes)
            if batch and (size + weight > self.push.limit_bytes or count + len(send.shapes) > MAX_SHAPES):
                yield batch
                batch, size, count = [], 0, 0
            batch.append(send)
            size, count = size + weight, count + len(send.shapes)
        if batch:
            yield batch


def _essence(shape: Row | None) -> object:
    """Return what a person can change about a shape, whatever order the server lists attributes in."""
    if shape is None:
        return None
    notes = sorted((int(item["spec_id"]), str(item["value"])) for item in shape.get("attributes") or ())
    return part_digest(shape), shape.get("source"), shape.get("occluded"), shape.get("z_order"), notes


def _touched(image: HeldImage, receipt: Receipt, region: Region) -> bool:
    """Whether a person changed a region whose label and outline are as we left them."""
    return region.origin != "prediction" or marked(receipt.payload, [image.shapes[uid] for uid in region.part_ids])


def _over(old: Row, new: Row) -> Row:
    """Write a shape over one on the server; what is not ours to say (flags, order, others' attributes) stays."""
    ours = {item["spec_id"] for item in new["attributes"]}
    others = [item for item in old.get("attributes") or () if item["spec_id"] not in ours]
    kept = others if old["label_id"] == new["label_id"] else []
    flags: Row = {key: old[key] for key in ("occluded", "outside", "z_order") if key in old}
    return {**new, **flags, "id": old["id"], "attributes": [*new["attributes"], *kept]}


def _named(label: str, score: float | None) -> str:
    return label if score is None else f"{label} {score:.2f}"


def _change(old: Receipt, new: Receipt) -> str:
    if old.label != new.label:
        return f"{old.label} to {new.label}"
    if old.digest != new.digest:
        return f"{new.label}: its outline"
    return f"{new.label}: its score or notes"
