"""Faults on purpose: for the n-th request, or for requests of a kind, something goes wrong on the way."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from .http import Request, Response

BODIES: dict[int, Any] = {
    401: {"detail": "Invalid token."},
    403: {"detail": "You do not have permission to perform this action."},
    413: b"<html><head><title>413 Request Entity Too Large</title></head></html>",
    429: {"detail": "Request was throttled. Expected available in 1 second."},
    500: b"<html><body><h1>Server Error (500)</h1></body></html>",
    502: b"<html><head><title>502 Bad Gateway</title></head></html>",
    503: b"<html><head><title>503 Service Temporarily Unavailable</title></head></html>",
    504: b"<html><head><title>504 Gateway Time-out</title></head></html>",
}


@dataclass(frozen=True)
class Fault:
    """What happens to a request. Make one with the methods below."""

    kind: str
    seconds: float = 0.0
    answer: Response | None = None
    action: Callable[[], object] | None = field(default=None, compare=False)

    @staticmethod
    def drop() -> Fault:
        """Close the connection before the request is handled."""
        return Fault("drop")

    @staticmethod
    def drop_after() -> Fault:
        """Handle the request, then close the connection without an answer."""
        return Fault("drop_after")

    @staticmethod
    def cut() -> Fault:
        """Handle the request, send half of the answer's body, close the connection."""
        return Fault("cut")

    @staticmethod
    def twice() -> Fault:
        """Handle the request twice, as a proxy that retries does; the second answer is sent."""
        return Fault("twice")

    @staticmethod
    def delay(seconds: float) -> Fault:
        """Wait, then handle the request."""
        return Fault("delay", seconds=seconds)

    @staticmethod
    def error(status: int, body: Any = None, *, retry_after: float | None = None) -> Fault:
        """Answer ``status`` without handling the request."""
        body = BODIES.get(status, {"detail": "Error."}) if body is None else body
        headers = {"Content-Type": "text/html" if isinstance(body, bytes) else "application/vnd.cvat+json"}
        if retry_after is not None:
            headers["Retry-After"] = f"{retry_after:g}"
        return Fault("error", answer=Response(body, status, headers))

    @staticmethod
    def error_after(status: int, body: Any = None) -> Fault:
        """Handle the request, then answer ``status``, as a gateway does that gave up waiting."""
        return Fault("error_after", answer=Fault.error(status, body).answer)

    @staticmethod
    def expired() -> Fault:
        """Answer as if the token or session had just expired."""
        return Fault.error(401)

    @staticmethod
    def before(action: Callable[[], object]) -> Fault:
        """Call ``action()`` first, e.g. a person's edit that comes just before the request."""
        return Fault("before", action=action)

    @staticmethod
    def after(action: Callable[[], object]) -> Fault:
        """Call ``action()`` once the request is handled and before it is answered."""
        return Fault("after", action=action)


@dataclass
class Rule:
    """Apply ``fault`` to the ``nth`` matching request and the ``times - 1`` after it (None: for ever)."""

    fault: Fault
    nth: int = 1
    times: int | None = 1
    method: str = "*"
    path: str = "*"
    when: Callable[[Request], bool] | None = None
    seen: int = 0
    hits: int = 0

    def applies(self, request: Request) -> bool:
        if not fnmatchcase(request.method, self.method) or not fnmatchcase(request.path, self.path):
            return False
        if self.when is not None and not self.when(request):
            return False
        self.seen += 1
        if self.seen < self.nth or (self.times is not None and self.seen >= self.nth + self.times):
            return False
        self.hits += 1
        return True


class Faults:
    """The rules in force; the first one that applies to a request wins.

    ``server.faults.add(Fault.error(503), method="PATCH", path="/api/tasks/*/annotations/", nth=2)`` fails the
    second such request from now on.

    Mind what the SDK does by itself: a GET, PUT, HEAD or DELETE is repeated three times, after 0, 1 and 2 seconds,
    when the connection breaks or the status is 502, 503 or 504; with ``times=4`` such a request fails for good (and
    raises urllib3's ``MaxRetryError``). A POST or PATCH is sent once. 500, 413, 429 without Retry-After and 401 are
    never repeated; a GET that is answered 413, 429 or 503 with Retry-After is.
    """

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault, **where: Any) -> Rule:
        """Add a rule; ``where`` are the fields of ``Rule``: nth, times, method, path, when."""
        rule = Rule(fault, **where)
        with self._lock:
            self._rules.append(rule)
        return rule

    def at(self, number: int, fault: Fault, *, times: int | None = 1) -> Rule:
        """Hit the ``number``-th request from now on (1 is the next), whatever it is."""
        return self.add(fault, nth=number, times=times)

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()

    def take(self, request: Request) -> Fault | None:
        """The fault for a request, counting it in every rule."""
        with self._lock:
            found = [rule.fault for rule in self._rules if rule.applies(request)]
        return found[0] if found else None


def half(response: Response) -> bytes:
    """The first half of an answer's body, never all of it."""
    encoded = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
    return encoded[: len(encoded) // 2]
