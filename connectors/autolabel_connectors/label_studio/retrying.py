"""Patience with a server in trouble: which requests are repeated, how often, and after what wait.

A request is repeated when that cannot do anything twice: reads, and writes that set or delete what they name (GET, PUT,
PATCH, DELETE, and a POST marked `REPEATABLE`). Another POST is repeated only when the server certainly did not take it:
no connection, or an answer of 429.
"""

from __future__ import annotations

import email.utils
import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

REPEATABLE = "autolabel_repeatable"
"""Extension of a request: executing it twice is the same as once."""

TROUBLE = frozenset({500, 502, 503, 504, 507, 508, 520, 521, 522, 523, 524})
NOT_TAKEN = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_HARMLESS_TWICE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on: waits double from ``first_s`` to ``longest_s`` until ``limit_s`` of trouble have passed."""

    first_s: float = 0.5
    longest_s: float = 15.0
    limit_s: float = 120.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def wait_s(self, tries: int, asked_s: float | None) -> float:
        """Seconds before try number ``tries`` + 1: what the server asked for, else a doubling wait with jitter."""
        if asked_s is not None:
            return asked_s
        return float(min(self.longest_s, self.first_s * 2**tries) * random.uniform(0.75, 1.0))


class Retrying(httpx.BaseTransport):
    """A transport that repeats what may be repeated; see the module's rules."""

    def __init__(self, inner: httpx.BaseTransport, patience: Patience) -> None:
        self._inner, self._patience = inner, patience

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and send again while the server is in trouble; the answer is read whole."""
        harmless = repeatable(request)
        started, tries = self._patience.clock(), 0
        while True:
            asked: float | None = None
            try:
                response = self._inner.handle_request(request)
                response.read()  # a connection that ends inside the body is found here, where it can be helped
            except httpx.TransportError as error:
                if not (harmless or isinstance(error, NOT_TAKEN)) or self._over(started, 0.0):
                    raise
            else:
                again = response.status_code == 429 or (harmless and response.status_code in TROUBLE)
                asked = _retry_after(response)
                if not again or self._over(started, asked or 0.0):
                    return response
            self._patience.sleep(self._patience.wait_s(tries, asked))
            tries += 1

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()

    def _over(self, started: float, ahead_s: float) -> bool:
        return self._patience.clock() - started + ahead_s > self._patience.limit_s


def open_transport(url: str) -> httpx.HTTPTransport:
    """Keep connections open where opening one is dear: to a server with TLS.

    Without TLS it is most often Label Studio's own server that answers, which sends the head of an answer and its body
    apart. On a connection that is kept, the body then waits for the acknowledgement of the head, and that is held back
    for 40 ms: longer than the whole of most requests. The first answer on a new connection is acknowledged at once.
    """
    if url.startswith("https://"):
        return httpx.HTTPTransport()
    # An empty list of authorities is made at once, and trusts nobody.
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.HTTPTransport(verify=nobody, limits=httpx.Limits(max_keepalive_connections=0))


def repeatable(request: httpx.Request) -> bool:
    """Tell whether a request may be executed twice."""
    return request.method in _HARMLESS_TWICE or bool(request.extensions.get(REPEATABLE))


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds a server asks us to wait: a number or a date; at most two minutes."""
    text = response.headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isdigit():
        return float(min(int(text), 120))
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max((moment - datetime.now(UTC)).total_seconds(), 0.0), 120.0)
