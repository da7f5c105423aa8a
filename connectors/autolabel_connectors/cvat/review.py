"""Doubts as review issues on a job: each is raised once, and stays as people leave it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autolabel.types import Box, LabelIssue
from autolabel_connectors.cvat.client import Row
from autolabel_connectors.cvat.compose import Wanted, message_of
from autolabel_connectors.cvat.errors import UncertainError
from autolabel_connectors.cvat.frames import Frame, OurTask
from autolabel_connectors.cvat.held import HeldTask
from autolabel_connectors.ranking import flagged

if TYPE_CHECKING:
    from autolabel_connectors.cvat.push import Push

Position = tuple[float, float, float, float]
_TRIES = 5


def raise_issues(  # noqa: PLR0912
    push: Push, task: OurTask, frames: Sequence[Frame], held: HeldTask, wanted: dict[int, Wanted]
) -> None:
    """Raise an issue for each flagged doubt of a task's images that has none yet; jobs that are closed are left."""
    assert push._composer is not None
    noted = set(push.receipts.noted(f"issues:{task.id}") or ())
    asked: dict[int, dict[tuple[int, Position], tuple[str, str, str]]] = {}
    for frame in frames:
        job = held.job_of(frame.number)
        if job is None or frame.deleted or held.closed(frame.number):
            continue
        on_server = {r.annotation_id for r in push.receipts.of(frame.path)} if not push.options.dry_run else None
        for key, box, doubts in by_region(push._composer.doubts(wanted[frame.number].image), wanted[frame.number]):
            if key in noted or (on_server is not None and box is None and key not in on_server):
                continue
            place = _position(box or wanted[frame.number].annotations[key].box)
            asked.setdefault(int(job["id"]), {})[frame.number, place] = (key, frame.path, message_of(doubts))
    for job_id, issues in asked.items():
        fresh = dict(issues)
        for attempt in range(_TRIES):
            seen = _standing(push, job_id, set(issues), heal=attempt > 0)
            fresh = {place: issue for place, issue in fresh.items() if place not in seen}
            if not fresh:
                break
            for (number, position), (key, path, message) in fresh.items():
                push._tell("raise issue", path, message, f"issue {key}")
                if push.options.dry_run:
                    continue
                body = {"frame": number, "position": list(position), "job": job_id, "message": message}
                try:
                    push.server.call("POST", "/api/issues", body=body)
                except UncertainError:
                    if attempt == _TRIES - 1:
                        raise
            if push.options.dry_run:
                break
        noted |= {key for key, _, _ in issues.values()}
        if not push.options.dry_run:
            push.receipts.note(f"issues:{task.id}", sorted(noted))


def by_region(doubts: Sequence[LabelIssue], wanted: Wanted) -> list[tuple[str, Box | None, list[LabelIssue]]]:
    """Gather flagged doubts: one entry for a region of ours, one for each place, one for the whole image."""
    found: list[tuple[str, Box | None, list[LabelIssue]]] = []
    ids = dict.fromkeys(d.annotation_id for d in doubts if d.flagged and d.annotation_id)
    found += [(uid, None, flagged(doubts, uid)) for uid in ids if uid in wanted.annotations]
    whole: list[LabelIssue] = []
    for doubt in flagged(doubts, None):
        if doubt.box is None:
            whole.append(doubt)
        else:
            place = ",".join(f"{value:.0f}" for value in doubt.box.xyxy)
            found.append((f"{doubt.path} {doubt.kind} {place}", doubt.box, [doubt]))
    if whole:
        image = wanted.image
        found.append((f"{image.path} whole", Box(0.0, 0.0, float(image.width), float(image.height)), whole))
    return found


def _standing(push: Push, job: int, places: set[tuple[int, Position]], *, heal: bool) -> set[tuple[int, Position]]:
    """Places of ours that have an issue, resolved or not; with ``heal`` one that was delivered twice is removed."""
    seen: set[tuple[int, Position]] = set()
    for row in push.server.listed("/api/issues", job_id=job):
        place = _place(row)
        if place in seen and heal and not row.get("resolved") and (row.get("comments") or {}).get("count", 1) <= 1:
            push.server.call("DELETE", f"/api/issues/{row['id']}")
        elif place in places:
            seen.add(place)
    return seen


def _place(row: Row) -> tuple[int, Position]:
    numbers = [round(float(value), 2) for value in row.get("position") or ()]
    numbers = numbers if len(numbers) == 4 else [0.0] * 4
    return int(row["frame"]), (numbers[0], numbers[1], numbers[2], numbers[3])


def _position(box: Box) -> Position:
    x0, y0, x1, y1 = (round(value, 2) for value in box.xyxy)
    return x0, y0, x1, y1
