"""Corrections brought home when Label Studio says that people made some: a little later, and in the background."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from autolabel.connect import Connector, load_connector
from autolabel.dataset import Run
from autolabel.errors import AutolabelError
from autolabel.serving import ServeOptions
from autolabel.targets import remembered, target_for

TOOL = "label-studio"
_LONGEST_WAITS, _TRIES = 12, 5
log = logging.getLogger(__name__)


class Puller:
    """Pulls projects that changed, once ``delay_s`` passed without a further change; one at a time.

    ``pull`` takes a project's title. Changes that go on are pulled at the latest after 12 delays; what fails is tried
    again, five times in all.
    """

    def __init__(self, pull: Callable[[str], None], delay_s: float) -> None:
        self._pull, self._delay_s = pull, delay_s
        self._due: dict[str, tuple[float, float, int]] = {}
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._work, name="pull", daemon=True)
        self._thread.start()

    def ask(self, project: str, tries: int = 0, wait_s: float | None = None) -> None:
        """Note that a project changed."""
        now = time.monotonic()
        with self._changed:
            first = self._due[project][1] if project in self._due else now
            wait = self._delay_s if wait_s is None else wait_s
            when = now + wait if wait_s is not None else min(now + wait, first + _LONGEST_WAITS * wait)
            self._due[project] = (when, first, tries)
            self._changed.notify()

    def close(self, limit_s: float = 60.0) -> None:
        """Pull what is waiting, and end."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(limit_s)

    def _work(self) -> None:
        while (taken := self._next()) is not None:
            project, tries = taken
            try:
                self._pull(project)
            except Exception as error:  # whatever goes wrong with one pull, later ones must go on
                known = isinstance(error, AutolabelError)
                again = tries + 1 < _TRIES and not self._ending
                text = str(error) if known else f"{type(error).__name__}"
                log.warning("pull of %r failed: %s%s", project, text, "; it is tried again" if again else "")
                if again:
                    self.ask(project, tries + 1, self._delay_s * 2**tries)

    def _next(self) -> tuple[str, int] | None:
        with self._changed:
            while True:
                if self._due:
                    project = min(self._due, key=lambda name: self._due[name][0])
                    left = self._due[project][0] - time.monotonic()
                    if left <= 0 or self._ending:
                        return project, self._due.pop(project)[2]
                    self._changed.wait(left)
                elif self._ending:
                    return None
                else:
                    self._changed.wait()


def pull_into(run: Path, options: ServeOptions, connector: Connector | None = None) -> Callable[[str], None]:
    """Return what pulls a project, by title, into ``run``.

    A run that was pushed takes corrections from the projects that it was pushed to; others are left alone, as one
    webhook may speak for a whole organisation.
    """
    used = connector or load_connector(TOOL)

    def pull(project: str) -> None:
        known = {one.target.project: one.target for one in remembered(run, TOOL)}
        if known and project not in known:
            log.info("project %r is none that %s was pushed to; nothing is pulled", project, run)
            return
        url = known[project].url if project in known else options.url or None
        target = target_for(used, TOOL, project, url=url, token=options.token or None)
        report = used.pull(Run(run), target, lambda *_: None)
        log.info("pulled %r: %s", project, ", ".join(f"{count} {what}" for what, count in report.counts.items()))
        for warning in report.warnings:
            log.warning("%s", warning)

    return pull
