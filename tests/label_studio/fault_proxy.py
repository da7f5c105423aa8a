"""A proxy that hurts: it stands before a real server and loses, delays, doubles or refuses chosen requests.

::

    with FaultProxy(server.url) as proxy:
        proxy.faults = first_time("drop after")      # every request once; what is repeated gets through
        proxy.faults = at(7, "double")               # the seventh request alone
        ... requests to proxy.url ...
        proxy.requests                               # "POST /api/projects/3/import", in order
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

Fault = Literal["drop before", "drop after", "cut", "delay", "double", "refuse", "fail after", "throttle", "too large"]
FAULTS: tuple[Fault, ...] = ("drop before", "drop after", "cut", "double", "refuse", "fail after", "throttle")
Faults = Callable[[int, str, bytes], "Fault | None"]
"""Chooses by the number of the request (1 is the first), ``METHOD /path`` and body."""


def at(number: int, fault: Fault) -> Faults:
    """Hurt one request."""
    return lambda place, request, body: fault if place == number else None


def first_time(fault: Fault) -> Faults:
    """Hurt every request once: sent again with the same body, it gets through."""
    seen: set[tuple[str, int]] = set()

    def choose(place: int, request: str, body: bytes) -> Fault | None:
        # Files of an upload have another boundary each time.
        key = (request, len(body))
        if key in seen:
            return None
        seen.add(key)
        return fault

    return choose


class FaultProxy:
    """Forwards to ``upstream``; use as a context manager."""

    def __init__(self, upstream: str, delay_s: float = 1.0) -> None:
        self.upstream, self.delay_s = upstream, delay_s
        self.faults: Faults = lambda place, request, body: None
        self.before: Callable[[int], None] = lambda place: None
        self.after: Callable[[int], None] = lambda place: None
        self.requests: list[str] = []
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with suppress(ConnectionError):
                    super().handle_one_request()

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

            def do_GET(self) -> None:
                proxy.handle(self)

            do_POST = do_PATCH = do_DELETE = do_PUT = do_HEAD = do_GET  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def restart(self) -> None:
        """Count from one again."""
        with self._lock:
            self.requests.clear()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request, well or badly."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        request = f"{handler.command} {handler.path}"
        with self._lock:
            self.requests.append(request)
            place = len(self.requests)
        fault = self.faults(place, request, body)
        self.before(place)
        if fault == "drop before":
            return self._hang_up(handler)
        if fault in ("refuse", "throttle", "too large"):
            status = {"refuse": 503, "throttle": 429, "too large": 413}[fault]
            return self._reply(handler, status, [("Retry-After", "0")] if fault == "throttle" else [], b"{}")
        status, headers, answer = self._forward(handler, body)
        if fault == "double":
            self._forward(handler, body)
        self.after(place)
        if fault == "drop after":
            return self._hang_up(handler)
        if fault == "fail after":
            return self._reply(handler, 502, [], b"<html>bad gateway</html>")
        if fault == "delay":
            time.sleep(self.delay_s)
        return self._reply(handler, status, headers, answer, cut=fault == "cut")

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=60)
        try:
            headers = {k: v for k, v in handler.headers.items() if k.lower() not in ("host", "connection")}
            connection.request(handler.command, handler.path, body, headers)
            answer = connection.getresponse()
            skipped = ("connection", "transfer-encoding", "content-length", "date", "server")
            kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in skipped]
            return answer.status, kept, answer.read()
        except OSError:
            return 502, [], b"no upstream"
        finally:
            connection.close()

    def _reply(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        headers: list[tuple[str, str]],
        body: bytes,
        *,
        cut: bool = False,
    ) -> None:
        with suppress(ConnectionError):
            handler.send_response(status)
            for name, value in headers:
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(body) + cut))
            handler.end_headers()
            handler.wfile.write(body)
        if cut:
            self._hang_up(handler)

    def _hang_up(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        with suppress(OSError):
            handler.wfile.flush()
            handler.connection.shutdown(2)
