from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autolabel.geometry import box_areas, box_iou, clip_boxes, intersections, mask_boxes, suppress
from autolabel.types import Float, Mask

EMPTY = np.zeros((0, 4), np.float32)


def boxes(*rows: tuple[float, float, float, float]) -> Float:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_no_boxes() -> None:
    assert clip_boxes(EMPTY, (10, 10)).shape == (0, 4)
    assert box_areas(EMPTY).shape == (0,)
    assert box_iou(EMPTY, boxes((0, 0, 1, 1))).shape == (0, 1)
    assert len(suppress(np.zeros(0, np.float32), np.zeros((0, 0), np.bool_))) == 0


def test_clipping_keeps_boxes_inside() -> None:
    clipped = clip_boxes(boxes((-5, -5, 20, 20), (3, 4, 5, 6)), (10, 8))
    assert clipped.tolist() == [[0, 0, 10, 8], [3, 4, 5, 6]]


def test_iou_of_half_overlapping_squares_is_a_third() -> None:
    iou = box_iou(boxes((0, 0, 2, 2)), boxes((1, 0, 3, 2), (5, 5, 6, 6), (0, 0, 2, 2)))
    assert iou[0].tolist() == pytest.approx([1 / 3, 0, 1])


def test_a_masks_box_goes_by_the_edges_of_pixels() -> None:
    assert mask_boxes([]).shape == (0, 4)
    pixels = np.zeros((6, 9), np.bool_)
    empty, whole = Mask.encode(pixels), Mask.encode(~pixels)
    pixels[4, 3] = True
    one = Mask.encode(pixels)
    pixels[5, 8] = True  # the last pixel: its edges are the image's
    found = mask_boxes([one, None, empty, whole, Mask.encode(pixels)])
    assert found[[0, 3, 4]].tolist() == [[3, 4, 4, 5], [0, 0, 9, 6], [3, 4, 9, 6]]
    assert np.isnan(found[[1, 2]]).all()


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_a_masks_box_is_the_smallest_that_holds_its_pixels(pixels: np.ndarray) -> None:
    (box,) = mask_boxes([Mask.encode(pixels)])
    rows, columns = np.nonzero(pixels)
    if len(rows):
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    else:
        assert np.isnan(box).all()


def test_an_inverted_box_has_no_area() -> None:
    assert box_areas(boxes((5, 5, 1, 9))).tolist() == [0]
    assert box_iou(boxes((5, 5, 1, 9)), boxes((5, 5, 1, 9))).tolist() == [[0]]


def test_suppression_keeps_the_best_of_a_chain_and_what_it_does_not_touch() -> None:
    chain = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], np.bool_)
    assert suppress(np.array([0.9, 0.8, 0.7], np.float32), chain).tolist() == [0, 2]
    assert suppress(np.array([0.8, 0.9, 0.7], np.float32), chain).tolist() == [1]


def test_equal_scores_keep_their_order() -> None:
    assert suppress(np.ones(3, np.float32), np.ones((3, 3), np.bool_)).tolist() == [0]


@given(arrays(np.float32, (6, 4), elements=st.floats(0, 100, width=32)))
def test_iou_is_symmetric_and_bounded(corners: Float) -> None:
    proper = np.concatenate([np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1)
    iou = box_iou(proper, proper)
    assert np.allclose(iou, iou.T)
    assert iou.min() >= 0
    assert iou.max() <= 1 + 1e-5
    assert (intersections(proper, proper) <= box_areas(proper)[:, None] + 1e-3).all()


@given(arrays(np.bool_, st.tuples(st.integers(1, 17), st.integers(1, 17))))
def test_masks_round_trip(mask: np.ndarray) -> None:
    encoded = Mask.encode(mask)
    assert (encoded.decode() == mask).all()
    assert encoded.area == mask.sum()
