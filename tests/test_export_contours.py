from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from autolabel.export.contours import Ring, join, mask_rings, simplify, svg_path
from autolabel.types import Mask

masks = arrays.arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 24)))


def even_odd(rings: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Decide every pixel centre by crossings of a ray, straight from the definition."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] + 0.5
    inside = np.zeros(shape, np.bool_)
    for points in rings:
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            if y0 != y1:
                crosses = (y >= min(y0, y1)) & (y < max(y0, y1)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
                inside ^= crosses
    return inside


def disc(size: int, radius: float) -> np.ndarray:
    y, x = np.mgrid[0:size, 0:size] + 0.5
    return np.hypot(x - size / 2, y - size / 2) <= radius


def test_empty_mask_has_no_rings():
    assert mask_rings(Mask.encode(np.zeros((5, 7), np.bool_))) == []
    assert join([]).shape == (0, 2)
    assert svg_path([]) == ""


def test_rectangle_runs_along_pixel_edges():
    mask = np.zeros((10, 12), np.bool_)
    mask[2:5, 3:9] = True
    (ring,) = mask_rings(Mask.encode(mask))
    assert sorted(map(tuple, ring.points.tolist())) == [(3, 2), (3, 5), (9, 2), (9, 5)]
    assert ring.area == 18
    assert not ring.hole


@settings(max_examples=150, deadline=None)
@given(masks)
def test_rings_restore_any_mask_exactly(mask: np.ndarray):
    rings = mask_rings(Mask.encode(mask))
    assert np.array_equal(even_odd([ring.points for ring in rings], mask.shape), mask)
    assert sum(-ring.area if ring.hole else ring.area for ring in rings) == mask.sum()


@settings(max_examples=100, deadline=None)
@given(masks)
def test_joined_ring_keeps_parts_and_holes(mask: np.ndarray):
    joined = join(mask_rings(Mask.encode(mask)))
    restored = even_odd([joined], mask.shape) if len(joined) else np.zeros_like(mask)
    assert np.array_equal(restored, mask)


def test_hole_is_marked():
    mask = disc(60, 25) & ~disc(60, 10)
    outer, hole = mask_rings(Mask.encode(mask))
    assert (outer.hole, hole.hole) == (False, True)


def test_simplifying_a_disc_saves_vertices_and_keeps_its_area():
    (ring,) = mask_rings(Mask.encode(disc(200, 80)))
    simpler = simplify(ring, 1.0)
    assert len(simpler.points) < len(ring.points) / 4
    assert simpler.area == pytest.approx(np.pi * 80**2, rel=0.02)


def test_simplifying_spares_thin_lines():
    line = np.zeros((60, 60), np.uint8)
    cv2.line(line, (3, 3), (55, 30), 1, 1)
    (ring,) = mask_rings(Mask.encode(line.astype(np.bool_)))
    assert abs(simplify(ring, 3.0).area - ring.area) <= 0.05 * ring.area


def test_svg_path_is_relative_and_scaled():
    ring = Ring(np.array([[2.0, 4.0], [6.0, 4.0], [6.0, 8.0], [2.0, 8.0]]), hole=False)
    assert svg_path([ring], 0.5) == "M1 2l2 0l0 2l-2 0z"
