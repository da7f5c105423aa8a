"""Images are read and decoded in threads, ahead of the models and in order, within a budget of pixels.

Why threads and not processes: Pillow, zlib and hashlib leave Python's lock while they work, and pixels need not be
sent anywhere (docs/adr/0010-an-engine-of-threads.md).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass

from autolabel.engine import portions
from autolabel.engine.base import Work
from autolabel.engine.crew import Crew, Stopped
from autolabel.labeling import ReadImage

MEMORY_IN_PORTIONS = 2.5
"""Pixels in memory at once, decoded and not yet let go by the last stage, in units of a portion's limit."""
READERS = 16
"""Threads that fetch images, perhaps over a network; of these no more decode at once than there are cores."""
_WAKE_S = 0.5
_OUT_OF_MEMORY = "OutOfMemoryError"


class PixelBudget:
    """Room for pixels. Images are admitted in the order of their tickets, so that none waits for a later one."""

    def __init__(self, portion: int | None = None) -> None:
        self.portion = portions.PORTION_PIXELS if portion is None else portion
        self.held = 0
        self._out = 0
        self._turn = 0
        self._passed: set[int] = set()
        self._changed = threading.Condition()
        self._closed = False

    def admit(self, ticket: int, pixels: int) -> None:
        """Wait for the ticket's turn and for room; raises Stopped once the budget is closed.

        What is held may be a portion that is not complete, and waits for this very image: that much never stands in
        the way.
        """

        def room() -> bool:
            return self.held < self.portion or self.held + pixels <= MEMORY_IN_PORTIONS * self.portion

        with self._changed:
            self._wait(lambda: self._turn == ticket and room())
            self.held += pixels
            self._pass(ticket)

    def settle(self, ticket: int) -> None:
        """Say that a ticket asks for nothing more; it may not have asked at all."""
        with self._changed:
            if ticket >= self._turn and ticket not in self._passed:
                self._pass(ticket)

    def adjust(self, pixels: int) -> None:
        """Correct what is held, for an image that was decoded out of turn or not at all."""
        with self._changed:
            self.held += pixels
            self._changed.notify_all()

    def lend(self) -> None:
        """Count a portion that is on its way through the stages."""
        with self._changed:
            self._out += 1

    def give_back(self, pixels: int) -> None:
        """Take a portion's room back."""
        with self._changed:
            self._out -= 1
            self.held -= pixels
            self._changed.notify_all()

    def halve(self) -> None:
        """Wait until no portion is on its way, then hold less from here on."""
        with self._changed:
            self._wait(lambda: self._out == 0)
            self.portion = max(1, self.portion // 2)

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wait(self, ready: Callable[[], bool]) -> None:
        while not self._closed and not ready():
            self._changed.wait(_WAKE_S)
        if self._closed:
            raise Stopped

    def _pass(self, ticket: int) -> None:
        self._passed.add(ticket)
        while self._turn in self._passed:
            self._passed.remove(self._turn)
            self._turn += 1
        self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class Portion:
    """Images of one work that go through the stages together: those from ``start`` on; ``last`` completes the work."""

    work: Work
    start: int
    images: list[ReadImage]
    last: bool

    @property
    def pixels(self) -> int:
        """Pixels in memory."""
        return sum(portions.pixel_count(image) for image in self.images)


@dataclass(frozen=True, slots=True)
class _Ticket:
    work: Work
    place: int
    image: Future[ReadImage]


class Reader:
    """Reads the images of works in order, ahead of whoever takes them."""

    def __init__(self, crew: Crew) -> None:
        self.budget = PixelBudget()
        self._crew = crew
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="autolabel-read")
        self._cores = threading.Semaphore(min(READERS, max(4, os.cpu_count() or 1)))

    def portions(self, works: Iterable[Work], size: int | None = None) -> Iterator[Portion]:
        """Cut works into portions of ``size`` images (None: the whole work), or of as many as memory should hold."""
        images: list[ReadImage] = []
        held = 0
        for ticket in self._crew.ahead(self._tickets(works), READERS, "plan"):
            image = _result(ticket.image)
            if image.row.failure is not None and image.row.failure.error == _OUT_OF_MEMORY:
                if images:
                    self.budget.lend()
                    yield Portion(ticket.work, ticket.place - len(images), images, False)
                    images, held = [], 0
                # Other images have the memory that this one lacked: once they are done it is tried again.
                self.budget.halve()
                image = ticket.work.read(ticket.place)
                self.budget.adjust(portions.pixel_count(image))
            images.append(image)
            held += portions.pixel_count(image)
            last = ticket.place + 1 == len(ticket.work.rows)
            if last or len(images) == size or held >= self.budget.portion:
                self.budget.lend()
                yield Portion(ticket.work, ticket.place + 1 - len(images), images, last)
                images, held = [], 0
            del image, ticket  # or its pixels would stay in memory while the next is waited for

    def close(self) -> None:
        """Let go of what is being read."""
        self.budget.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _tickets(self, works: Iterable[Work]) -> Iterator[_Ticket]:
        number = 0
        for work in works:
            for place in range(len(work.rows)):
                yield _Ticket(work, place, self._pool.submit(self._read, work, place, number))
                number += 1

    def _read(self, work: Work, place: int, ticket: int) -> ReadImage:
        admitted = 0

        def admit(pixels: int) -> None:
            nonlocal admitted
            self.budget.admit(ticket, pixels)
            self._cores.acquire()
            admitted = pixels

        image = None
        try:
            image = work.read(place, admit)
        finally:
            if admitted:
                self._cores.release()
            self.budget.settle(ticket)
            # What failed after it was admitted holds nothing.
            self.budget.adjust((portions.pixel_count(image) if image is not None else 0) - admitted)
        return image


def _result(image: Future[ReadImage]) -> ReadImage:
    """Wait for an image, but wake up now and then to be stopped."""
    while True:
        try:
            return image.result(_WAKE_S)
        except NotYet:
            if image.done():
                raise
