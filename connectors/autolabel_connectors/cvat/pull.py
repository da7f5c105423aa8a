"""Bringing people's work home: what became of the regions that were pushed, frame by frame.

A frame whose job is completed or in acceptance is complete; one that a person took out of its task is skipped. Edits in
a job that is still open come home too, only what is untouched there is no decision yet. What was pulled before and
whose task is gone is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from autolabel.connect import PullReport, PushOptions
from autolabel.corrections import Decision, read_decisions
from autolabel.errors import AutolabelError, UsageError
from autolabel.targets import remembered
from autolabel.types import AnnotatedImage, Correction, Image, Review
from autolabel_connectors.account import PullAccount
from autolabel_connectors.cvat.client import Cvat
from autolabel_connectors.cvat.compose import Composer, Wanted
from autolabel_connectors.cvat.errors import GoneError
from autolabel_connectors.cvat.frames import Frame, Key, OurTask, find_places
from autolabel_connectors.cvat.held import HeldTask, read_task
from autolabel_connectors.cvat.look import HeldImage, Look, homes_of, look_over
from autolabel_connectors.cvat.project import find_project, gone, read_project
from autolabel_connectors.cvat.signing import Signer
from autolabel_connectors.merge import corrections_of
from autolabel_connectors.moments import as_moment
from autolabel_connectors.ranking import model_version
from autolabel_connectors.shapes import Region

if TYPE_CHECKING:
    from autolabel.connect import OnStep, Target
    from autolabel.dataset import Run
    from autolabel_connectors.receipts import Receipts


@dataclass(slots=True)
class Pull:
    """One pull; `run_all` does it."""

    server: Cvat
    run: Run
    target: Target
    receipts: Receipts
    on_step: OnStep
    dry_run: bool = False
    account: PullAccount = field(default_factory=PullAccount)
    _composer: Composer | None = None
    _signer: Signer | None = None
    _homes: dict[str, str] = field(default_factory=dict)

    def run_all(self) -> PullReport:
        """Read all regions and replace what this project says about the run."""
        row = find_project(self.server, self.target.project)
        if row is None:
            raise UsageError(
                f"{self.server.url} has no project {self.target.project!r}; push the run there first. If it was "
                "deleted: corrections that were pulled before are kept in the run"
            )
        project = read_project(self.server, row, self.run.labels, self.receipts)
        if self.receipts.noted("project") not in (None, project.identity):
            raise UsageError(
                f"project {project.name!r} at {self.server.url} is not the one that this run was pushed to, which was "
                "deleted; push again first. Corrections that were pulled before are kept in the run"
            )
        known = remembered(self.run.path, self.target.tool, self.target.project)
        options = known[0].options if known else PushOptions()
        self._composer = Composer(project.labels, options, model_version(self.run))
        self._signer = Signer(self.server, project, self.run.path, self.target.source, self.receipts)
        self._homes = homes_of(self.receipts)
        images = {image.path: image for image in self.run.images()}
        decisions: list[Decision] = []
        made: dict[Key, str] = {}
        try:
            placement = find_places(self.server, project.id, self.receipts, images)
            for done, task in enumerate(placement.tasks):
                self.on_step("tasks", done, len(placement.tasks))
                frames = [f for f in task.frames if placement.places[f.path, f.image_id] == (task.id, f)]
                try:
                    decisions += self._task(task, frames, images)
                except GoneError:
                    if self.server.find(f"/api/projects/{project.id}") is None:
                        raise
                    self.account.warnings.append(
                        f"task {task.id} was deleted while it was read; what it said before is kept"
                    )
                    continue
                made |= {(f.path, f.image_id): as_moment(str(task.row.get("created_date") or "")) for f in frames}
            self.on_step("tasks", len(placement.tasks), len(placement.tasks))
        except GoneError as error:
            raise gone(self.server, project, error) from None
        decisions += self._earlier(decisions, made)
        if warning := self._signer.warning():
            self.account.warnings.append(warning)
        return self.account.finish(
            decisions, self.run.path, self.target.source, url=project.url(self.server), dry_run=self.dry_run
        )

    def _task(self, task: OurTask, frames: Sequence[Frame], images: Mapping[str, Image]) -> list[Decision]:
        """Turn one task into decisions."""
        assert self._composer is not None
        assert self._signer is not None
        held = read_task(self.server, task.id)
        look = look_over(held, self.receipts, self._composer, self._homes)
        decisions: list[Decision] = []
        for frame in frames:
            image = images.get(frame.path)
            if image is None or image.id != frame.image_id:
                image = frame.image
            found = self._look(frame, image, look)
            made = self._frame(task, frame, image, held, found)
            job = held.job_of(frame.number) or {}
            decisions += self._signer.sign(made, job, task.row, found.comparison)
        return decisions

    def _frame(self, task: OurTask, frame: Frame, image: Image, held: HeldTask, found: HeldImage) -> list[Decision]:
        source = self.target.source
        if frame.deleted:
            return [Review("skipped", image.path, image.id, source=source)]
        if count := held.others.get(frame.number):
            self.account.counts["other annotations that are not taken over"] += count
            self.account.warnings.append(
                f"{image.path}, task {task.id}: tags or tracks are not taken over ({count}); draw shapes instead"
            )
        complete = held.complete(frame.number)
        self.account.counts["regions of other runs"] += found.foreign
        comparison = found.comparison
        if not complete:
            # What another tool drew by itself is nobody's decision before the job is done.
            added = tuple(region for region in comparison.added if region.origin != "prediction")
            comparison = replace(comparison, added=added)
        for region in (*comparison.added, *(region for _, region in comparison.edited)):
            if trouble := _trouble(region):
                self.account.counts["regions that are not taken over"] += region.box is None or region.label is None
                self.account.warnings.append(f"{image.path}, task {task.id}: {trouble}")
        decisions: list[Decision] = []
        if complete:
            decisions.append(Review("complete", image.path, image.id, source=source))
        return [*decisions, *corrections_of(image, comparison, source=source, task=str(task.id), accepted=complete)]

    def _look(self, frame: Frame, image: Image, look: Look) -> HeldImage:
        receipts = self.receipts.of(frame.path)
        found = look.at(frame.number, image, receipts, self._wanted(frame, receipts))
        if not self.dry_run:
            known = {receipt.annotation_id: receipt for receipt in receipts}
            self.receipts.put([receipt for receipt in found.put if known.get(receipt.annotation_id) != receipt])
            self.receipts.drop(found.drop)
        return found

    def _wanted(self, frame: Frame, receipts: Sequence[object]) -> Wanted | None:
        """Compose what a push would send, needed only where the receipts are lost."""
        assert self._composer is not None
        if receipts:
            return None
        try:
            item = self.run[frame.path]
            if item.image.id != frame.image_id:
                return None
            ours = tuple(a for a in item.annotations if a.label in self._composer.labels.by_name)
            return self._composer.compose(AnnotatedImage(item.image, ours), frame.number, frame.number + 1)
        except (KeyError, AutolabelError):
            return None

    def _earlier(self, now: Sequence[Decision], made: Mapping[Key, str]) -> list[Decision]:
        """Decisions of earlier pulls on tasks that are gone, and whose images are elsewhere now or nowhere."""
        said = {(d.path, d.annotation_id) for d in now if isinstance(d, Correction)}
        reviewed = {d.path for d in now if isinstance(d, Review)}
        kept: list[Decision] = []
        for decision in read_decisions(self.run.path, self.target.source):
            key = (decision.path, decision.image_id)
            if key in made and decision.at >= made[key]:
                continue
            if isinstance(decision, Review):
                if decision.path not in reviewed:
                    kept.append(decision)
            elif (decision.path, decision.annotation_id) not in said:
                kept.append(decision)
        self.account.counts["kept of tasks that are gone"] += len(kept)
        return kept


def _trouble(region: Region) -> str:
    """Say what a person should know about a region that does not come home as it was drawn."""
    name = f"{region.kind} {region.remote_id}"
    if region.problem:
        return f"{name}: {region.problem}"
    return "" if region.label is not None else f"{name} has a label that the project does not have; give it another"
