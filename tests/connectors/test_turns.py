"""Who may write to a server at a time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from autolabel_connectors.turns import Turns


def test_many_go_together():
    turns, met = Turns(), threading.Barrier(3, timeout=10)

    def go() -> int:
        with turns.together():
            return met.wait()

    with ThreadPoolExecutor(3) as pool:
        assert sorted(future.result() for future in [pool.submit(go) for _ in range(3)]) == [0, 1, 2]


def test_one_alone_waits_for_the_others_and_keeps_new_ones_out():
    turns, told = Turns(), []
    inside, leave, alone = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with turns.together():
            inside.set()
            assert leave.wait(10)
            told.append("first")

    def single() -> None:
        assert inside.wait(10)
        with turns.alone():
            told.append("alone")
            alone.set()

    def later() -> None:
        with turns.together():
            told.append("later")

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(first), pool.submit(single)]
        assert inside.wait(10)
        while not turns.awaited:
            threading.Event().wait(0.001)
        futures.append(pool.submit(later))
        assert not alone.is_set()
        leave.set()
        for future in futures:
            future.result(10)
    assert told == ["first", "alone", "later"]


def test_an_error_gives_the_turn_back():
    turns = Turns()
    for turn in (turns.together, turns.alone, turns.together):
        with pytest.raises(ZeroDivisionError), turn():
            _ = 1 / 0
    with turns.alone():
        pass
