"""Ctrl-C that is not lost on the way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def heeded_interrupts() -> Iterator[Callable[[], None]]:
    """Yield a function that raises KeyboardInterrupt where one came and went unheard.

    Python raises an interrupt wherever the main thread is, and drops it where that is a finaliser or the callback of a
    weak reference, which is where a thread that hands work on often is. Nothing is changed outside the main thread, and
    where the caller has a handler of its own.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: None
        return
    came = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        came.set()
        signal.default_int_handler(number, frame)

    def raise_unheard() -> None:
        if came.is_set():
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield raise_unheard
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
