"""Servers that tests start: they end with the test process, however it ends, and a missing one is no silent matter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

STOP_LIMIT_S = 10.0

# Servers do not end with their parent, and a test process may be killed: Linux can see to that.
_LAUNCH = """
import ctypes, os, signal, sys
try:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
except AttributeError:
    pass
os.execv(sys.argv[1], sys.argv[1:])
"""


def unavailable(reason: str) -> NoReturn:
    """Skip, except in continuous integration, where nobody would notice that nothing was tested."""
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(f"{reason} (and CI is set, so this does not skip)", pytrace=False)
    pytest.skip(reason)


def launch(command: Sequence[str | Path], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a server that appends what it prints to ``log``; call it from the main thread."""
    with log.open("ab") as printed:
        return subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, *map(str, command)],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> None:
    """Ask a server and all it started to end, and insist after ``STOP_LIMIT_S`` seconds."""
    for last in (number, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, last)  # a session of its own: its group has its number
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            continue
        return
