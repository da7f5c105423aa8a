"""Intervals by bootstrap: the value is that of all pictures, and a sample is worth what its pictures are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autolabel.scores import Scores
from training.intervals import Precisions, figure, mean_of


def records() -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Six images with two truths each of two classes, and boxes near them, some false, at random scores."""
    rng = np.random.default_rng(0)
    images = [{"id": n, "width": 100, "height": 100} for n in range(1, 7)]
    truths: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image in images:
        for label in (0, 1):
            box = [*rng.uniform(5, 50, 2).tolist(), *rng.uniform(20, 40, 2).tolist()]
            common = {"image_id": image["id"], "category_id": label, "iscrowd": 0, "area": box[2] * box[3]}
            truths.append(common | {"id": len(truths) + 1, "bbox": box})
            for reach in (2, 30):
                moved = [box[0] + rng.uniform(0, reach), box[1] + rng.uniform(0, reach), box[2], box[3]]
                found.append(common | {"id": len(found) + 1, "bbox": moved, "score": float(rng.random())})
    return images, truths, found


def overall(images: list[dict[str, Any]], truths: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[float]:
    result = Scores("bbox", images, [0, 1], truths, found).overall()
    assert result is not None
    return [result.ap, result.ap50]


def test_all_pictures_are_worth_what_pycocotools_says() -> None:
    images, truths, found = records()
    mine = Precisions("bbox", images, [0, 1], truths, found).of(np.arange(6)).mean(axis=1)
    assert mine == pytest.approx(overall(images, truths, found), abs=1e-6)
    assert 0.2 < mine[0] < mine[1] < 1


def test_a_sample_is_worth_what_its_pictures_are() -> None:
    images, truths, found = records()
    part = [[r for r in side if r["image_id"] in (2, 5)] for side in (truths, found)]
    chosen = np.array([1, 4])
    mine = Precisions("bbox", images, [0, 1], truths, found).of(chosen).mean(axis=1)
    assert mine == pytest.approx(overall([images[1], images[4]], *part), abs=1e-6)
    twice = Precisions("bbox", images, [0, 1], truths, found).of(np.repeat(chosen, 3)).mean(axis=1)
    assert twice == pytest.approx(mine, abs=0.02)


def test_an_interval_holds_the_value_and_is_the_same_each_time() -> None:
    images, truths, found = records()
    figures = Precisions("bbox", images, [0, 1], truths, found).figures(rounds=40)
    for one in figures.values():
        assert one.low < one.value < one.high
    assert figures == Precisions("bbox", images, [0, 1], truths, found).figures(rounds=40)


def test_a_mean_samples_pictures_and_not_values() -> None:
    spread = mean_of([[0.0] * 50, [1.0] * 50])
    assert (spread.value, spread.low, spread.high) == (0.5, 0.0, 1.0)
    assert mean_of([[0.3], [], [0.3]]).to_json() == {"value": 0.3, "low": 0.3, "high": 0.3}


def test_what_is_not_defined_has_no_interval() -> None:
    nothing = figure(3, lambda chosen: float("nan"), rounds=5)
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()
