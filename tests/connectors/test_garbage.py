"""How often Python looks for garbage while a push is under way."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from autolabel_connectors.garbage import rare_collections


@pytest.fixture(autouse=True)
def thresholds_kept() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_collections_are_rare_inside_and_as_before_afterwards() -> None:
    gc.set_threshold(700, 10, 10)
    with rare_collections():
        assert gc.get_threshold() == (100_000, 10, 10)
    assert gc.get_threshold() == (700, 10, 10)


def test_an_error_restores_them_too() -> None:
    gc.set_threshold(700, 10, 10)
    with pytest.raises(ValueError, match="lost"), rare_collections():
        raise ValueError("lost")
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("chosen", [(0, 10, 10), (500_000, 5, 5)], ids=["never", "rarer still"])
def test_a_program_that_chose_fewer_collections_keeps_its_choice(chosen: tuple[int, int, int]) -> None:
    gc.set_threshold(*chosen)
    with rare_collections():
        assert gc.get_threshold() == chosen
