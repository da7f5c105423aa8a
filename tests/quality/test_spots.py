"""Of several boxes round one object, one is flagged."""

from __future__ import annotations

import numpy as np

from autolabel.quality.spots import one_a_place
from tests.quality.sets import evidence_of


def kept(image, boxes, label, error) -> list[bool]:
    evidence = evidence_of(image, boxes, label, error)
    rows = np.arange(len(evidence))
    return one_a_place(evidence, rows, evidence.label, evidence.score, max(image, default=0) + 1).tolist()


def test_nothing():
    assert kept([], [], [], []) == []


def test_the_likeliest_speaks_for_its_place_and_for_no_other_image():
    boxes = [[0, 0, 10, 10], [1, 1, 11, 11], [50, 50, 60, 60], [0, 0, 10, 10]]
    assert kept([0, 0, 0, 1], boxes, [0, 1, 0, 0], [0.6, 0.8, 0.5, 0.5]) == [False, True, True, True]


def test_what_lies_inside_is_a_part_if_it_is_of_the_class():
    boxes = [[0, 0, 40, 40], [10, 10, 20, 20], [20, 20, 30, 30]]
    assert kept([0, 0, 0], boxes, [0, 0, 1], [0.9, 0.8, 0.7]) == [True, False, True]


def test_the_silenced_silence_nobody():
    """Three boxes in a row, each over half of the next: the ends are two things."""
    boxes = [[0, 0, 20, 10], [10, 0, 30, 10], [20, 0, 40, 10]]
    assert kept([0, 0, 0], boxes, [0, 0, 0], [0.9, 0.8, 0.7]) == [True, False, True]
