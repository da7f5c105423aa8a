"""Confident learning on class probabilities."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from autolabel.errors import UsageError
from autolabel.quality.confident import confident_learning


def planted(count=300, wrong=20, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, count)
    p = np.full((count, classes), 0.05)
    p[np.arange(count), truth] = 1 - 0.05 * (classes - 1)
    labels = truth.copy()
    labels[:wrong] = (labels[:wrong] + 1) % classes
    return labels, p.astype(np.float32), truth


def test_nothing_to_judge():
    found = confident_learning(np.zeros(0, np.int64), np.zeros((0, 3), np.float32))
    assert len(found.quality) == 0


def test_planted_errors_are_flagged_with_the_right_class():
    labels, p, truth = planted()
    found = confident_learning(labels, p)
    assert found.flagged[:20].all()
    assert not found.flagged[20:].any()
    assert (found.suggested == truth).all()
    assert found.quality[:20].max() < found.quality[20:].min()


def test_a_classifier_does_not_judge_its_own_labels():
    _, p, truth = planted()
    found = confident_learning(truth, p)
    assert found.circular
    assert not found.flagged.any()


def test_too_few_fall_back_and_say_so():
    labels, p, _ = planted(count=8, wrong=1)
    found = confident_learning(labels, p)
    assert found.flagged.tolist() == [True] + [False] * 7
    assert "too few" in found.method


def test_one_class_cannot_be_confused():
    found = confident_learning(np.zeros(30, np.int64), np.ones((30, 1), np.float32))
    assert not found.flagged.any()
    assert "one class" in found.method


def test_a_number_of_flags_can_be_asked_for():
    labels, p, _ = planted()
    assert set(np.flatnonzero(confident_learning(labels, p, flags=20).flagged)) == set(range(20))


@pytest.mark.parametrize(
    ("labels", "p", "message"),
    [
        ([0], [[0.5, 0.4]], "sum to 1"),
        ([2], [[0.5, 0.5]], "labels must be in"),
        ([0], [[np.nan, 1.0]], "finite"),
        ([0, 1], [[0.5, 0.5]], "for 2"),
    ],
)
def test_bad_input(labels, p, message):
    with pytest.raises(UsageError, match=message):
        confident_learning(np.array(labels), np.array(p, np.float32))


@pytest.mark.shared
def test_peoples_verdicts_on_cifar10(shared_data):
    folder = shared_data / "label_noise" / "cifar10_test"
    labels, p = np.load(folder / "original_labels.npy").astype(np.int64), np.load(folder / "pyx.npy")
    with (folder / "human_verdicts.csv").open() as stream:
        bad = [int(row["index"]) for row in csv.DictReader(stream) if row["verdict"] != "given"]
    found = confident_learning(labels, p)
    assert found.flagged.sum() <= 284
    assert found.flagged[bad].sum() >= 49
