"""Bringing tasks that are there up to date: what differs, sent in place, and read again.

A prediction that differs is changed by its id, one request each: the server has none for many, and to delete it and
make another would refuse the work of a person who has the task open at that moment. What was changed is read again.
Where a person began to work on a task just then, the prediction is put back: it is what that person was shown.

A task's data can only be replaced as a whole, and on no condition. So it is read once more right before, or what
somebody else wrote there since the project was compared would be lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from autolabel_connectors.label_studio.compose import Wanted
from autolabel_connectors.label_studio.errors import MissingError, UnsureError
from autolabel_connectors.label_studio.remote import PAGE, RemoteTask, chunks, read_tasks
from autolabel_connectors.label_studio.session import Session, count_regions
from autolabel_connectors.receipts import Receipt

_Call = tuple[str, str, Any]


@dataclass(frozen=True, slots=True)
class Edit:
    """What one task lacks: fields of its data, requests, and ``bare`` where a prediction is missing altogether."""

    task: RemoteTask
    wanted: Wanted
    extra: Mapping[str, Any] = field(default_factory=dict)
    calls: tuple[_Call, ...] = ()
    bare: bool = False

    @property
    def needed(self) -> bool:
        """Whether anything has to be sent."""
        return bool(self.extra or self.calls or self.bare)


def find_edit(session: Session, task: RemoteTask, wanted: Wanted) -> Edit:
    """List what brings one task up to date, and tell of it."""
    tell, path = session.account.tell, wanted.image.path
    calls: list[_Call] = []
    extra = {name: value for name, value in wanted.extra.items() if task.data.get(name, "") != value}
    if extra:
        tell("update task", path, ", ".join(extra), key=path)
    main, *spare = task.ours or (None,)
    for twin in spare:
        assert twin is not None
        tell("remove prediction", path, "it is there twice", key=str(twin["id"]))
        calls.append(("DELETE", f"/api/predictions/{twin['id']}/", None))
    bare = main is None and bool(wanted.result)
    if bare:
        tell("create prediction", path, count_regions(len(wanted.marks)), key=path)
    elif main is not None and not wanted.held_by(main):
        tell("update prediction", path, _what_changed(main, wanted), key=path)
        calls.append(("PATCH", f"/api/predictions/{main['id']}/", wanted.prediction))
    return Edit(task, wanted, extra, tuple(calls), bare)


def send_edits(session: Session, edits: Sequence[Edit], pool: Executor) -> int:
    """Send what differs, read it again, and write receipts; returns how many predictions were added.

    Raises UnsureError where the server holds something else afterwards.
    """
    bare = [edit for edit in edits if edit.bare]
    try:
        for sent in [pool.submit(_send, session, edit) for edit in edits if edit.extra or edit.calls]:
            sent.result()
        for batch in chunks(bare, session.limit):
            _add_predictions(session, batch)
    except MissingError as error:
        raise UnsureError(f"{error}; somebody deleted it meanwhile") from None
    changed = [edit for edit in edits if edit.needed]
    taken = {task for batch in chunks(changed, PAGE) for task in _checked(session, batch)}
    _put_receipts(session, [edit for edit in edits if edit.task.id not in taken])
    return len(bare)


def _send(session: Session, edit: Edit) -> None:
    if edit.extra:
        place = f"/api/tasks/{edit.task.id}/"
        data = dict(session.api.get(place, {"resolve_uri": "false"}, doing="read a task")["data"])
        session.api.request("PATCH", place, body={"data": {**data, **edit.extra}}, doing="update a task")
    for method, path, body in edit.calls:
        session.api.request(method, path, body=body, doing="update a prediction")


def _add_predictions(session: Session, edits: Sequence[Edit]) -> None:
    body = [{"task": edit.task.id, **edit.wanted.prediction} for edit in edits]
    answer = session.api.request(
        "POST",
        f"/api/projects/{session.project.id}/import/predictions",
        body=body,
        doing=f"send {len(body)} predictions",
    )
    if int(answer.get("created", -1)) != len(body):
        raise UnsureError(f"of {len(body)} predictions the server kept {answer.get('created')}")


def _checked(session: Session, edits: Sequence[Edit]) -> list[int]:
    """Read tasks again that were changed; returns those that a person has taken up meanwhile, which are put back."""
    held = {task.id: task for task in _read(session, [edit.task.id for edit in edits])}
    taken: list[int] = []
    for edit in edits:
        now = held.get(edit.task.id)
        if now is None:
            continue  # deleted meanwhile, which the next push finds out about
        if now.people:
            _put_back(session, edit, now)
            taken.append(now.id)
        elif _differs(now, edit.wanted):
            raise UnsureError(f"{edit.wanted.image.path}: the server does not hold what it was sent")
    return taken


def _differs(task: RemoteTask, wanted: Wanted) -> bool:
    """Tell whether a task is not as it should be."""
    shown = len(task.ours) == bool(task.ours or wanted.result) and all(map(wanted.held_by, task.ours))
    return not shown or any(task.data.get(name, "") != value for name, value in wanted.extra.items())


def _put_back(session: Session, edit: Edit, now: RemoteTask) -> None:
    before = {int(prediction["id"]): prediction for prediction in edit.task.ours}
    for prediction in now.ours:
        old = before.get(int(prediction["id"]))
        place = f"/api/predictions/{prediction['id']}/"
        if old is None:
            session.api.request("DELETE", place)
        elif any(old.get(name) != prediction.get(name) for name in edit.wanted.prediction):
            session.api.request("PATCH", place, body={name: old.get(name) for name in edit.wanted.prediction})
    session.account.warn(
        f"{edit.wanted.image.path}: somebody began to work on task {now.id} during the push; it shows what they saw"
    )


def _put_receipts(session: Session, edits: Iterable[Edit]) -> None:
    """Record regions that are there now; where receipts say so already, nothing is written."""
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    new: list[Receipt] = []
    gone: list[Receipt] = []
    for edit in edits:
        known = {receipt.annotation_id: receipt for receipt in session.receipts.of(edit.wanted.image.path)}
        for receipt in edit.wanted.receipts(edit.task.id, now):
            old = known.pop(receipt.annotation_id, None)
            if old is None or _facts(old) != _facts(receipt):
                new.append(receipt)
        gone += known.values()
    session.receipts.put(new)
    session.receipts.drop(gone)


def _read(session: Session, ids: Sequence[int]) -> list[RemoteTask]:
    return [task for page, _ in read_tasks(session.api, session.project.id, ids) for task in page]


def _what_changed(old: Mapping[str, Any], wanted: Wanted) -> str:
    before = {part["id"]: part for part in old.get("result") or () if isinstance(part, Mapping) and "id" in part}
    after = {part["id"]: part for part in wanted.result}
    added, gone = len(after.keys() - before.keys()), len(before.keys() - after.keys())
    changed = sum(before[uid] != after[uid] for uid in before.keys() & after.keys())
    parts = [f"{n} regions {what}" for n, what in ((added, "added"), (gone, "removed"), (changed, "changed")) if n]
    if old.get("model_version") != wanted.version:
        parts.append(f"now of {wanted.version}")
    return ", ".join(parts) or "score or order"


def _facts(receipt: Receipt) -> tuple[Any, ...]:
    return tuple(getattr(receipt, name) for name in Receipt.__slots__ if name != "pushed_at")
