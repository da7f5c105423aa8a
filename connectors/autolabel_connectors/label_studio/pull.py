"""Bringing people's work home: what each annotation says about the regions that were pushed.

Of several annotations of a task one counts: the one marked as ground truth, else the newest; the others are recorded
and not effective. A skipped task is reviewed as skipped. A draft is no decision yet. What was pulled before and is no
longer on the server is kept where its task is gone, and kept without effect where a person took it back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from autolabel.connect import PullReport
from autolabel.corrections import Decision, read_decisions
from autolabel.errors import UsageError
from autolabel.types import Correction, Image, Review
from autolabel_connectors.account import PullAccount
from autolabel_connectors.label_studio.compose import payload_of
from autolabel_connectors.label_studio.convert import from_regions
from autolabel_connectors.label_studio.errors import MissingError
from autolabel_connectors.label_studio.http import Api
from autolabel_connectors.label_studio.project import find_project, get_project, gone, read_controls
from autolabel_connectors.label_studio.remote import Key, RemoteTask, emails, pages_ahead
from autolabel_connectors.merge import compare, corrections_of, shape_digest
from autolabel_connectors.moments import as_moment
from autolabel_connectors.receipts import Receipt

if TYPE_CHECKING:
    from autolabel.connect import OnStep, Target
    from autolabel.dataset import Run
    from autolabel_connectors.label_studio.label_config import Controls
    from autolabel_connectors.receipts import Receipts
    from autolabel_connectors.shapes import Region


@dataclass(slots=True)
class Pull:
    """One pull; `run_all` does it."""

    api: Api
    run: Run
    target: Target
    receipts: Receipts
    on_step: OnStep
    dry_run: bool = False
    account: PullAccount = field(default_factory=PullAccount)
    people: dict[int, str] = field(default_factory=dict)
    _controls: Controls | None = None

    def run_all(self) -> PullReport:
        """Read all annotations and replace what this project says about the run."""
        found = find_project(self.api, self.target.project)
        if found is None:
            raise UsageError(
                f"{self.api.url} has no project {self.target.project!r}; push the run there first. If it was deleted: "
                "corrections that were pulled before are kept in the run"
            )
        project = get_project(self.api, int(found["id"]))
        self._controls = read_controls(project, self.run.labels)
        self.people = emails(self.api)
        try:
            decisions, created, authors = self._read(int(project["id"]))
        except MissingError:
            raise gone(self.api, int(project["id"])) from None
        decisions += self._earlier(decisions, created, authors)
        url = f"{self.api.url}/projects/{project['id']}/data"
        return self.account.finish(decisions, self.run.path, self.target.source, url=url, dry_run=self.dry_run)

    def _read(self, project: int) -> tuple[list[Decision], dict[Key, str], dict[Key, set[str | None]]]:
        """Read all tasks; returns decisions, when each image's task was made, and who annotated it."""
        decisions: list[Decision] = []
        created: dict[Key, str] = {}
        authors: dict[Key, set[str | None]] = {}
        done = 0
        with pages_ahead(self.api, project) as pages:
            for tasks, total in pages:
                for task in tasks:
                    if task.key is None:
                        if task.annotations:
                            self.account.counts["annotated tasks that no push made"] += 1
                        continue
                    if task.drafted:
                        self.account.counts["tasks with drafts, not submitted yet"] += 1
                    twin = task.key in created
                    created[task.key] = min(as_moment(task.created_at), created.get(task.key, "~"))
                    if twin and not task.annotations:
                        continue
                    decisions += self._task(task)
                    authors.setdefault(task.key, set()).update(self._author(a) for a in task.annotations)
                done += len(tasks)
                self.on_step("tasks", done, total)
        return decisions, created, authors

    def _task(self, task: RemoteTask) -> list[Decision]:
        """Turn one task's annotations into decisions."""
        done = [annotation for annotation in task.annotations if not annotation.get("was_cancelled")]
        skipped = [annotation for annotation in task.annotations if annotation.get("was_cancelled")]
        if not done and not skipped:
            return []
        image = self._image(task)
        if image is None:
            self.account.warnings.append(
                f"{task.key[1] if task.key else ''}: the run does not have this image any more and its size is not "
                f"known, so the annotations of task {task.id} are left there"
            )
            return []
        if not done:
            newest = max(skipped, key=_order)
            return [self._review("skipped", image, newest)]
        winner = max(done, key=lambda annotation: (bool(annotation.get("ground_truth")), *_order(annotation)))
        receipts = self._receipts(task, image)
        decisions: list[Decision] = [self._review("complete", image, winner)]
        for annotation in sorted(done, key=_order):
            decisions += self._annotation(task, image, annotation, receipts, effective=annotation is winner)
        if len(done) > 1:
            self.account.counts["images with several annotations"] += 1
        return decisions

    def _annotation(
        self,
        task: RemoteTask,
        image: Image,
        annotation: Mapping[str, Any],
        receipts: Sequence[Receipt],
        *,
        effective: bool,
    ) -> list[Correction]:
        sent = {uid: receipt.annotation_id for receipt in receipts for uid in receipt.remote_ids}
        regions = from_regions(annotation.get("result") or [], image, self._controls, sent)
        for region in regions:
            trouble = _trouble(region)
            if trouble:
                self.account.counts["regions that are not taken over"] += region.box is None or region.label is None
                self.account.warnings.append(f"{image.path}, task {task.id}, annotation {annotation['id']}: {trouble}")
        return corrections_of(
            image,
            compare(receipts, regions),
            source=self.target.source,
            task=str(task.id),
            accepted=True,
            by=self._author(annotation),
            at=_changed(annotation),
            seconds=_seconds(annotation),
            effective=effective,
        )

    def _receipts(self, task: RemoteTask, image: Image) -> list[Receipt]:
        """Return what was pushed: our own record, else the server's prediction with the run's own geometry."""
        known = [r for r in self.receipts.of(image.path) if r.image_id == image.id and r.remote_task == str(task.id)]
        if known:
            return known
        made = list(self._rebuilt(task, image))
        if made and not self.dry_run:
            self.receipts.put(made)
        return made

    def _rebuilt(self, task: RemoteTask, image: Image) -> Iterator[Receipt]:
        if not task.ours:
            return
        prediction = task.ours[-1]
        result = prediction.get("result") or []
        models: dict[str, Any] = {}
        try:
            item = self.run[image.path]
            models = {a.id: a for a in item.annotations} if item.image.id == image.id else {}
        except KeyError:
            pass
        for region in from_regions(result, image, self._controls):
            if region.annotation_id is None or region.box is None:
                continue
            ours = models.get(region.annotation_id)
            parts = [part for part in result if part.get("id") in region.part_ids]
            yield Receipt(
                path=image.path,
                image_id=image.id,
                annotation_id=region.annotation_id,
                remote_task=str(task.id),
                remote_ids=region.part_ids,
                digest=shape_digest(region),
                payload=payload_of(parts),
                label=region.label or (ours.label if ours else ""),
                box=ours.box if ours else region.box,
                mask=ours.mask if ours else region.mask,
                score=region.score,
                model_version=str(prediction.get("model_version") or ""),
                pushed_at=as_moment(str(prediction.get("created_at") or "")),
            )

    def _image(self, task: RemoteTask) -> Image | None:
        """Return the image of a task: the run's, else as far as the task's own regions tell its size."""
        assert task.key is not None
        image_id, path = task.key
        try:
            image = self.run[path].image
        except KeyError:
            image = None
        if image is not None and image.id == image_id:
            return image
        for source in (*task.annotations, *task.predictions):
            for part in source.get("result") or ():
                width, height = part.get("original_width"), part.get("original_height")
                if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
                    return Image(image_id, path, width, height)
        return None

    def _review(self, state: Any, image: Image, annotation: Mapping[str, Any]) -> Review:
        return Review(
            state,
            image.path,
            image.id,
            by=self._author(annotation),
            at=_changed(annotation),
            source=self.target.source,
            seconds=_seconds(annotation),
        )

    def _author(self, annotation: Mapping[str, Any]) -> str | None:
        by = annotation.get("completed_by")
        if isinstance(by, Mapping):
            return str(by.get("email") or by.get("id"))
        return None if by is None else self.people.get(int(by), f"user {by}")

    def _earlier(
        self, now: Sequence[Decision], created: Mapping[Key, str], authors: Mapping[Key, set[str | None]]
    ) -> list[Decision]:
        """Decisions of earlier pulls that the server says nothing about now, and that must not be lost."""
        kept: list[Decision] = []
        for decision in read_decisions(self.run.path, self.target.source):
            key = (decision.image_id, decision.path)
            if key not in created or decision.at < created[key]:
                # The task is gone, or is a later one than the task that this was decided on.
                if key not in authors or not authors[key]:
                    kept.append(decision)
                    self.account.counts["kept of tasks that are gone"] += 1
                elif isinstance(decision, Correction):
                    kept.append(replace(decision, effective=False))
            elif isinstance(decision, Correction) and decision.by not in authors.get(key, set()):
                kept.append(replace(decision, effective=False))
                self.account.counts["taken back by people"] += decision.effective
        return kept


def _trouble(region: Region) -> str:
    """Say what a person should know about a region that does not come home as it was drawn."""
    name = f"{region.kind} {region.remote_id!r}"
    if region.problem:
        return f"{name}: {region.problem}"
    if region.label is None:
        return f"{name} has no label; give it one there"
    return ""


def _changed(annotation: Mapping[str, Any]) -> str:
    return as_moment(str(annotation.get("updated_at") or annotation.get("created_at") or ""))


def _order(annotation: Mapping[str, Any]) -> tuple[str, int]:
    return _changed(annotation), int(annotation.get("id") or 0)


def _seconds(annotation: Mapping[str, Any]) -> float | None:
    lead = annotation.get("lead_time")
    return float(lead) if isinstance(lead, int | float) else None
