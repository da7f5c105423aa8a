"""Who did what and when, as far as CVAT's event log tells.

A shape itself says neither. The log is there where the server runs with analytics, and it shows everybody's events to
administrators, and to the owner and maintainers of an organization; others see their own alone.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from autolabel_connectors.cvat.client import Cvat, wait_for
from autolabel_connectors.cvat.errors import DeniedError, GoneError, StrangerError, UncertainError
from autolabel_connectors.moments import as_moment, later
from autolabel_connectors.receipts import Receipt
from autolabel_connectors.shapes import Region

_PATIENCE_SECONDS = 120.0
_MOST_PAYLOAD = 2**27
_CLOCKS_APART = 300.0
"""Seconds by which this machine's clock and the server's may differ."""


@dataclass(frozen=True, slots=True)
class Deed:
    """Who did something, and when (UTC, ISO 8601)."""

    by: str
    at: str


@dataclass(slots=True)
class History:
    """What the event log tells; ``silence`` says why it tells nothing.

    ``drawn`` holds who made or changed each shape, the latest last; ``deleted`` who removed it; ``moved`` who last
    changed a job's stage or state; ``seconds`` how long people worked on each job.
    """

    me: str = ""
    silence: str = ""
    drawn: dict[str, list[Deed]] = field(default_factory=dict)
    deleted: dict[str, Deed] = field(default_factory=dict)
    moved: dict[int, Deed] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    def edit(self, receipt: Receipt, region: Region, answered: str = "") -> Deed | None:
        """Who gave a region of ours the form it has; our own push of it is no such deed.

        ``answered`` is when the server, by its clock, last answered a push to the task.
        """
        ours = _ours_until(receipt, answered)
        deeds = (deed for part in region.part_ids for deed in self.drawn.get(part, ()))
        people = [deed for deed in deeds if deed.by != self.me or deed.at > ours]
        return max(people, key=lambda deed: deed.at, default=None)

    def addition(self, region: Region) -> Deed | None:
        """Who drew a region that is not ours, or changed it last."""
        deeds = (deed for part in region.part_ids for deed in self.drawn.get(part, ()))
        return max(deeds, key=lambda deed: deed.at, default=None)

    def deletion(self, receipt: Receipt) -> Deed | None:
        """Who removed a region of ours."""
        deeds = (self.deleted[part] for part in receipt.remote_ids if part in self.deleted)
        return max(deeds, key=lambda deed: deed.at, default=None)

    def take(self, row: Mapping[str, str]) -> None:
        """Take in one line of the log."""
        scope, job = row.get("scope") or "", int(row.get("job_id") or 0)
        deed = Deed(row.get("user_name") or row.get("user_email") or "", as_moment(row.get("timestamp") or ""))
        if scope in ("create:shapes", "update:shapes"):
            for shape in _shapes(row):
                self.drawn.setdefault(shape, []).append(deed)
        elif scope == "delete:shapes":
            self.deleted |= dict.fromkeys(_shapes(row), deed)
        elif scope == "update:job" and row.get("obj_name") in ("stage", "state"):
            self.moved[job] = deed
        elif scope == "send:working_time":
            self.seconds[job] = self.seconds.get(job, 0.0) + float(row.get("duration") or 0) / 1000


def read_history(server: Cvat, project: int, since: str) -> History:
    """Read the event log of a project from the moment ``since``; raises ServerError where the server cannot be had."""
    me = str(server.user.get("username") or "")
    plugins = server.find("/api/server/plugins") or {}
    if not plugins.get("ANALYTICS"):
        return History(me, "the server keeps no event log (its analytics are off)")
    try:
        status = wait_for(server, _export(server, project, since), patience=_PATIENCE_SECONDS)
        if status is None or status["status"] != "finished" or not status.get("result_url"):
            return History(me, "the server could not write its event log out")
        address = urlsplit(str(status["result_url"]))
        text = server.text(address.path, **dict(parse_qsl(address.query)))
    except StrangerError:
        raise
    except (DeniedError, GoneError):
        return History(me, "the server does not show this user its event log")
    return _read(me, text)


def _export(server: Cvat, project: int, since: str) -> str:
    """Have the log written out and return the request's id; to ask twice does no harm."""
    query = {"project_id": project, "from": since}
    for last in (False, False, True):
        try:
            return str(server.call("POST", "/api/events/export", query=query, harmless=True)["rq_id"])
        except UncertainError:
            if last:
                raise
    raise AssertionError


def _read(me: str, text: str) -> History:
    history = History(me)
    csv.field_size_limit(max(csv.field_size_limit(), _MOST_PAYLOAD))
    rows = csv.DictReader(io.StringIO(text, newline=""))
    for row in sorted(rows, key=lambda row: as_moment(row.get("timestamp") or "")):
        history.take(row)
    return history


def _shapes(row: Mapping[str, str]) -> Iterable[str]:
    """Ids of the shapes that one line is about."""
    try:
        return [str(shape["id"]) for shape in json.loads(row.get("payload") or "{}")["shapes"]]
    except (ValueError, KeyError, TypeError):
        return []


def _ours_until(receipt: Receipt, answered: str) -> str:
    """Return the moment up to which what our own user did to a region may have been the push of it."""
    if answered:
        return later(answered, 1.0)  # it is in whole seconds
    return later(receipt.pushed_at, _CLOCKS_APART) if receipt.pushed_at else "~"
