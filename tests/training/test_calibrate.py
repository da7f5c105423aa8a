"""The score shift: which threshold suits the product, and that a shift moves scores as wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from training.calibrate import BIAS, GRID, best_threshold, judged, logit, shift
from training.metrics import Found
from training.natural import Labelled

BOX = (10.0, 10.0, 50.0, 50.0)


def labelled(*labels: int) -> Labelled:
    boxes = np.array([BOX for _ in labels], np.float32).reshape(-1, 4)
    return Labelled(Path("a.jpg"), "painted", boxes, np.array(labels, np.int64), Path("a.png"))


def found(*rows: tuple[tuple[float, ...], tuple[float, float]]) -> Found:
    return Found(np.array([box for box, _ in rows], np.float32), np.array([scores for _, scores in rows], np.float32))


def test_a_box_is_right_once_for_its_class_and_place() -> None:
    twin, far = (11.0, 10.0, 50.0, 50.0), (60.0, 60.0, 90.0, 90.0)
    detections = found((BOX, (0.9, 0.1)), (twin, (0.8, 0.2)), (far, (0.7, 0.0)))
    rows = judged([detections], [labelled(0)])
    assert [row[1:] for row in rows] == [(True, False), (False, False)]
    assert [row[0] for row in rows] == pytest.approx([0.9, 0.7])
    assert judged([detections], [labelled(1)])[0][1] is False
    assert [row[1:] for row in judged([detections], [labelled()])] == [(False, True), (False, True)]


def test_the_highest_threshold_is_chosen_that_costs_hardly_any_f1() -> None:
    rows = [(0.55, True, False), (0.45, True, False), (0.36, False, False)]
    assert best_threshold(rows, truths=2) == 0.45
    many = [(0.5, True, False)] * 100 + [(0.42, True, False)] + [(0.4, False, True)] * 20
    assert best_threshold(many, truths=101) == 0.5
    assert best_threshold([(0.55, False, True)], truths=1) == GRID[-1]


def test_a_shift_moves_a_score_from_one_threshold_to_the_other(tmp_path: Path) -> None:
    save_file({BIAS: torch.tensor(-4.6, dtype=torch.float16), "other": torch.ones(2)}, tmp_path / "model.safetensors")
    shift(tmp_path, logit(0.35) - logit(0.45))
    moved = load_file(tmp_path / "model.safetensors")
    assert torch.equal(moved["other"], torch.ones(2))
    at_threshold = logit(0.45) + float(moved[BIAS]) + 4.6
    assert 1 / (1 + np.exp(-at_threshold)) == pytest.approx(0.35, abs=0.002)
