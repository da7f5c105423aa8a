"""All that the stand-in remembers, as plain dictionaries, in memory and if asked in a file."""

from __future__ import annotations

import pickle
import secrets
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass
class State:
    """Rows by id. Annotations by job: ``{"tags" | "shapes" | "tracks": {id: row}}``."""

    users: dict[int, Row] = field(default_factory=dict)
    sessions: dict[str, Row] = field(default_factory=dict)
    tokens: dict[int, Row] = field(default_factory=dict)
    projects: dict[int, Row] = field(default_factory=dict)
    labels: dict[int, Row] = field(default_factory=dict)
    tasks: dict[int, Row] = field(default_factory=dict)
    data: dict[int, Row] = field(default_factory=dict)
    jobs: dict[int, Row] = field(default_factory=dict)
    annotations: dict[int, dict[str, dict[int, Row]]] = field(default_factory=dict)
    issues: dict[int, Row] = field(default_factory=dict)
    comments: dict[int, Row] = field(default_factory=dict)
    requests: dict[str, Row] = field(default_factory=dict)
    uploads: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tus: dict[str, Row] = field(default_factory=dict)
    organizations: dict[int, Row] = field(default_factory=dict)
    cloudstorages: dict[int, Row] = field(default_factory=dict)
    webhooks: dict[int, Row] = field(default_factory=dict)
    functions: dict[int, Row] = field(default_factory=dict)
    function_requests: dict[str, Row] = field(default_factory=dict)
    events: list[Row] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    clock: str = ""

    def next_id(self, kind: str) -> int:
        self.counters[kind] += 1
        return self.counters[kind]

    def now(self) -> str:
        """UTC time that never stands still, so that a later change always has a later date."""
        moment = datetime.now(UTC)
        if self.clock:
            moment = max(moment, datetime.fromisoformat(self.clock) + timedelta(microseconds=1))
        self.clock = moment.isoformat()
        return as_text(moment)

    def add_user(self, username: str, password: str, *, admin: bool = False) -> Row:
        number = self.next_id("user")
        self.users[number] = {
            "id": number,
            "username": username,
            "password": password,
            "first_name": "",
            "last_name": "",
            "email": f"{username}@example.com",
            "groups": ["admin" if admin else "user"],
            "is_staff": admin,
            "is_superuser": admin,
            "is_active": True,
            "last_login": None,
            "date_joined": self.now(),
            "key": secrets.token_hex(20),
        }
        return self.users[number]

    def copied(self) -> State:
        return pickle.loads(pickle.dumps(self))

    def save(self, path: Path) -> None:
        """Replace the file at once, so that a killed process leaves a whole one."""
        part = path.with_suffix(".part")
        part.write_bytes(pickle.dumps(self))
        part.replace(path)

    @staticmethod
    def load(path: Path) -> State:
        return pickle.loads(path.read_bytes())


def as_text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
