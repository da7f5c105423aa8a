"""Who made a decision and when: by the event log, else as a pull before said of the same decision, else by the job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autolabel.corrections import Decision, read_decisions
from autolabel.types import Correction, Review
from autolabel_connectors.cvat.client import Cvat, Row
from autolabel_connectors.cvat.history import Deed, History, read_history
from autolabel_connectors.cvat.ledger import last_answer
from autolabel_connectors.cvat.project import Project
from autolabel_connectors.merge import Comparison, added_id
from autolabel_connectors.moments import as_moment
from autolabel_connectors.receipts import Receipts


@dataclass(slots=True)
class Signer:
    """Signs what one pull decides; ``unknown`` counts edits that the job alone can be named for."""

    server: Cvat
    project: Project
    run: Path
    source: str
    receipts: Receipts
    unknown: int = 0
    _history: History | None = None
    _earlier: dict[Decision, Decision] | None = None

    def sign(self, made: Sequence[Decision], job: Row, task: Row, comparison: Comparison) -> list[Decision]:
        """Give each decision about one image its person, its moment, and its share of the time spent on the job."""
        if not made:
            return []
        history, number = self.history, int(job.get("id") or 0)
        shown = 1 + int(job.get("stop_frame") or 0) - int(job.get("start_frame") or 0)
        seconds = history.seconds.get(number, 0.0) / shown or None
        deeds = self._deeds(int(task["id"]), comparison)
        signed: list[Decision] = []
        for decision in made:
            deed = deeds.get(decision.annotation_id) if isinstance(decision, Correction) else None
            if deed is None and (isinstance(decision, Review) or decision.action == "accepted"):
                deed = None if _skipped(decision) else history.moved.get(number)
            if deed is None:
                deed = self._said_before(decision, as_moment(str(task.get("created_date") or "")))
            if deed is None:
                self.unknown += isinstance(decision, Correction) and decision.action != "accepted"
                deed = _of_job(job, task)
            signed.append(replace(decision, by=deed.by or None, at=deed.at, seconds=seconds))
        return signed

    @property
    def history(self) -> History:
        """The event log, read once there is something to ask it."""
        if self._history is None:
            self._history = read_history(self.server, self.project.id, self.project.created)
        return self._history

    def warning(self) -> str:
        """Say what the server does not tell; empty where all is known."""
        if not self.unknown:
            return ""
        why = self.history.silence or "the server's event log does not tell this user of them"
        return (
            f"who made {self.unknown} of these decisions, and when: {why}; the job's assignee and last change stand in"
        )

    def _deeds(self, task: int, comparison: Comparison) -> dict[str, Deed]:
        """Who changed, removed or drew each region of an image, by annotation id."""
        history, answered = self.history, last_answer(self.receipts, task)
        edited = comparison.edited
        found = {receipt.annotation_id: history.edit(receipt, region, answered) for receipt, region in edited}
        found |= {receipt.annotation_id: history.deletion(receipt) for receipt in comparison.deleted}
        found |= {added_id(self.source, str(task), r.remote_id): history.addition(r) for r in comparison.added}
        return {uid: deed for uid, deed in found.items() if deed is not None}

    def _said_before(self, decision: Decision, since: str) -> Deed | None:
        if self._earlier is None:
            self._earlier = {_unsigned(known): known for known in read_decisions(self.run, self.source)}
        known = self._earlier.get(_unsigned(decision))
        return Deed(known.by or "", known.at) if known is not None and known.at >= since else None


def _unsigned(decision: Decision) -> Decision:
    return replace(decision, by=None, at="", seconds=None)


def _skipped(decision: Decision) -> bool:
    return isinstance(decision, Review) and decision.state == "skipped"


def _of_job(job: Row, task: Row) -> Deed:
    """Who the work is assigned to, and when the job last changed."""
    names = ((row.get("assignee") or {}).get("username") for row in (job, task))
    moment = str(job.get("updated_date") or task.get("updated_date") or "")
    return Deed(next((str(name) for name in names if name), ""), as_moment(moment))
