"""Pairs of boxes of many images."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.geometry import box_iou
from autolabel.quality.ragged import best_of, best_place, overlapping, pair_iou, starts_of


def boxes(rng, count):
    corner = rng.uniform(0, 50, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(0, 30, (count, 2))], 1).astype(np.float32)


def test_nothing_overlaps_nothing():
    empty, starts = np.zeros((0, 4), np.float32), np.zeros(3, np.int64)
    a, b, iou = overlapping(empty, starts, empty, starts)
    assert len(a) == len(b) == len(iou) == 0
    a, _, _ = overlapping(np.zeros((0, 4), np.float32), np.zeros(1, np.int64), empty, np.zeros(1, np.int64))
    assert len(a) == 0


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([1, 40, 500_000]))
def test_same_pairs_as_image_by_image(seed, images, cells):
    from autolabel.quality import ragged

    rng = np.random.default_rng(seed)
    a_image = np.sort(rng.integers(0, images, rng.integers(0, 30)))
    b_image = np.sort(rng.integers(0, images, rng.integers(0, 30)))
    a, b = boxes(rng, len(a_image)), boxes(rng, len(b_image))
    before, ragged.CELLS = ragged.CELLS, cells
    try:
        rows, columns, iou = overlapping(a, starts_of(a_image, images), b, starts_of(b_image, images), floor=0.1)
    finally:
        ragged.CELLS = before
    expected = []
    for image in range(images):
        mine, theirs = np.flatnonzero(a_image == image), np.flatnonzero(b_image == image)
        table = box_iou(a[mine], b[theirs])
        expected += [(mine[i], theirs[j]) for i, j in np.argwhere(table > 0.1)]
    assert list(zip(rows, columns, strict=True)) == expected
    np.testing.assert_allclose(iou, pair_iou(a[rows], b[columns]), atol=1e-5)


def test_best_of_rows():
    rows, values = np.array([0, 2, 2, 0]), np.array([0.3, 0.1, 0.4, 0.3], np.float32)
    np.testing.assert_allclose(best_of(rows, values, 4), [0.3, 0, 0.4, 0])
    assert best_place(rows, values, 4).tolist() == [0, -1, 2, -1]
