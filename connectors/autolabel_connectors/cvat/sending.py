"""Sending changes of a task's regions: in bounded requests, written down first, and never over a person's last edit.

Right before an update or a deletion the jobs it is about are read once more: CVAT would bring a shape back that
somebody has just deleted, and take an update for all that there is to say about a shape. Such requests are small, so
that little time passes between the look and the change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from autolabel.errors import ServerError
from autolabel_connectors.cvat.client import Row
from autolabel_connectors.cvat.compose import part_digest
from autolabel_connectors.cvat.held import HeldTask
from autolabel_connectors.cvat.ledger import Deed, Intent, note_answer, write_ledger
from autolabel_connectors.cvat.session import Session

MAX_SHAPES = 5000
MAX_CHANGES = 500
"""Of changes and deletions fewer go together: what a person saves between look and change would be overwritten."""


@dataclass(frozen=True, slots=True)
class Send:
    """One annotation's shapes for one request, and the intent to write down first."""

    action: Deed
    shapes: list[Row]
    intent: Intent | None


@dataclass(slots=True)
class Sender:
    """Sends to one task; ``answered`` are the numbers of the requests that the server confirmed."""

    session: Session
    task: int
    answered: set[int] = field(default_factory=set)
    _last: int = 0

    def send(self, sends: Sequence[Send], held: HeldTask) -> None:
        """Send all in bounded batches: what goes first, then what changes, then what is new."""
        session = self.session
        batches: list[tuple[int, Deed, list[Send]]] = []
        order: tuple[Deed, ...] = ("delete", "update", "create")
        for action in order:
            for batch in self._batched([send for send in sends if send.action == action], _most(action)):
                self._last += 1
                batches.append((self._last, action, batch))
        intents: dict[tuple[str, str], Intent] = {}
        for number, _, batch in batches:
            for intent in (send.intent for send in batch if send.intent is not None):
                intents[intent.receipt.path, intent.receipt.annotation_id] = replace(intent, batch=number)
        write_ledger(session.receipts, self.task, intents.values())
        for done, (number, action, batch) in enumerate(batches):
            session.on_step("regions", done, len(batches))
            shapes = [shape for send in batch for shape in send.shapes]
            if action != "create":
                shapes = self._unchanged(shapes, held)
            if not shapes:
                continue
            answer = session.server.patch_annotations(self.task, action, shapes)
            if action == "create" and len(answer) != len(shapes):
                raise ServerError(
                    f"of {len(shapes)} shapes for task {self.task} the server kept {len(answer)}; look at the task, "
                    "and run the same command again"
                )
            self.answered.add(number)
            note_answer(session.receipts, self.task, session.server.clock)
        session.on_step("regions", len(batches), len(batches))

    def _unchanged(self, shapes: Sequence[Row], held: HeldTask) -> list[Row]:
        """Shapes that are on the server now just as they were when the changes were planned."""
        before = {shape["id"]: shape for rows in held.shapes.values() for shape in rows}
        jobs = {int(job["id"]) for shape in shapes if (job := held.job_of(int(shape["frame"]))) is not None}
        read = (self.session.server.annotations_of_job(job) for job in sorted(jobs))
        now = {shape["id"]: shape for values in read for shape in values.get("shapes") or ()}
        return [shape for shape in shapes if _essence(now.get(shape["id"])) == _essence(before.get(shape["id"]))]

    def _batched(self, sends: Sequence[Send], most: int) -> Iterator[list[Send]]:
        batch: list[Send] = []
        size = count = 0
        for send in sends:
            weight = sum(len(json.dumps(shape)) for shape in send.shapes)
            if batch and (size + weight > self.session.limit_bytes or count + len(send.shapes) > most):
                yield batch
                batch, size, count = [], 0, 0
            batch.append(send)
            size, count = size + weight, count + len(send.shapes)
        if batch:
            yield batch


def _most(action: Deed) -> int:
    """Return how many shapes go into one request."""
    return MAX_SHAPES if action == "create" else MAX_CHANGES


def _essence(shape: Row | None) -> object:
    """Return what a person can change about a shape, whatever order the server lists attributes in."""
    if shape is None:
        return None
    notes = sorted((int(item["spec_id"]), str(item["value"])) for item in shape.get("attributes") or ())
    flags = shape.get("source"), shape.get("occluded"), shape.get("z_order"), shape.get("group") or 0
    return part_digest(shape), flags, notes
