"""The FiftyOne App on a dataset, until the reviewer is done."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from autolabel.errors import ServerError

_TRIED_PORTS = 20
_START_LIMIT_S = 60


def serve(
    fo: ModuleType,
    dataset: Any,
    *,
    remote: bool,
    address: str | None,
    port: int | None,
    on_ready: Callable[[str], None],
) -> None:
    """Open the app and return when its last tab is closed, or on Ctrl-C; ``remote`` opens no browser, and stays."""
    remote = remote or not _has_screen()
    host = address or fo.config.default_app_address or "localhost"
    chosen = _free_port(host, port, fo.config.default_app_port)
    with _ended_by_signals():
        session = None
        try:
            origin = f"http://{'localhost' if host == '0.0.0.0' else host}:{chosen}"
            _start_server(fo, host, chosen)
            _await_answer(origin)
            session = fo.launch_app(dataset, remote=remote, address=host, port=chosen, auto=False)
            on_ready(f"{origin}/datasets/{dataset.slug}")
            session.wait(-1 if remote else 3)
        except KeyboardInterrupt:
            pass  # the reviewer's way to say: done
        finally:
            if session is not None:
                session.close()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let Ctrl-C and a supervisor's SIGTERM end the app in the same orderly way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start_server(fo: ModuleType, address: str, port: int) -> None:
    """Start the app's server before the session that talks to it.

    A session that finds its server still starting tries again ten seconds later, and then resets what a reviewer who
    was faster is looking at.
    """
    services = importlib.import_module("fiftyone.core.session.session")._server_services
    services[port] = fo.core.service.ServerService(port, address=address, do_not_track=fo.config.do_not_track)


def _await_answer(origin: str) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{origin}/fiftyone", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise ServerError(f"the FiftyOne App does not answer at {origin} within {_START_LIMIT_S} s; try another --port")


def _free_port(host: str, wanted: int | None, usual: int) -> int:
    """Return the port that was asked for, or the first free one from the usual one on."""
    if wanted is not None:
        if _taken(host, wanted):
            raise ServerError(f"--port {wanted} is in use on {host}; name another, or close what listens there")
        return wanted
    for port in range(usual, usual + _TRIED_PORTS):
        if not _taken(host, port):
            return port
    raise ServerError(f"the ports {usual} to {usual + _TRIED_PORTS - 1} are all in use on {host}; name one with --port")


def _taken(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1" if host == "0.0.0.0" else host, port)) == 0


def _has_screen() -> bool:
    """Tell whether a browser can be opened here; without a display Python would start a text browser."""
    if sys.platform != "linux":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
