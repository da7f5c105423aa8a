"""The stand-in as tests hold it: starts and stops, dispatches, logs, and lets faults happen."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from . import api as _api
from .api.auth import authenticate
from .faults import Fault, Faults, half
from .http import ApiError, Request, Response
from .human import Human
from .listener import Connection, Listener
from .log import Entry, Log
from .routes import allowed, find
from .site import Site
from .state import Row, State

logger = logging.getLogger(__name__)


class StandIn:
    """A CVAT server that runs in a thread of this process; see the package's docstring for how to use it."""

    user = "admin"
    password = "stand-in-password"

    def __init__(
        self,
        *,
        version: str = "2.54.1",
        state_file: Path | None = None,
        share: Path | None = None,
        buckets: dict[str, Path] | None = None,
        polls: tuple[str, ...] = ("started",),
        port: int = 0,
        max_body: int | None = None,
        analytics: bool = True,
    ) -> None:
        self._file = state_file
        state = State.load(state_file) if state_file and state_file.exists() else State()
        if not state.users:
            state.add_user(self.user, self.password, admin=True)
        self.site = Site(
            state, version=version, share=share, buckets=dict(buckets or {}), polls=polls, analytics=analytics
        )
        self.faults = Faults()
        self.log = Log()
        self.human = Human(self.site)
        self.port = port
        self.max_body = max_body
        self.errors: list[str] = []
        self._stopping = threading.Event()
        self._http: Listener | None = None

    # life -----------------------------------------------------------------------------------------

    def start(self) -> StandIn:
        """Listen; on the port of the last time after a ``stop()``."""
        self._stopping.clear()
        self._http = Listener(("127.0.0.1", self.port), Connection)
        self._http.stand_in = self
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Close the port and every open connection; the state stays."""
        self._stopping.set()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http.close_connections()
            self._http = None
        if self._file:
            with self.site.lock:
                self.state.save(self._file)

    def restart(self) -> None:
        """Stop, forget what only lives in memory if there is a state file, and listen on the same port."""
        self.stop()
        if self._file:
            self.site.state = State.load(self._file)
        self.start()

    def __enter__(self) -> StandIn:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # what tests look at ---------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def state(self) -> State:
        return self.site.state

    @property
    def credentials(self) -> tuple[str, str]:
        return self.user, self.password

    def add_user(self, username: str, password: str = "password", *, admin: bool = False) -> Row:
        with self.site.lock:
            return self.state.add_user(username, password, admin=admin)

    def token(self, *, read_only: bool = False, user: str = user, expired: bool = False) -> str:
        """A new access token, as a person makes one in the web interface."""
        with self.site.lock:
            return _api.auth.new_token(self.site, user, read_only=read_only, expired=expired)["value"]

    def expire_logins(self) -> None:
        """End every session and token: whoever does not log in again gets 401 from now on."""
        with self.site.lock:
            self.state.sessions.clear()
            for token in self.state.tokens.values():
                token["expiry_date"] = "2000-01-01T00:00:00.000000Z"

    def snapshot(self) -> State:
        """A copy of all data, for ``rewind``."""
        with self.site.lock:
            return self.state.copied()

    def rewind(self, snapshot: State) -> None:
        """Go back to a snapshot, and forget faults and log: ready for the next round of a test."""
        with self.site.lock:
            self.site.state = snapshot.copied()
        self.faults.clear()
        self.log.clear()

    def each_request(self, work: Callable[[], object]) -> Iterator[int]:
        """Do ``work`` once to count its requests, then yield 1, 2, ... with all as it was before ``work``.

        In the body of the loop set a fault with ``faults.at(number, ...)`` and do the work again.
        """
        start = self.snapshot()
        self.rewind(start)
        work()
        total = len(self.log)
        for number in range(1, total + 1):
            self.rewind(start)
            yield number

    # requests -------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Response:
        """Handle one request and save the state when it may have changed."""
        with self.site.lock:
            acting = self.site.acting
            try:
                response = self._dispatch(request)
            except ApiError as error:
                response = Response(error.body, error.status, dict(error.headers))
            except Exception:
                self.errors.append(traceback.format_exc())
                logger.exception("%s %s", request.method, request.path)
                response = Response(b"<h1>Server Error (500)</h1>", 500, {"Content-Type": "text/html"})
            finally:
                self.site.acting = acting
            if self._file and request.method not in {"GET", "HEAD"}:
                self.state.save(self._file)
        if methods := allowed(request.path):
            response.headers.setdefault("Allow", ", ".join(methods))
        return response

    def _dispatch(self, request: Request) -> Response:
        if request.method == "OPTIONS" and allowed(request.path):
            return Response(None, 200)
        head = request.method == "HEAD" and "HEAD" in allowed(request.path)
        if head and not request.headers.get("tus-resumable"):
            request.method = "GET"
        route, parts = find(request)
        authenticate(self.site, request, public=route.public)
        self.site.acting = request.user["id"] if request.user else 1
        result = route.handler(self.site, request, **parts)
        return result if isinstance(result, Response) else Response(result)

    def serve(self, connection: Connection, request: Request) -> None:
        """Log a request, let a fault have its way with it, answer it."""
        with self.site.lock:
            entry = self.log.add(request)
        fault = self.faults.take(request)
        entry.fault = fault.kind if fault else None
        if fault is None and self.max_body is not None and len(request.body) > self.max_body:
            fault = Fault.error(413)
        if fault is None:
            self._send(connection, entry, self.answer(request))
        else:
            self._fail(connection, entry, fault)

    def _fail(self, connection: Connection, entry: Entry, fault: Fault) -> None:
        request = entry.request
        if fault.kind == "drop":
            connection.abort()
            return
        if fault.kind == "delay":
            self._stopping.wait(fault.seconds)
        if fault.kind == "before" and fault.action:
            fault.action()
        if fault.kind == "twice":
            self.answer(Request(**vars(request)))
        response = fault.answer if fault.kind == "error" else self.answer(request)
        if fault.kind == "after" and fault.action:
            fault.action()
        if fault.kind == "error_after":
            response = fault.answer
        if fault.kind == "drop_after":
            connection.abort()
        elif fault.kind == "cut" and response is not None:
            connection.send(response, half(response))
            connection.abort()
        elif response is not None:
            self._send(connection, entry, response)

    @staticmethod
    def _send(connection: Connection, entry: Entry, response: Response) -> None:
        entry.response = response
        connection.send(response, response.encoded())
