"""Doubts as review issues on a job: raised once, resolved when nothing is doubted any more, else as people leave them.

An issue is told by its frame and position. Only one that we raised, under our own comment alone, is ever resolved or
opened again: what a person raised, resolved, deleted or commented on is theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autolabel.types import Box, LabelIssue
from autolabel_connectors.cvat.client import Row
from autolabel_connectors.cvat.compose import Wanted, message_of
from autolabel_connectors.cvat.errors import DeniedError, StrangerError, UncertainError
from autolabel_connectors.cvat.frames import Frame, OurTask
from autolabel_connectors.cvat.held import HeldTask
from autolabel_connectors.cvat.session import Session
from autolabel_connectors.ranking import flagged

Position = tuple[float, float, float, float]
Place = tuple[int, Position]
"""Frame, and position on it."""

_TRIES = 5


@dataclass(frozen=True, slots=True)
class _Wish:
    """An issue that there should be: the doubts it stands for, by key."""

    path: str
    keys: tuple[str, ...]
    message: str


@dataclass(slots=True)
class Issues:
    """The issues of one task; ``frames`` are those that are ours to change."""

    session: Session
    task: OurTask
    frames: Sequence[Frame]
    held: HeldTask
    wanted: Mapping[int, Wanted]

    def settle(self) -> None:
        """Raise, resolve and reopen what differs; jobs that are closed are left."""
        session = self.session
        known = dict(session.receipts.noted(self._note) or {})
        wishes = dict(self._wishes(known))
        try:
            self._raise({place: wish for place, wish in wishes.items() if place not in _places(known)}, known)
            if session.judged:
                self._resolve(set(_places(known)) - wishes.keys(), known)
                closed = {p: wish for p, wish in wishes.items() if _state(known, p) in ("closing", "closed")}
                self._reopen(closed, known)
        except StrangerError:
            raise
        except DeniedError as error:
            session.account.warn(f"doubts are not all shown as review issues: {error}")

    @property
    def _note(self) -> str:
        return f"issues:{self.task.id}"

    def _open_frames(self) -> Iterator[Frame]:
        for frame in self.frames:
            if not frame.deleted and not self.held.closed(frame.number):
                yield frame

    def _job(self, place: Place) -> int:
        return int((self.held.job_of(place[0]) or {})["id"])

    def _wishes(self, known: Mapping[str, Any]) -> Iterator[tuple[Place, _Wish]]:
        """Issues that there should be; one for a region that has one stays where that was raised."""
        session = self.session
        found: dict[Place, dict[str, tuple[str, str]]] = {}
        for frame in self._open_frames():
            wanted = self.wanted[frame.number]
            on_server = None if session.dry else {r.annotation_id for r in session.receipts.of(frame.path)}
            for key, box, doubts in by_region(session.composer.doubts(wanted.image), wanted):
                if key in known:
                    place = _noted_place(known[key])
                elif on_server is not None and box is None and key not in on_server:
                    continue
                else:
                    place = frame.number, _position(box or wanted.annotations[key].box)
                found.setdefault(place, {})[key] = frame.path, message_of(doubts)
        for place, entries in found.items():
            texts = dict.fromkeys(message for _, message in entries.values())
            yield place, _Wish(next(iter(entries.values()))[0], tuple(entries), "; ".join(texts))

    def _raise(self, wishes: Mapping[Place, _Wish], known: dict[str, Any]) -> None:
        session = self.session
        for job, places in self._by_job(wishes).items():
            fresh = set(places)
            for attempt in range(_TRIES):
                fresh -= self._standing(job, places, heal=attempt > 0)
                if not fresh:
                    break
                for place in sorted(fresh):
                    wish = wishes[place]
                    session.account.tell("raise issue", wish.path, wish.message, key=f"{place}")
                    if not session.dry:
                        self._post(job, place, wish, last=attempt == _TRIES - 1)
                if session.dry:
                    break
            for place in places:
                for key in wishes[place].keys:
                    known[key] = _fact(place, "open", wishes[place].message)
            self._remember(known)

    def _post(self, job: int, place: Place, wish: _Wish, *, last: bool) -> None:
        body = {"frame": place[0], "position": list(place[1]), "job": job, "message": wish.message}
        try:
            self.session.server.call("POST", "/api/issues", body=body)
        except UncertainError:
            if last:
                raise

    def _resolve(self, places: Collection[Place], known: dict[str, Any]) -> None:
        """Resolve issues at places that nothing is doubted at any more."""
        paths = {frame.number: frame.path for frame in self._open_frames()}
        stale = [place for place in places if place[0] in paths and _state(known, place) in ("open", "closing")]
        for job, there in self._by_job(stale).items():
            ours = dict(self._ours(job, there, known))
            # One that people resolved, deleted or wrote to is theirs from now on; unless a kill cut us off halfway.
            mine = {p: row for p, row in ours.items() if not row.get("resolved") or _state(known, p) == "closing"}
            self._mark(known, set(there) - mine.keys(), "left")
            self._mark(known, mine.keys(), "closing")
            for place, row in mine.items():
                self._change(row, resolved=True, told=("resolve issue", paths[place[0]], place))
            self._mark(known, mine.keys(), "closed")

    def _reopen(self, wishes: Mapping[Place, _Wish], known: dict[str, Any]) -> None:
        """Open issues again that we had resolved and that stand for a doubt once more."""
        for job, there in self._by_job(wishes).items():
            for place, row in self._ours(job, there, known):
                self._change(row, resolved=False, told=("reopen issue", wishes[place].path, place))
            self._mark(known, there, "open")

    def _change(self, row: Row, *, resolved: bool, told: tuple[str, str, Place]) -> None:
        session, (what, path, place) = self.session, told
        if bool(row.get("resolved")) == resolved:
            return
        session.account.tell(what, path, key=f"{place}")
        for last in (False, False, True):
            if session.dry:
                return
            try:
                session.server.call("PATCH", f"/api/issues/{row['id']}", body={"resolved": resolved})
            except UncertainError:
                if last:
                    raise
            else:
                return

    def _ours(self, job: int, places: Collection[Place], known: Mapping[str, Any]) -> Iterator[tuple[Place, Row]]:
        """Issues at ``places`` that we raised and nobody else said anything to."""
        server = self.session.server
        words = {_noted_place(fact): fact["words"] for fact in known.values()}
        for row in list(server.listed("/api/issues", job_id=job)):
            place = _place(row)
            ours = (row.get("owner") or {}).get("id") == server.user.get("id")
            if place not in places or not ours or (row.get("comments") or {}).get("count") != 1:
                continue
            (*comments,) = server.listed("/api/comments", issue_id=row["id"])
            if [_words(str(comment.get("message"))) for comment in comments] == [words[place]]:
                yield place, row

    def _standing(self, job: int, places: Collection[Place], *, heal: bool) -> set[Place]:
        """Places that have an issue, resolved or not; with ``heal`` one that was delivered twice is removed."""
        seen: set[Place] = set()
        for row in list(self.session.server.listed("/api/issues", job_id=job)):
            place = _place(row)
            if place in seen and heal and not row.get("resolved") and (row.get("comments") or {}).get("count", 1) <= 1:
                self.session.server.call("DELETE", f"/api/issues/{row['id']}")
            elif place in places:
                seen.add(place)
        return seen

    def _by_job(self, places: Iterable[Place]) -> dict[int, list[Place]]:
        found: dict[int, list[Place]] = {}
        for place in places:
            found.setdefault(self._job(place), []).append(place)
        return found

    def _mark(self, known: dict[str, Any], places: Collection[Place], state: str) -> None:
        for key, fact in known.items():
            if _noted_place(fact) in places:
                known[key] = {**fact, "state": state}
        self._remember(known)

    def _remember(self, known: Mapping[str, Any]) -> None:
        if not self.session.dry:
            self.session.receipts.note(self._note, dict(known))


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


def _fact(place: Place, state: str, message: str) -> dict[str, Any]:
    return {"frame": place[0], "position": list(place[1]), "state": state, "words": _words(message)}


def _noted_place(fact: Mapping[str, Any]) -> Place:
    x0, y0, x1, y1 = fact["position"]
    return int(fact["frame"]), (x0, y0, x1, y1)


def _places(known: Mapping[str, Any]) -> dict[Place, str]:
    return {_noted_place(fact): fact["state"] for fact in known.values()}


def _state(known: Mapping[str, Any], place: Place) -> str:
    return _places(known).get(place, "open")


def _words(message: str) -> str:
    """Stand for a comment's text."""
    return hashlib.sha256(" ".join(message.split()).encode()).hexdigest()[:12]


def _place(row: Row) -> Place:
    numbers = [round(float(value), 2) for value in row.get("position") or ()]
    numbers = numbers if len(numbers) == 4 else [0.0] * 4
    return int(row["frame"]), (numbers[0], numbers[1], numbers[2], numbers[3])


def _position(box: Box) -> Position:
    x0, y0, x1, y1 = (round(value, 2) for value in box.xyxy)
    return x0, y0, x1, y1
