"""Bringing a project up to date with a run: look at what the server holds, send what differs, look again.

Nothing rests on an answer having arrived. Each round reads the project, recognises our tasks by image id and path, and
sends only what differs; where a request may or may not have been executed, another round finds out. A task that came to
be there twice is removed again if nobody has worked on it.

A task with a person's annotation, skip, draft or comment is left as it is, prediction included: the prediction is what
that person was shown, the measure of what they changed, and a new one would bring back regions that they deleted.
Elsewhere a prediction that differs is changed in place, by its id: to delete it and make another would refuse the work
of a person who has the task open at that moment.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from autolabel.connect import Change, PushReport
from autolabel.types import AnnotatedImage, Image, LabelIssue
from autolabel_connectors.label_studio.compose import Composer, Wanted
from autolabel_connectors.label_studio.http import Api, MissingError, ServerError, TooLargeError, UnsureError
from autolabel_connectors.label_studio.media import Cloud, Shown, Uploads, open_media
from autolabel_connectors.label_studio.project import Project, get_project, open_project, show_version
from autolabel_connectors.label_studio.remote import Key, RemoteTask, read_tasks
from autolabel_connectors.ranking import model_version, priority

if TYPE_CHECKING:
    from autolabel.connect import OnStep, PushOptions, Target
    from autolabel.dataset import Run
    from autolabel_connectors.label_studio.media import Media
    from autolabel_connectors.receipts import Receipts

WINDOW = 1000
FIRST = 200
"""A first window is small, so that the server has something to do early; what follows is composed meanwhile."""

AHEAD = 100
MAX_BYTES = 16 * 2**20
_ROUNDS = 12
_WRITERS = 4


@dataclass(slots=True)
class Push:
    """One push of a run to a project; `run_all` does it."""

    api: Api
    run: Run
    target: Target
    options: PushOptions
    receipts: Receipts
    on_step: OnStep
    version: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    changes: list[Change] = field(default_factory=list)
    warnings: dict[str, None] = field(default_factory=dict)
    issues: dict[str, list[LabelIssue]] = field(default_factory=dict)
    limit: int = WINDOW
    clean: bool = True
    in_flight: dict[Key, str] = field(default_factory=dict)
    _composer: Composer | None = None
    _media: Media | None = None

    def run_all(self) -> PushReport:
        """Push until the server holds what it should; raises ServerError where it never does."""
        options = self.options
        self.version = model_version(self.run)
        for issue in self.run.issues():
            self.issues.setdefault(issue.path, []).append(issue)
        about = f"autolabel run {self.run.name}"
        project = open_project(
            self.api, self.target.project, self.run.labels, options.shape, about, dry_run=options.dry_run
        )
        if project.made:
            self._tell("create project", detail=project.title)
        self._remember(project)
        self._composer = Composer(project.controls, options, project.label_config, self.issues)
        self._media = open_media(self.api, self.run, project.id, options, self.on_step)
        if project.made and isinstance(self._media, Uploads):
            self._media.known = {}
        if isinstance(self._media, Cloud) and project.id and (warning := self._media.warning(self.api, project.id)):
            self.warnings[warning] = None
        try:
            self._rounds(project)
        finally:
            if isinstance(self._media, Uploads):
                self._media.close()
        self.warnings.update(self._composer.warnings)
        done, warning = show_version(self.api, project, self.version, dry_run=options.dry_run)
        if done:
            self._tell("update project", detail=done)
        if warning:
            self.warnings[warning] = None
        counts = {name: count for name, count in sorted(self.counts.items()) if count}
        return PushReport(project.url(self.api), counts, tuple(self.changes), tuple(self.warnings))

    def _rounds(self, project: Project) -> None:
        last: ServerError | None = None
        for number in range(_ROUNDS):
            try:
                if _Round(self, project, healing=not self.clean).settled() or self.options.dry_run:
                    return
            except MissingError:
                get_project(self.api, project.id)
                raise
            except UnsureError as error:
                last = error
                self.limit = max(1, self.limit // 2)
                time.sleep(min(5.0, 0.05 * 2**number))
            except TooLargeError:
                if self.limit == 1:
                    raise
                self.limit = max(1, self.limit // 4)
            self.clean = False
        raise ServerError(
            f"{self.api.url} does not keep what it is sent ({last or 'its counts change all the time'}); see its log, "
            "then run the same command again"
        )

    def _remember(self, project: Project) -> None:
        """Note which project this is; receipts of one that was deleted say nothing about it."""
        if self.options.dry_run:
            return
        if self.receipts.noted("project") != project.identity:
            self.receipts.drop(list(self.receipts))
            self.receipts.note("project", project.identity)

    def _tell(self, what: str, path: str = "", detail: str = "") -> None:
        self.counts[what] += 1
        self.changes.append(Change(what, path, detail))


@dataclass(slots=True)
class _Round:
    """One look at the project and one go at what differs."""

    push: Push
    project: Project
    healing: bool
    seen: dict[Key, int] = field(default_factory=dict)
    by_content: dict[str, list[tuple[Key, int]]] = field(default_factory=dict)
    twins: list[RemoteTask] = field(default_factory=list)
    urls: set[str] = field(default_factory=set)
    total: int = 0
    added: int = 0

    def settled(self) -> bool:
        """Do one round; tell whether the server now surely holds what it should."""
        push = self.push
        if self.project.id and (self.healing or not self.project.made):
            self._existing()
            self._remove_twins()
        if self.healing and isinstance(push._media, Uploads):
            push._media.sweep(self.urls)
        made = self._create()
        if push.options.dry_run:
            return True
        if not made:
            # Changes in place are certain once they are answered; a network may deliver additions twice.
            return not self.added
        held = get_project(push.api, self.project.id)
        return int(held.get("task_number") or 0) == self.total + made

    # What is there ------------------------------------------------------------------------------------------------

    def _existing(self) -> None:
        """Compare our tasks with the run, page by page, and send what differs."""
        push, done = self.push, 0
        with ThreadPoolExecutor(_WRITERS) as pool:
            for tasks, total in read_tasks(push.api, self.project.id):
                self.total = total
                lacking: list[tuple[RemoteTask, Wanted]] = []
                waiting: list[Future[Any]] = []
                fresh: list[tuple[RemoteTask, Wanted]] = []
                for task in tasks:
                    self.urls.add(str(task.data.get(self.project.controls.image_key)))
                    if self._is_twin(task):
                        continue
                    wanted = self._wanted(task)
                    if wanted is None:
                        continue
                    sends = self._differences(task, wanted)
                    if sends is None:
                        lacking.append((task, wanted))
                    elif not push.options.dry_run:
                        waiting += [pool.submit(push.api.request, *call[:2], body=call[2]) for call in sends]
                    fresh.append((task, wanted))
                for future in waiting:
                    future.result()
                self._add_predictions(lacking)
                self._put_receipts(fresh)
                done += len(tasks)
                push.on_step("tasks compared", done, total)
        if not push.options.dry_run:
            prefix = self.project.identity
            push.receipts.note_all({f"task {prefix} {key[1]}": [key[0], task] for key, task in self.seen.items()})

    def _is_twin(self, task: RemoteTask) -> bool:
        if task.key is None:
            return True
        if task.key in self.seen:
            self.twins.append(task)
            return True
        self.seen[task.key] = task.id
        if (sent := self.push.in_flight.pop(task.key, None)) is not None:
            self.push._tell("create task", task.key[1], sent)
        self.by_content.setdefault(task.key[0], []).append((task.key, task.id))
        return False

    def _wanted(self, task: RemoteTask) -> Wanted | None:
        """Compose what a task should show; None where it is to be left alone."""
        push = self.push
        assert task.key is not None
        try:
            item = push.run[task.key[1]]
        except KeyError:
            item = None
        if item is None or item.image.id != task.key[0]:
            if not self.healing:
                push.counts["tasks left that the run has no image for"] += 1
            return None
        if task.people:
            if not self.healing:
                push.counts["tasks left as people have them"] += 1
            return None
        assert push._composer is not None
        return push._composer.compose(item)

    def _differences(self, task: RemoteTask, wanted: Wanted) -> list[tuple[str, str, Any]] | None:
        """List the requests that bring one task up to date; None where a prediction is missing altogether."""
        push, version = self.push, self.push.version
        path = wanted.image.path
        calls: list[tuple[str, str, Any]] = []
        extra = {name: value for name, value in wanted.extra.items() if task.data.get(name, "") != value}
        if extra:
            push._tell("update task", path, ", ".join(extra))
            calls.append(("PATCH", f"/api/tasks/{task.id}/", {"data": {**task.data, **extra}}))
        main, *spare = task.ours or (None,)
        for twin in spare:
            assert twin is not None
            push._tell("remove prediction", path, "it is there twice")
            calls.append(("DELETE", f"/api/predictions/{twin['id']}/", None))
        if main is None and wanted.result:
            push._tell("create prediction", path, _regions(wanted))
            for call in calls:
                if not push.options.dry_run:
                    push.api.request(*call[:2], body=call[2])
            return None
        if main is not None and not wanted.held_by(main, version):
            push._tell("update prediction", path, _what_changed(main, wanted, version))
            calls.append(("PATCH", f"/api/predictions/{main['id']}/", wanted.prediction(version)))
        if not calls and not self.healing:
            push.counts["tasks unchanged"] += 1
        return calls

    def _add_predictions(self, lacking: Sequence[tuple[RemoteTask, Wanted]]) -> None:
        push = self.push
        if push.options.dry_run:
            return
        for batch in _chunks(lacking, push.limit):
            body = [{"task": task.id, **wanted.prediction(push.version)} for task, wanted in batch]
            answer = push.api.request(
                "POST",
                f"/api/projects/{self.project.id}/import/predictions",
                body=body,
                doing=f"send {len(body)} predictions",
            )
            if int(answer.get("created", -1)) != len(body):
                raise UnsureError(f"of {len(body)} predictions the server kept {answer.get('created')}")
            self.added += len(body)

    def _put_receipts(self, pairs: Iterable[tuple[RemoteTask, Wanted]]) -> None:
        """Record regions that are there now; where receipts say so already, nothing is written."""
        push = self.push
        if push.options.dry_run:
            return
        assert push._composer is not None
        found = [r for task, wanted in pairs for r in push._composer.receipts(wanted, task.id, push.version)]
        known = {r.annotation_id: r for task, wanted in pairs for r in push.receipts.of(wanted.image.path)}
        push.receipts.put([r for r in found if (old := known.get(r.annotation_id)) is None or _facts(old) != _facts(r)])
        here = {r.annotation_id for r in found}
        push.receipts.drop([old for uid, old in known.items() if uid not in here])

    def _remove_twins(self) -> None:
        """Remove tasks that are there twice, unless somebody has worked on them since."""
        push = self.push
        for batch in _chunks(self.twins, 100):
            now = [task for page, _ in read_tasks(push.api, self.project.id, [t.id for t in batch]) for task in page]
            for task in now:
                assert task.key is not None
                if task.people:
                    push.warnings[
                        f"{task.key[1]}: tasks {self.seen[task.key]} and {task.id} show the same image, and people "
                        "worked on the second; delete one of them"
                    ] = None
                    continue
                push._tell("remove task", task.key[1], "it is there twice")
                if not push.options.dry_run:
                    self.total -= 1
                    try:
                        push.api.request("DELETE", f"/api/tasks/{task.id}/", doing="remove a task that is there twice")
                    except MissingError:
                        continue

    # What is new --------------------------------------------------------------------------------------------------

    def _create(self) -> int:
        """Make tasks for images that have none, in the order asked for; returns how many were sent."""
        push, sent = self.push, 0
        uploads = push._media if isinstance(push._media, Uploads) else None
        with ThreadPoolExecutor(1) as pool:
            waiting: Future[int] | None = None
            window: list[Wanted] = []
            size = ahead = 0
            limit = min(push.limit, WINDOW if uploads else FIRST)
            for item in self._new_items():
                assert push._composer is not None
                wanted = push._composer.compose(item)
                if push.options.dry_run:
                    push._tell("create task", wanted.image.path, _regions(wanted))
                    continue
                window.append(wanted)
                size += 200 + sum(map(_size, wanted.result))
                if uploads and len(window) - ahead >= AHEAD:
                    uploads.prepare([wanted.image for wanted in window[ahead:]])
                    ahead = len(window)
                if len(window) >= limit or size > MAX_BYTES:
                    sent += waiting.result() if waiting else 0
                    waiting, window, size, ahead = pool.submit(self._send, window), [], 0, 0
                    limit = push.limit
            sent += waiting.result() if waiting else 0
            sent += self._send(window) if window else 0
        return sent

    def _new_items(self) -> Iterator[AnnotatedImage]:
        push = self.push
        prefix = self.project.identity
        deleted = 0
        moved: dict[str, None] | None = None
        for image in self._ordered():
            key = (image.id, image.path)
            if key in self.seen:
                continue
            noted = push.receipts.noted(f"task {prefix} {image.path}")
            if noted is not None and noted[0] == image.id:
                deleted += 1
                continue
            if image.id in self.by_content:
                if moved is None:
                    moved = {other.path: None for other in push.run.images()}
                if any(other[1] not in moved for other, _ in self.by_content[image.id]):
                    push.warnings[
                        f"{image.path}: the project has this image under another path; its task there is left, and a "
                        "new one is made"
                    ] = None
            yield push.run[image.path]
        if deleted:
            push.counts["images left out whose tasks were deleted there"] = deleted
            push.warnings[
                f"{deleted} images had tasks that somebody deleted in Label Studio; they stay deleted. To push them "
                f"again, remove the folder of this project in {push.run.path / 'sync'}"
            ] = None

    def _ordered(self) -> Iterator[Image]:
        push = self.push
        if push.options.order == "path":
            return push.run.images()
        ranked = [
            (-priority(item, push.issues.get(item.image.path, ()), push.options.order), item.image.path, item.image)
            for item in push.run
        ]
        return (image for _, _, image in sorted(ranked, key=lambda entry: entry[:2]))

    def _send(self, window: Sequence[Wanted]) -> int:
        """Make the tasks of one window, with their predictions, in one request; smaller ones where that is too big."""
        push = self.push
        assert push._media is not None
        shown = push._media.show([wanted.image for wanted in window])
        body = json.dumps(
            [self._task(wanted, shown[wanted.image.path]) for wanted in window],
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()
        push.in_flight.update({wanted.key: _regions(wanted) for wanted in window})
        composer = push._composer
        assert composer is not None
        # The receipts are written out while the server works, and get the numbers of their tasks afterwards.
        with ThreadPoolExecutor(1) as beside:
            ready = beside.submit(lambda: [composer.receipts(wanted, 0, push.version) for wanted in window])
            ids = self._import(window, body)
        if not ids:
            middle = len(window) // 2
            return self._send(window[:middle]) + self._send(window[middle:])
        push.receipts.put(
            [
                replace(receipt, remote_task=str(task))
                for task, receipts in zip(ids, ready.result(), strict=True)
                for receipt in receipts
            ]
        )
        prefix = self.project.identity
        push.receipts.note_all(
            {f"task {prefix} {w.image.path}": [w.image.id, int(t)] for t, w in zip(ids, window, strict=True)}
        )
        for wanted in window:
            push._tell("create task", wanted.image.path, push.in_flight.pop(wanted.key))
        push.counts["regions sent"] += sum(len(wanted.items) for wanted in window)
        push.on_step("tasks", push.counts["create task"], len(push.run))
        return len(window)

    def _import(self, window: Sequence[Wanted], body: bytes) -> list[int]:
        """Send the tasks of one window; returns their numbers in order, none where the request was too large."""
        push = self.push
        try:
            answer = push.api.request(
                "POST",
                f"/api/projects/{self.project.id}/import",
                params={"return_task_ids": "true"},
                content=body,
                doing=f"make {len(window)} tasks",
            )
        except TooLargeError:
            if len(window) == 1:
                raise
            push.limit = max(1, len(window) // 2)
            return []
        predicted = sum(bool(wanted.result) for wanted in window)
        ids = answer.get("task_ids") or []
        if len(ids) != len(window) or answer.get("prediction_count") != predicted:
            raise UnsureError(
                f"of {len(window)} tasks and {predicted} predictions the server kept {answer.get('task_count')} and "
                f"{answer.get('prediction_count')}"
            )
        return [int(task) for task in ids]

    def _task(self, wanted: Wanted, shown: Shown) -> dict[str, Any]:
        task: dict[str, Any] = {"data": wanted.data(shown.url, self.project.controls.image_key)}
        if wanted.result:
            task["predictions"] = [wanted.prediction(self.push.version)]
        if shown.upload is not None:
            task["file_upload_id"] = shown.upload
        return task


def _what_changed(old: Mapping[str, Any], wanted: Wanted, version: str) -> str:
    before = {part["id"]: part for part in old.get("result") or () if isinstance(part, Mapping) and "id" in part}
    after = {part["id"]: part for part in wanted.result}
    added, gone_ = len(after.keys() - before.keys()), len(before.keys() - after.keys())
    changed = sum(before[uid] != after[uid] for uid in before.keys() & after.keys())
    parts = [f"{n} regions {what}" for n, what in ((added, "added"), (gone_, "removed"), (changed, "changed")) if n]
    if old.get("model_version") != version:
        parts.append(f"now of {version}")
    return ", ".join(parts) or "score or order"


def _regions(wanted: Wanted) -> str:
    return f"{len(wanted.items)} region{'' if len(wanted.items) == 1 else 's'}"


def _facts(receipt: Any) -> tuple[Any, ...]:
    return tuple(getattr(receipt, name) for name in receipt.__slots__ if name != "pushed_at")


def _size(part: Mapping[str, Any]) -> int:
    """Bytes of an item as JSON, roughly and quickly."""
    value = part["value"]
    return 350 + 4 * len(value.get("rle", ())) + 40 * len(value.get("points", ())) + len(value.get("imageDataURL", ""))


def _chunks(values: Sequence[Any], size: int) -> Iterator[list[Any]]:
    stream = iter(values)
    while chunk := list(islice(stream, size)):
        yield chunk
