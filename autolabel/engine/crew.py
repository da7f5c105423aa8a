"""Threads that hand items on through bounded channels: each step of a pass works ahead of the next by a little.

``crew.ahead(steps)`` runs an iterator in a thread of its own and yields what it yields, in order. What it raises is
raised to the reader after the items before it. Closing the crew stops every thread, wherever it is.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
# A waiting main thread must wake up to see Ctrl-C where locks cannot be interrupted (Windows).
_WAKE_S = 0.5
_PATIENCE_S = 0.2
_GIVE_UP_S = 20.0


class Stopped(BaseException):
    """Raised in a crew's threads when it is closed; no Exception, so that no stage takes it for an image's fault."""


class Channel(Generic[Item]):
    """Items on their way from one thread to another, at most ``size`` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None
        self._closed = False

    def put(self, item: Item) -> None:
        """Hand on an item, when there is room; raises Stopped once the channel is closed."""
        with self._changed:
            while len(self._items) >= self._size and not self._closed:
                self._changed.wait(_WAKE_S)
            if self._closed:
                raise Stopped
            self._items.append(item)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Say that nothing more comes, and why."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """Let go of what is on its way, and of who waits."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                while not self._items and not self._ended and not self._closed:
                    self._changed.wait(_WAKE_S)
                if self._closed:
                    raise Stopped
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
            del item  # or its pixels would stay in memory while the next is waited for


class Crew:
    """The threads of one pass."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._channels: list[Channel[Any]] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ahead(self, items: Iterable[Item], size: int, name: str) -> Iterator[Item]:
        """Take from ``items`` in a thread, ``size`` items before they are asked for; the thread starts at once."""
        channel: Channel[Item] = Channel(size)
        self._channels.append(channel)
        thread = threading.Thread(target=_feed, args=(items, channel), name=f"autolabel-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return iter(channel)

    def close(self) -> None:
        """Stop all threads: those that wait at once, those at work at their next step in Python."""
        for channel in self._channels:
            channel.close()
        for thread in self._threads:
            thread.join(_PATIENCE_S)
            if thread.is_alive() and thread.ident is not None:
                _interrupt(thread.ident)
        for thread in self._threads:
            thread.join(_GIVE_UP_S)
        self._threads.clear()
        self._channels.clear()


def _feed(items: Iterable[Item], channel: Channel[Item]) -> None:
    try:
        try:
            for item in items:
                channel.put(item)
                del item  # as above
        except BaseException as error:
            channel.end(error)
        else:
            channel.end()
        if isinstance(items, Generator):
            items.close()
    except Stopped:  # came late, and there is nothing left to stop
        channel.close()


def _interrupt(thread: int) -> None:
    """Raise Stopped in a thread, as Ctrl-C is raised in the main one: a forward pass is left between two layers."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Stopped))
