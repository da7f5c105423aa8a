"""Bringing a project up to date with a run: look at what the server holds, send what differs, look again.

Nothing rests on an answer having arrived. Each round reads the project, recognises our tasks by image id and path, and
sends only what differs; where a request may or may not have been executed, another round finds out. A task that came to
be there twice is removed again if nobody has worked on it.

A task with a person's annotation, skip, draft or comment is left as it is, prediction included: the prediction is what
that person was shown, the measure of what they changed, and a new one would bring back regions that they deleted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolabel.connect import PushReport
from autolabel.types import LabelIssue
from autolabel_connectors.account import PushAccount
from autolabel_connectors.label_studio.additions import Additions
from autolabel_connectors.label_studio.compose import Composer
from autolabel_connectors.label_studio.errors import MissingError, ServerError, TooLargeError, UnsureError
from autolabel_connectors.label_studio.existing import Existing
from autolabel_connectors.label_studio.http import Api
from autolabel_connectors.label_studio.media import Cloud, open_media
from autolabel_connectors.label_studio.project import (
    Project,
    count_tasks,
    get_project,
    look_up_project,
    make_project,
    plan_project,
    show_version,
)
from autolabel_connectors.label_studio.session import Session
from autolabel_connectors.label_studio.tab import show_order
from autolabel_connectors.label_studio.uploads import Uploads
from autolabel_connectors.ranking import model_version

if TYPE_CHECKING:
    from autolabel.connect import OnStep, PushOptions, Target
    from autolabel.dataset import Run
    from autolabel_connectors.receipts import Receipts

_ROUNDS = 12
_PROJECT = "project"
"""Name of the fact which project the receipts are of."""


@dataclass(slots=True)
class Push:
    """One push of a run to a project; `run_all` does it."""

    api: Api
    run: Run
    target: Target
    options: PushOptions
    receipts: Receipts
    on_step: OnStep

    def run_all(self) -> PushReport:
        """Push until the server holds what it should; raises ServerError where it never does."""
        planned = plan_project(self.target.project, self.run.labels, self.options.shape)
        session, begun = self._session(planned), None
        if self.receipts.noted(_PROJECT) is None:
            # Most likely the project is missing, and its tasks are composed while the server is asked and makes it.
            begun = Additions(session, Existing(session))
        try:
            project = look_up_project(self.api, planned, self.run.labels, self.options.shape)
            if project.made:
                session.account.tell("create project", detail=project.title)
                if not session.dry:
                    about = f"autolabel run {self.run.name}"
                    project = make_project(self.api, planned, self.run.labels, self.options.shape, about)
            if begun is not None and not (project.made and project.draws_like(planned)):
                begun.close()
                begun = None
            if begun is None:
                session.composer = self._composer(project, session.issues)
            self._open(session, project)
            self._rounds(session, begun)
        finally:
            if begun is not None:
                begun.close()
        show_order(session)
        account = session.account
        account.warnings.update(session.composer.warnings)
        done, warning = show_version(self.api, session.project, session.composer.version, dry_run=session.dry)
        if done:
            account.tell("update project", detail=done)
        if warning:
            account.warn(warning)
        return account.report(session.project.url(self.api), session.composer.losses.said())

    def _session(self, project: Project) -> Session:
        issues: dict[str, list[LabelIssue]] = {}
        for issue in self.run.issues():
            issues.setdefault(issue.path, []).append(issue)
        return Session(
            self.api,
            self.run,
            self.options,
            self.receipts,
            self.on_step,
            project,
            self._composer(project, issues),
            issues,
            account=PushAccount(),
        )

    def _composer(self, project: Project, issues: Mapping[str, Sequence[LabelIssue]]) -> Composer:
        return Composer(project.controls, self.options, project.label_config, model_version(self.run), issues)

    def _open(self, session: Session, project: Project) -> None:
        """Turn to a project, and find out how images get there."""
        session.project = project
        if not session.dry and self.receipts.noted(_PROJECT) != project.identity:
            # Receipts of a project that was deleted say nothing about this one.
            self.receipts.drop(list(self.receipts))
            self.receipts.note(_PROJECT, project.identity)
        media = open_media(self.api, self.run, project.id, self.options, self.on_step)
        if isinstance(media, Cloud) and project.id and (warning := media.warning(self.api, project.id)):
            session.account.warn(warning)
        if project.made and isinstance(media, Uploads):
            media.known = {}
        session.media = media

    def _rounds(self, session: Session, additions: Additions | None) -> None:
        """Look and send until nothing differs; ``additions`` are those of the first round, if it has begun already."""
        last: ServerError | None = None
        clean = True
        try:
            for number in range(_ROUNDS):
                try:
                    if self._round(session, additions, healing=not clean) or session.dry:
                        return
                except MissingError:
                    get_project(self.api, session.project.id)
                    raise
                except UnsureError as error:
                    last = error
                    session.limit = max(1, session.limit // 2)
                    time.sleep(min(5.0, 0.05 * 2**number))
                except TooLargeError:
                    if session.limit == 1:
                        raise
                    session.limit = max(1, session.limit // 4)
                if additions is not None:
                    additions.close()
                if session.uploads:
                    session.uploads.rest()
                clean, additions = False, None
        finally:
            if session.uploads:
                session.uploads.close()
        raise ServerError(
            f"{self.api.url} does not keep what it is sent ({last or 'its counts change all the time'}); see its log, "
            "then run the same command again"
        )

    def _round(self, session: Session, begun: Additions | None, *, healing: bool) -> bool:
        """Look at the project once and send what differs; tell whether the server now surely holds what it should."""
        if begun is not None:
            return self._add(session, Existing(session), begun)
        existing = Existing(session, healing)
        if session.project.id and (healing or not session.project.made):
            existing.compare()
        if healing and session.uploads:
            session.uploads.sweep(existing.urls)
        with Additions(session, existing) as additions:
            return self._add(session, existing, additions)

    def _add(self, session: Session, existing: Existing, additions: Additions) -> bool:
        if session.dry:
            additions.preview()
            return True
        made = additions.send()
        if not made and not session.project.made:
            # Changes in place are certain once they were read again; a network may deliver additions twice.
            return not existing.added
        return count_tasks(self.api, session.project) == existing.total + made and not existing.added
