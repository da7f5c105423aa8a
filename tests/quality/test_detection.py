"""Planted errors of boxes are found, and clean labels are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from autolabel.quality.detection import KINDS, mixture_share, saturated, score_boxes
from autolabel.quality.opinions import opinions_of
from autolabel.quality.plant import DROPPED, INVENTED, SHIFTED, SWAPPED, plant
from autolabel.quality.prior import relative, score_by_prior, usual_pivots, views_of
from autolabel.quality.ragged import overlapping
from tests.quality.sets import NAMES, evidence_of, grid, labels_of, pictures


@pytest.mark.parametrize("seed", [0, 1])
def test_each_kind_is_found(seed):
    labels, evidence, images = grid(120)
    planted = plant(labels, images, len(NAMES), np.random.default_rng([9, seed]))
    opinions = opinions_of(evidence, planted.labels, images, len(NAMES))
    boxes, overlooked = score_boxes(planted.labels, opinions, images)
    for kind, code in KINDS.items():
        assert roc_auc_score(planted.kind == code, boxes.error[kind]) > 0.9, kind
    dropped = labels.with_boxes(*(v[planted.dropped] for v in (labels.image, labels.boxes_xyxy, labels.label)))
    found = evidence.take(overlooked.rows)
    _, e, _ = overlapping(
        dropped.boxes_xyxy, dropped.starts(len(images)), found.boxes_xyxy, found.starts(len(images)), floor=0.5
    )
    lost = np.zeros(len(found), np.bool_)
    lost[e] = True
    assert roc_auc_score(lost, overlooked.error) > 0.9


def test_right_labels_are_rarely_flagged():
    labels, evidence, images = grid(120)
    boxes, _ = score_boxes(labels, opinions_of(evidence, labels, images, len(NAMES)), images)
    assert np.mean(np.sum(list(boxes.error.values()), axis=0) > 0.5) < 0.08


def test_a_small_set_is_judged_by_what_was_learnt_elsewhere():
    """Three labels in two images: one of another class, one with nothing near, one beside what is there."""
    labels = labels_of([0, 0, 1], [(0, 0, 100, 100), (200, 200, 300, 300), (0, 0, 100, 100)], [0, 1, 2])
    evidence = evidence_of(
        [0, 1, 1], [(0, 0, 100, 100), (40, 0, 140, 100), (200, 200, 300, 300)], [1, 2, 0], [0.9, 0.8, 0.7]
    )
    seen = relative(evidence, np.array([0.3]), 3)
    boxes, overlooked = score_by_prior("others", labels, views_of(labels, seen, pictures(2)), pictures(2))
    assert [max(KINDS, key=lambda kind: boxes.error[kind][row]) for row in range(3)] == ["swap", "spurious", "location"]
    assert set(overlooked.rows.tolist()) == {1, 2}
    assert overlooked.error[1] > overlooked.error[0]  # what lies beside a label of its class is rather that label's


def test_no_labels_and_no_evidence():
    nothing, none = labels_of([], [], []), evidence_of([], [], [], [])
    views = views_of(nothing, relative(none, usual_pivots(none, 0), 3), pictures(2))
    boxes, overlooked = score_by_prior("others", nothing, views, pictures(2))
    assert all(len(error) == 0 for error in boxes.error.values())
    assert len(overlooked.rows) == 0


def test_planting_keeps_crowds_and_counts():
    labels, _, images = grid(100)
    labels = labels_of(labels.image, labels.boxes_xyxy, labels.label, crowd=np.arange(len(labels)) < 40)
    planted = plant(labels, images, len(NAMES), np.random.default_rng(0))
    assert planted.labels.crowd.sum() == 40
    assert not planted.kind[planted.labels.crowd].any()
    for kind in (SWAPPED, SHIFTED, INVENTED):
        assert 20 < (planted.kind == kind).sum() < 60
    assert 20 < len(planted.dropped) < 60
    assert DROPPED not in planted.kind
    kept = planted.kind == 0
    np.testing.assert_array_equal(planted.labels.boxes_xyxy[kept], labels.boxes_xyxy[planted.origin[kept]])
    swapped = planted.kind == SWAPPED
    assert (planted.labels.label[swapped] != labels.label[planted.origin[swapped]]).all()


def test_share_of_errors_is_estimated():
    rng = np.random.default_rng(0)
    wrong, right = rng.normal(3, 1, 4000), rng.normal(-3, 1, 9000)
    assert mixture_share(np.concatenate([wrong[:1000], right]), wrong) == pytest.approx(0.1, abs=0.02)
    assert mixture_share(right, wrong) < 0.01


def test_saturation_keeps_order_and_small_values():
    values = saturated(np.array([0.01, 0.3, 1.0, 5.0, 100.0]))
    assert (np.diff(values) > 0).all()
    assert values[0] == pytest.approx(0.01, rel=0.01)
    assert values[-1] <= 1
