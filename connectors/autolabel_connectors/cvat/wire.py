"""Beneath cvat-sdk: time limits, and which request may be sent again after which fault.

A reading request is repeated after anything that passes by itself. A writing one only where it is certain that the
server did not carry it out: it never got there, or was turned away before (429, 503 with ``Retry-After``). All else
ends as UncertainError, and who asked reads what the server holds before going on.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3 import exceptions as faults

from autolabel.errors import ServerError
from autolabel_connectors.cvat.errors import UncertainError

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 15.0
READ_SECONDS = 180.0
PATIENCE_SECONDS = 120.0
"""How long the waits for one request add up to before it is given up: a server's restart fits in."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_NEVER_SENT = (faults.NewConnectionError, faults.ConnectTimeoutError, faults.NameResolutionError, faults.ProxyError)


class Wire:
    """Stands in for the SDK's connection pool and hands every request on to it, with time limits and repeats."""

    def __init__(
        self,
        pool: urllib3.PoolManager,
        *,
        patience: float = PATIENCE_SECONDS,
        timeout: urllib3.Timeout | None = None,
        pace: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._pool = pool
        self._patience = patience
        self._timeout = timeout or urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
        self._pace = pace
        self._sleep = sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def request(self, method: str, url: str, **options: Any) -> urllib3.BaseHTTPResponse:
        """Send a request; raises UncertainError or ServerError when no answer can be had."""
        # The answer is read here, so that a connection that breaks in the middle of it is repeated like any other.
        options |= {"timeout": options.get("timeout") or self._timeout, "preload_content": True}
        options["retries"] = urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5)
        resumed = "Tus-Resumable" in (options.get("headers") or {}) and method in {"PATCH", "HEAD"}
        waited, attempt = 0.0, 0
        while True:
            attempt += 1
            try:
                response = self._pool.request(method, url, **_copied(options))
            except faults.HTTPError as error:
                fault = error.reason if isinstance(error, faults.MaxRetryError) and error.reason else error
                if resumed and not isinstance(fault, _NEVER_SENT):
                    raise  # the SDK asks the server how much of the file it has, and goes on from there
                pause = self._pause_after(method, url, fault, attempt, waited)
            else:
                after = response.headers.get("Retry-After")
                if not self._again(method, response.status, after):
                    return response
                pause = _retry_after(after) or _backoff(attempt) * self._pace
                if waited + pause > self._patience:
                    return response
            logger.warning("%s %s: trying again in %.1f s", method, urlsplit(url).path, pause)
            self._sleep(pause)
            waited += pause

    @staticmethod
    def _again(method: str, status: int, after: str | None) -> bool:
        if method in _SAFE:
            return status in _PASSING
        return status == 429 or (status == 503 and after is not None)

    def _pause_after(self, method: str, url: str, fault: Exception, attempt: int, waited: float) -> float:
        """Seconds to wait before the next try; raises when there should be none."""
        parts = urlsplit(url)
        where = f"{parts.scheme}://{parts.netloc.split('@')[-1]}"
        if isinstance(fault, faults.SSLError):
            raise ServerError(
                f"{where}: the connection is not trusted ({_reason(fault)}); check the URL, or name the certificate "
                "authority in SSL_CERT_FILE"
            ) from None
        sent = not isinstance(fault, _NEVER_SENT)
        pause = _backoff(attempt) * self._pace
        if (sent and method not in _SAFE) or waited + pause > self._patience:
            if sent and method not in _SAFE:
                raise UncertainError(
                    f"{method} {parts.path}: the connection to {where} was lost before the answer came "
                    f"({_reason(fault)})"
                ) from None
            raise ServerError(
                f"{where} cannot be reached ({_reason(fault)}; {attempt} tries); check the URL and that the server is "
                "up, and run the same command again: it continues where it was"
            ) from None
        return pause


def _copied(options: Mapping[str, Any]) -> dict[str, Any]:
    """Copy what the pool may change, so that a repeat sends the same."""
    return {key: dict(value) if key == "headers" and value else value for key, value in options.items()}


def _backoff(attempt: int) -> float:
    """0.5, 1, 2 … 30 s, a little scattered so that several clients do not come back together."""
    return float(min(30.0, 0.5 * 2.0 ** (attempt - 1)) * random.uniform(0.8, 1.2))


def _retry_after(value: str | None) -> float:
    """Seconds of a Retry-After header, a number or a date; 0 where there is none."""
    if not value:
        return 0.0
    try:
        return max(0.05, float(urllib3.Retry().parse_retry_after(value)))
    except (faults.InvalidHeader, ValueError):
        return 0.0


def _reason(fault: Exception) -> str:
    if isinstance(fault, faults.ReadTimeoutError | faults.ConnectTimeoutError):
        return "time ran out"
    if isinstance(fault, faults.NameResolutionError):
        return "unknown host"
    text = str(fault).rsplit(":", 1)[-1].strip(" ()'\"")
    return f"{type(fault).__name__}, {text}" if text else type(fault).__name__
