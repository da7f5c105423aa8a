"""Values made ahead of who takes them."""

from __future__ import annotations

import threading

import pytest

from autolabel_connectors.ahead import Ahead


def test_nothing_at_all():
    with Ahead([], 10) as ahead:
        assert ahead.take(1, 5, 10) == []


def test_values_come_in_order_and_in_bounds():
    taken = []
    with Ahead(((number, 3) for number in range(100)), 1000) as ahead:
        while part := ahead.take(4, 7, 12):
            assert len(part) <= 4
            taken += part
    assert taken == list(range(100))


def test_a_value_larger_than_the_bound_comes_alone():
    with Ahead([("a", 1), ("b", 99), ("c", 1)], 1000) as ahead:
        assert [ahead.take(3, 3, 10) for _ in range(4)] == [["a"], ["b"], ["c"], []]


def test_no_more_is_made_than_there_is_room_for():
    made, asked = [], threading.Event()

    def values():
        for number in range(10):
            made.append(number)
            if number == 2:
                asked.set()
            yield number, 10

    with Ahead(values(), 25) as ahead:
        assert asked.wait(10)
        assert made == [0, 1, 2]
        assert ahead.take(1, 1, 100) == [0]
        rest = []
        while part := ahead.take(5, 5, 1000):  # more than there is ever room for: what there is comes
            rest += part
    assert rest == list(range(1, 10))


def test_a_failure_comes_after_what_was_made_before():
    def values():
        yield "a", 1
        raise ValueError("broken")

    with Ahead(values(), 10) as ahead:
        assert ahead.take(5, 5, 10) == ["a"]
        with pytest.raises(ValueError, match="broken"):
            ahead.take(5, 5, 10)


def test_who_stops_early_leaves_nothing_running():
    before = threading.active_count()
    with Ahead(((number, 1) for number in iter(int, 1)), 10) as ahead:
        assert ahead.take(1, 1, 1) == [0]
    assert threading.active_count() == before
