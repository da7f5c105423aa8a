"""Bringing a project up to date with a run: look at what the server holds, send what differs, look again.

Nothing rests on an answer having arrived. Each task is read, compared with the run and its receipts, sent what differs,
and read again until nothing differs; what is about to be sent is written down first (`ledger`), so that after a lost
answer or a kill our own doing is not taken for a person's. Regions that a person moved, renamed, marked or deleted, and
frames whose job is at review or done, are left as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolabel.connect import PushReport
from autolabel.issues import read_notes
from autolabel.types import Correction, LabelIssue
from autolabel_connectors.account import PushAccount
from autolabel_connectors.cvat.client import Cvat
from autolabel_connectors.cvat.compose import Composer
from autolabel_connectors.cvat.errors import GoneError
from autolabel_connectors.cvat.frames import OurTask, known_tasks, remember_task
from autolabel_connectors.cvat.images import Images
from autolabel_connectors.cvat.look import homes_of
from autolabel_connectors.cvat.project import Project, gone, open_project, remember_project
from autolabel_connectors.cvat.regions import Regions
from autolabel_connectors.cvat.session import Session
from autolabel_connectors.moments import as_moment
from autolabel_connectors.ranking import model_version

if TYPE_CHECKING:
    from autolabel.connect import OnStep, PushOptions, Target
    from autolabel.dataset import Run
    from autolabel_connectors.receipts import Receipts


@dataclass(slots=True)
class Push:
    """One push of a run to a project; `run_all` does it."""

    server: Cvat
    run: Run
    target: Target
    options: PushOptions
    receipts: Receipts
    on_step: OnStep

    def run_all(self) -> PushReport:
        """Push until the server holds what it should; raises ServerError where it never does."""
        shape, dry = self.options.shape, self.options.dry_run
        project = open_project(self.server, self.target.project, self.run.labels, shape, self.receipts, dry_run=dry)
        account = PushAccount()
        if project.made:
            account.tell("create project", detail=project.name)
        if not dry:
            remember_project(project, self.receipts)
        for warning in project.warnings:
            account.warn(warning)
        issues: dict[str, list[LabelIssue]] = {}
        for issue in self.run.issues():
            issues.setdefault(issue.path, []).append(issue)
        session = Session(
            self.server,
            self.run,
            self.target,
            self.options,
            self.receipts,
            self.on_step,
            project,
            Composer(project.labels, self.options, model_version(self.run), issues),
            account,
            read_notes(self.run.path) is not None,
            self._own_ids(project),
            homes_of(self.receipts),
        )
        try:
            self._images_and_regions(session)
        except GoneError as error:
            raise gone(self.server, project, error) from None
        account.warnings.update(session.composer.warnings)
        return account.report(project.url(self.server), session.composer.losses.said())

    def _images_and_regions(self, session: Session) -> None:
        images = Images(session, {image.path: image for image in self.run.images()})
        placement = images.settle()
        for done, task in enumerate(placement.tasks):
            self.on_step("tasks", done, len(placement.tasks))
            if not session.dry and task.id not in known_tasks(self.receipts):
                self._remember_task(task)
            Regions(session, task, images.to_show(task, placement)).settle()
        self.on_step("tasks", len(placement.tasks), len(placement.tasks))

    def _own_ids(self, project: Project) -> frozenset[str]:
        """Annotations that people drew in this very project, not in an earlier one of its name, deleted since."""
        return frozenset(
            c.annotation_id
            for c in self.run.corrections()
            if isinstance(c, Correction)
            and c.action == "added"
            and c.source == self.target.source
            and project.id
            and c.at >= as_moment(project.created)
        )

    def _remember_task(self, task: OurTask) -> None:
        """Note a task of ours that was found by the names of its frames."""
        if [frame.number for frame in task.frames] == list(range(len(task.frames))):
            remember_task(self.receipts, task.id, [(frame.path, frame.image_id) for frame in task.frames])
