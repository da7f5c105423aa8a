"""One of several processes that label: works come in on its standard input, answers go out on its standard output.

A process of its own and no ``multiprocessing``, so that a caller's script needs no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import BinaryIO

from autolabel.engine.base import Done, Facts, Setup, Work
from autolabel.engine.local import LocalEngine

_WAKE_S = 0.5


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is told first: what to label with, and where."""

    setup: Setup
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker says: a work's number and its labels, or at the end, numbered -1, facts; or what went wrong."""

    number: int
    content: Done | Facts | Exception


def serve(incoming: BinaryIO, outgoing: BinaryIO) -> None:
    """Answer numbered works in their order until None or the end of ``incoming``; a first error ends it."""
    order: Order = pickle.load(incoming)
    waiting = SimpleQueue[tuple[int, Work] | None]()
    # Read all the time: whoever sends works must never wait for one that is busy.
    Thread(target=_receive, args=(incoming, waiting), daemon=True).start()
    numbers = deque[int]()

    def works() -> Iterator[Work]:
        while (item := _next(waiting)) is not None:
            numbers.append(item[0])
            yield item[1]

    try:
        engine = LocalEngine(order.setup.load(order.device), order.setup.plan)
        for done in engine.label(works()):
            _send(outgoing, Answer(numbers.popleft(), done))
        _send(outgoing, Answer(-1, engine.facts()))
    except BrokenPipeError:
        raise  # nobody is there to be told
    except Exception as error:
        _send(outgoing, Answer(-1, sendable(error)))


def sendable(error: Exception) -> Exception:
    """Return the error itself where it survives a journey between processes, else a plain one that says the same."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:
        copy = None
    return error if type(copy) is type(error) else RuntimeError(f"{type(error).__name__}: {error}")


def _receive(incoming: BinaryIO, waiting: SimpleQueue[tuple[int, Work] | None]) -> None:
    try:
        while (item := pickle.load(incoming)) is not None:
            waiting.put(item)
    except (EOFError, OSError, pickle.UnpicklingError):
        os._exit(1)  # the one who sends is gone, and nobody would read the answers
    waiting.put(None)


def _next(waiting: SimpleQueue[tuple[int, Work] | None]) -> tuple[int, Work] | None:
    """Wait for a work, but wake up now and then: an error elsewhere stops this thread, which it can in Python alone."""
    while True:
        try:
            return waiting.get(timeout=_WAKE_S)
        except Empty:
            continue


def _send(outgoing: BinaryIO, answer: Answer) -> None:
    pickle.dump(answer, outgoing, protocol=pickle.HIGHEST_PROTOCOL)
    outgoing.flush()


def main() -> None:
    """Serve standard input and output; what libraries print goes to standard error instead."""
    # Ctrl-C reaches every process of a terminal; the one that reads the answers decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(sys.stdin.buffer, outgoing)
    except BrokenPipeError:
        sys.exit(1)
