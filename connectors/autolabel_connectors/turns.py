"""Who may write to a server at a time: many together, or one alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Lets any number in `together`, or one `alone`, who goes before those that have not begun yet."""

    def __init__(self) -> None:
        self._inside = self._waiting = 0
        self._changed = threading.Condition()

    @property
    def awaited(self) -> bool:
        """Whether somebody is alone, or waits to be."""
        return self._waiting > 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """Wait until nobody is, or waits to be, alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self.awaited)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until all others are done, and keep them out; for one thread only."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._inside)
        try:
            yield
        finally:
            with self._changed:
                self._waiting -= 1
                self._changed.notify_all()
