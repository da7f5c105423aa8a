"""Reading ahead within a budget of pixels: in order, without waiting for ever, and once more when memory ran out."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from autolabel.engine import Work
from autolabel.engine.crew import Crew, Stopped
from autolabel.engine.local import LocalEngine
from autolabel.engine.portions import pixel_count
from autolabel.engine.reading import MEMORY_IN_PORTIONS, PixelBudget, Reader
from autolabel.errors import OutOfMemoryError
from autolabel.images import decode, list_sources
from tests.conftest import Models, write_pictures
from tests.engine.helpers import setup_of, works_of

PATIENCE_S = 30


class Watched(PixelBudget):
    """Notes who was let in, in order, and says when somebody has begun to wait."""

    def __init__(self, portion: int) -> None:
        super().__init__(portion)
        self.admitted: list[int] = []
        self._waits: dict[int, threading.Event] = {}
        self._wait_for_change = self._changed.wait
        self._changed.wait = self._note_and_wait  # type: ignore[method-assign]

    def _note_and_wait(self, timeout: float | None = None) -> bool:
        self._waits[threading.get_ident()].set()  # the lock is held here, and given up only in the wait
        return self._wait_for_change(timeout)

    def _pass(self, ticket: int) -> None:
        self.admitted.append(ticket)
        super()._pass(ticket)

    def ask(self, ticket: int, pixels: int) -> threading.Thread:
        """Ask in a thread of its own, and return when it is let in or waits."""
        waits = threading.Event()

        def admit() -> None:
            self._waits[threading.get_ident()] = waits
            self.admit(ticket, pixels)
            waits.set()

        thread = threading.Thread(target=admit, daemon=True)
        thread.start()
        assert waits.wait(PATIENCE_S)
        return thread


def test_tickets_are_admitted_in_order() -> None:
    budget = Watched(100)
    threads = [budget.ask(ticket, 10 * ticket) for ticket in (3, 1, 2)]
    assert (budget.admitted, budget.held) == ([], 0), "they wait for ticket 0, in whatever order they came"
    budget.settle(0)
    for thread in threads:
        thread.join(PATIENCE_S)
    assert budget.admitted == [0, 1, 2, 3]
    assert budget.held == 60


def test_a_full_budget_waits_until_room_is_given_back() -> None:
    budget = Watched(100)
    budget.admit(0, 250)
    thread = budget.ask(1, 50)
    assert budget.admitted == [0]
    budget.lend()
    budget.give_back(250)
    thread.join(PATIENCE_S)
    assert (budget.admitted, budget.held) == ([0, 1], 50)


def test_who_waits_is_sent_home_when_the_budget_closes() -> None:
    budget = PixelBudget(100)
    sent_home = threading.Event()

    def ask() -> None:
        with pytest.raises(Stopped):
            budget.admit(1, 10)
        sent_home.set()

    threading.Thread(target=ask, daemon=True).start()
    budget.close()
    assert sent_home.wait(PATIENCE_S)


@settings(max_examples=25, deadline=None)
@given(
    sides=st.lists(st.integers(1, 60), min_size=1, max_size=30),
    size=st.integers(1, 8),
    limit=st.integers(1, 4000),
)
def test_all_images_come_in_order_whatever_their_sizes(
    tmp_path_factory: pytest.TempPathFactory, sides: list[int], size: int, limit: int
) -> None:
    folder = tmp_path_factory.mktemp("images")
    for number, side in enumerate(sides):
        Image.new("L", (side, side)).save(folder / f"{number:03d}.bmp")
    works = works_of(folder, 7)
    crew = Crew()
    reader = Reader(crew)
    reader.budget.portion = limit
    seen, most = [], 0
    try:
        for portion in reader.portions(works, size):
            assert len(portion.images) <= size
            assert portion.images[0].row.path == portion.work.rows[portion.start].path
            seen += [image.row.width for image in portion.images]
            most = max(most, reader.budget.held)
            reader.budget.give_back(portion.pixels)
    finally:
        reader.close()
        crew.close()
    assert seen == sides
    assert reader.budget.held == 0
    assert most <= max(MEMORY_IN_PORTIONS * limit, limit + max(sides) ** 2)


def test_an_image_without_memory_is_tried_again_when_others_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_pictures(tmp_path / "images", 8)
    fails = {"005.png": 1, "006.png": 1000}

    def short_of_memory(data: bytes, path: str, admit=None):
        if fails.get(path, 0):
            fails[path] -= 1
            raise OutOfMemoryError("there is no more memory")
        return decode(data, path, admit=admit)

    monkeypatch.setattr("autolabel.labeling.decode", short_of_memory)
    setup, models = setup_of(Models())
    (answer,) = LocalEngine(models, setup.plan).label(works_of(folder, 8))
    assert [row.path for row in answer.rows if row.failure is not None] == ["006.png"]
    failure = answer.rows[6].failure
    assert failure is not None
    assert (failure.stage, failure.error) == ("decode", "OutOfMemoryError")


def test_less_is_held_after_memory_ran_out() -> None:
    budget = PixelBudget(100)
    budget.halve()
    assert budget.portion == 50


def test_an_unreadable_image_holds_no_room(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "images", 3)
    data = (folder / "001.png").read_bytes()
    (folder / "001.png").write_bytes(data[: len(data) // 2])
    crew = Crew()
    reader = Reader(crew)
    try:
        (portion,) = reader.portions([Work.new(list_sources([str(folder)]))])
        assert [pixel_count(image) for image in portion.images] == [64 * 48, 0, 64 * 48]
        assert reader.budget.held == 2 * 64 * 48
    finally:
        reader.close()
        crew.close()
