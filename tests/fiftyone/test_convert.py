"""The contract of FiftyOne's units: what goes there and comes back is the same, with the losses that are declared."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolabel.types import Box, Mask
from autolabel_connectors.fiftyone.convert import from_crop_of, from_relative, to_crop, to_relative
from autolabel_connectors.fiftyone.documents import pack, pixel_digest, unpack

SIZES = st.tuples(st.integers(1, 90), st.integers(1, 70))


@st.composite
def boxes(draw, size_wh):
    edges = []
    for size in size_wh:
        low = draw(st.floats(0, size - 0.05))
        edges.append((low, draw(st.floats(min(low + 0.04, size), size))))
    (x0, x1), (y0, y1) = edges
    return Box(x0, y0, x1, y1)


def inside(mask: Mask, box: Box) -> np.ndarray:
    """The declared loss: pixels outside the whole px that a box touches."""
    kept = np.zeros((mask.height, mask.width), bool)
    rows = slice(
        int(np.floor(box.y_min + 1e-3)), max(int(np.ceil(box.y_max - 1e-3)), int(np.floor(box.y_min + 1e-3)) + 1)
    )
    columns = slice(
        int(np.floor(box.x_min + 1e-3)), max(int(np.ceil(box.x_max - 1e-3)), int(np.floor(box.x_min + 1e-3)) + 1)
    )
    kept[rows, columns] = True
    return mask.decode() & kept


@given(st.data())
def test_box_and_mask_come_back(data):
    size = data.draw(SIZES)
    box = data.draw(boxes(size))
    seed = data.draw(st.integers(0, 2**32 - 1))
    mask = Mask.encode(
        np.random.default_rng(seed).random((size[1], size[0])) < data.draw(st.sampled_from([0.1, 0.5, 1]))
    )
    xywh = to_relative(box, size)
    assert all(0 <= share <= 1 + 1e-12 for share in xywh)
    assert from_relative(xywh, size).xyxy == pytest.approx(box.xyxy, abs=1e-6)
    crop = unpack(pack(to_crop(mask, box)))
    back = from_crop_of(crop, xywh, size)
    expected = inside(mask, box)
    assert (back is None) == (not expected.any())
    assert back is None or np.array_equal(back.decode(), expected)


def test_a_mask_moves_and_stretches_with_its_box():
    crop = np.zeros((4, 4), bool)
    crop[:2, :2] = True
    moved = from_crop_of(crop, [10 / 40, 20 / 40, 4 / 40, 4 / 40], (40, 40)).decode()
    assert np.argwhere(moved).tolist() == [[20, 10], [20, 11], [21, 10], [21, 11]]
    grown = from_crop_of(crop, [10 / 40, 20 / 40, 8 / 40, 12 / 40], (40, 40)).decode()
    assert grown.sum() == 24
    assert grown[20:26, 10:14].all()


def test_what_lies_outside_the_image_is_cut_off_and_not_squeezed_in():
    crop = np.zeros((4, 4), bool)
    crop[:, 2:] = True
    half = [-2 / 40, 0.0, 4 / 40, 4 / 40]
    assert from_relative(half, (40, 40)) == Box(0, 0, pytest.approx(2), pytest.approx(4))
    assert from_crop_of(crop, half, (40, 40)).decode()[:4, :2].all()
    left = np.zeros((4, 4), bool)
    left[:, :2] = True
    assert from_crop_of(left, half, (40, 40)) is None
    assert from_crop_of(crop, [2.0, 2.0, 0.1, 0.1], (40, 40)) is None


@pytest.mark.parametrize(
    "xywh",
    [[1.0, 0, 0.5, 0.5], [0, 0, 0, 0.5], [0.5, 0.5, -0.1, 0.1], [float("nan"), 0, 1, 1], [0, 0, float("inf"), 1]],
)
def test_a_box_with_nothing_inside_the_image_is_none(xywh):
    assert from_relative(xywh, (40, 30)) is None


def test_pixels_are_the_same_however_they_are_packed():
    pixels = np.eye(5, dtype=bool)
    other = pack((pixels * 255).astype(np.uint8))
    assert pack(pixels) != other
    assert pixel_digest(pack(pixels)) == pixel_digest(other)
    assert pixel_digest(pack(pixels.T[:, ::-1])) != pixel_digest(other)
    assert pixel_digest(None) is None
