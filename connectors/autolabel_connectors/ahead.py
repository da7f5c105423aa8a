"""Values made in a thread of their own while the one who takes them waits for a server."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Runs through ``values``, each given with its size in bytes, ahead of `take`; use as a context manager.

    It rests while more than ``room_bytes`` wait to be taken. What ``values`` raises is raised by `take`, after the
    values before it.
    """

    def __init__(self, values: Iterable[tuple[T, int]], room_bytes: int) -> None:
        self._values, self._room_bytes = values, room_bytes
        self._ready: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="ahead", daemon=True)
        self._thread.start()

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def take(self, least: int, most: int, most_bytes: int) -> list[T]:
        """Wait until ``least`` values are ready, or ``most_bytes``, or all, and return what there is.

        At most ``most`` values, or half as many again where no others follow, and of ``most_bytes`` together unless the
        first alone has more; none after the last.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or len(self._ready) >= min(least, most) or self._bytes >= self._enough(most_bytes)
            )
            if not self._ready and self._error is not None:
                raise self._error
            if self._ended and len(self._ready) <= most + most // 2:
                most = len(self._ready)
            taken: list[T] = []
            size = 0
            while self._ready and len(taken) < most and (not taken or size + self._ready[0][1] <= most_bytes):
                value, bytes_ = self._ready.popleft()
                taken.append(value)
                size += bytes_
            self._bytes -= size
            self._changed.notify_all()
            return taken

    def close(self) -> None:
        """Make no more values, and wait until the one that is being made is done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _enough(self, most_bytes: int) -> int:
        # Never more than there is room for, or both sides would wait for each other.
        return min(most_bytes, self._room_bytes)

    def _work(self) -> None:
        try:
            for value in self._values:
                with self._changed:
                    self._ready.append(value)
                    self._bytes += value[1]
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._closed or self._bytes < self._room_bytes)
                    if self._closed:
                        return
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
