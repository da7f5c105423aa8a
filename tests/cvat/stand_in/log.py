"""What was asked and what was answered, for tests that count requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from .http import Request, Response


@dataclass
class Entry:
    """One request as it came; no ``response`` and ``status`` 0 mean that no answer was sent."""

    number: int
    request: Request
    fault: str | None = None
    response: Response | None = None

    @property
    def status(self) -> int:
        return self.response.status if self.response else 0

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def path(self) -> str:
        return self.request.path

    @property
    def query(self) -> dict[str, str]:
        return dict(self.request.query)

    @property
    def body(self) -> Any:
        """The body as JSON, None when it is none."""
        try:
            return json.loads(self.request.body)
        except ValueError:
            return None

    def __str__(self) -> str:
        fault = f" [{self.fault}]" if self.fault else ""
        return f"{self.number} {self.method} {self.path} {self.query or ''} -> {self.status or 'no answer'}{fault}"


class Log:
    """All requests since the start or the last ``clear()``."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self.entries))

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, request: Request) -> Entry:
        entry = Entry(len(self.entries) + 1, request)
        self.entries.append(entry)
        return entry

    def clear(self) -> None:
        self.entries = []

    def find(self, method: str = "*", path: str = "*") -> list[Entry]:
        """Entries by method and path, both with ``*`` and ``?`` as wildcards."""
        return [e for e in self if fnmatchcase(e.method, method) and fnmatchcase(e.path, path)]

    def count(self, method: str = "*", path: str = "*") -> int:
        return len(self.find(method, path))

    def writes(self) -> list[Entry]:
        """Entries that could change something, so neither logins nor exports."""
        harmless = ("/api/auth/", "/api/events/export")
        return [e for e in self if e.method not in {"GET", "HEAD", "OPTIONS"} and not e.path.startswith(harmless)]
