"""Work done by other threads a little ahead of who needs it, in order and with bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar, overload

from autolabel.models.runtime import helpers

Item = TypeVar("Item")
Made = TypeVar("Made")


class Ahead(Sequence[Made], Generic[Item, Made]):
    """``make(item)`` for each item, begun when it or one of the ``ahead`` before it is asked for.

    Items are asked for front to back; what lies before the last one that was asked for is let go.
    """

    def __init__(self, make: Callable[[Item], Made], items: Sequence[Item], ahead: int) -> None:
        self._make = make
        self._items = items
        self._ahead = ahead
        self._begun: dict[int, Future[Made]] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, place: int) -> Made: ...
    @overload
    def __getitem__(self, place: slice) -> list[Made]: ...
    def __getitem__(self, place: int | slice) -> Made | list[Made]:
        if isinstance(place, int):
            return self[place : place + 1][0]
        start, stop, _ = place.indices(len(self._items))
        for gone in [number for number in self._begun if number < start]:
            del self._begun[gone]
        for number in range(max(self._next, start), min(stop + self._ahead, len(self._items))):
            self._begun[number] = helpers().submit(self._make, self._items[number])
            self._next = number + 1
        return [self._begun[number].result() for number in range(start, stop)]
