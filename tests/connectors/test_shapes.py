from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.errors import ConfigError
from autolabel.types import Box, Mask
from autolabel_connectors import rle
from autolabel_connectors.raster import ellipse_ring, rasterise, rectangle_ring, turned
from autolabel_connectors.shapes import SHAPES, Drawing, Region, ShapeOptions, digest, draw, outline
from autolabel_connectors.weight import freeze_warning, weigh
from tests.connectors.cases import MASKS, annotation, blank, disc, even_odd, iou, odd_masks, picture, ring


@pytest.mark.parametrize("shape", SHAPES)
def test_an_empty_mask_or_none_is_a_box(shape):
    empty = annotation((1, 2, 5, 6), blank(9, 12))
    assert draw(empty, shape) == Drawing("box", Box(1, 2, 5, 6))
    assert draw(replace(empty, mask=None), shape) == Drawing("box", Box(1, 2, 5, 6))
    assert outline(Mask.encode(blank(9, 12))).rings == ()


@pytest.mark.parametrize("shape", ["polygon", "mask", "auto"])
@pytest.mark.parametrize("name", odd_masks())
def test_odd_masks_keep_their_pixels(name, shape):
    mask = odd_masks()[name]
    drawn = draw(annotation(mask=mask), shape)
    if drawn.kind == "mask":
        assert np.array_equal(drawn.mask.decode(), mask)
    else:
        filled = np.any([even_odd([points], mask.shape) for points in drawn.rings], axis=0)
        assert drawn.iou == pytest.approx(iou(filled, mask))
        assert drawn.iou == 1.0 or (name == "a chessboard" and shape == "polygon")
    rows, columns = np.nonzero(mask)
    assert drawn.box == Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@settings(max_examples=150, deadline=None)
@given(MASKS, st.integers(4, 60))
def test_any_mask_has_an_outline_within_the_budget_and_its_loss_is_stated(mask, budget):
    found = outline(Mask.encode(mask), budget)
    assert found.vertices <= budget
    if not mask.any():
        return
    filled = np.any([even_odd([points], mask.shape) for points in found.rings], axis=0)
    assert 0 < found.iou <= 1
    assert found.iou == pytest.approx(iou(filled, mask))
    assert all(len(points) >= 3 for points in found.rings)
    limits = np.array(mask.shape[::-1])
    assert all(np.all(points >= 0) and np.all(points <= limits) for points in found.rings)


def test_the_smallest_tolerance_that_fits_is_taken():
    mask = Mask.encode(disc(400, 150))
    ious = [outline(mask, budget).iou for budget in (6, 12, 30, 100, 10_000)]
    assert ious == sorted(ious)
    assert ious[3] > 0.99
    assert ious[4] == 1.0
    assert outline(mask, 10_000).tolerance_px == 0.0


def test_a_thin_diagonal_scratch_does_not_collapse():
    canvas = np.zeros((300, 300), np.uint8)
    cv2.line(canvas, (10, 20), (280, 250), 1, 1)
    mask = Mask.encode(canvas.astype(np.bool_))
    found = outline(mask, 12)
    assert found.vertices <= 12
    assert found.iou > 0.3
    assert draw(annotation(mask=mask.decode()), "auto", ShapeOptions(max_vertices=12)).kind == "mask"


def test_parts_and_holes_are_kept():
    mask = np.zeros((60, 130), np.bool_)
    mask[:60, :60] = ring(60, 28, 12)
    mask[5:55, 70:120] = True
    found = outline(Mask.encode(mask), 100)
    assert (found.parts, found.holes, len(found.rings)) == (2, 1, 2)
    assert found.iou > 0.95
    filled = np.any([even_odd([points], mask.shape) for points in found.rings], axis=0)
    assert not filled[30, 30]


def test_auto_takes_the_mask_where_polygons_lose_or_do_not_fit():
    solid, holed = annotation(mask=disc(60, 25)), annotation(mask=ring(60, 25, 10))
    specks = annotation(mask=np.random.default_rng(0).random((40, 40)) < 0.2)
    assert draw(solid).kind == "polygon"
    assert draw(solid).iou >= 0.95
    assert draw(solid, options=ShapeOptions(max_vertices=4, min_iou=0.95)).kind == "mask"
    assert draw(holed).kind == "mask"
    assert draw(holed, options=ShapeOptions(max_holes=1)).kind == "polygon"
    assert draw(specks).kind == "mask"
    assert draw(specks, "polygon").kind == "polygon"
    assert draw(solid, "box") == Drawing("box", solid.box)


def test_wrong_options_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"max_vertices must be at least 4, got 3"):
        ShapeOptions(max_vertices=3)
    with pytest.raises(ConfigError, match=r"min_iou must be in \[0, 1\], got 2"):
        ShapeOptions(min_iou=2)
    with pytest.raises(ConfigError, match="circle"):
        draw(annotation(), "circle")


@settings(max_examples=150, deadline=None)
@given(MASKS)
def test_runs_are_those_of_pycocotools_and_of_numpy(mask):
    coded = Mask.encode(mask)
    pixels, left, top = rle.crop(coded)
    size_wh = mask.shape[::-1]
    assert rle.from_crop(pixels, left, top, size_wh) == coded
    starts, ends = rle.row_runs(coded)
    assert sum(ends - starts) == mask.sum()
    assert all(mask.ravel()[start:end].all() for start, end in zip(starts, ends, strict=True))
    assert np.all(starts[1:] > ends[:-1])
    assert rle.from_row_runs(starts, ends, size_wh) == coded


@pytest.mark.parametrize("corner", [(0, 0), (0, 3999), (3999, 0), (3999, 3999), (1234, 777)])
def test_runs_of_large_images_are_exact(corner):
    mask = blank(4000, 4000, corner)
    mask[2000:2003, 100:3000] = True
    coded = Mask.encode(mask)
    assert np.array_equal(coded.decode(), mask)
    assert rle.from_row_runs(*rle.row_runs(coded), (4000, 4000)) == coded


quarters = st.integers(-20, 100).map(lambda number: number / 4)  # so that floats are exact, also on a tie
corners = st.tuples(quarters, quarters)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(corners, min_size=3, max_size=8).map(np.array), max_size=3))
def test_filling_follows_the_even_odd_rule_and_is_cut_at_the_border(rings):
    assert np.array_equal(rasterise(rings, (20, 16)).decode(), even_odd(rings, (16, 20)))


def test_an_outline_without_area_fills_nothing():
    there_and_back = np.array([[0.0, 0.0], [0.0, 0.0], [4.909279964935493, 4.909279964935493]])
    assert rasterise([there_and_back], (20, 16)).area == 0


def test_turned_rectangles_and_ellipses_have_their_area():
    square = turned(rectangle_ring(100, 100, 200, 200), 30, (150, 150))
    assert rasterise([square], (300, 300)).area == pytest.approx(10_000, rel=0.005)
    assert np.allclose(turned(np.array([[1.0, 0.0]]), 90, (0, 0)), [[0, 1]])  # clockwise on a screen: right goes down
    oval = rasterise([ellipse_ring((150, 150), (100, 40), 25)], (300, 300))
    assert oval.area == pytest.approx(np.pi * 100 * 40, rel=0.005)


def region(**changes) -> Region:
    return replace(Region("r", "box", "scratch", Box(1.23, 2, 30, 40)), **changes)


def test_a_digest_sees_edits_and_nothing_else():
    same = [
        region(box=Box(1.23 + 1e-9, 2 - 1e-12, 30, 40)),
        region(score=0.1, attributes={"note": "x"}, remote_id="s", origin="prediction"),
    ]
    other = [
        region(box=Box(1.25, 2, 30, 40)),
        region(label="dent"),
        region(mask=Mask.encode(blank(9, 12, (1, 1)))),
        region(box=None, kind="point", attributes={"point": "1,1"}),
    ]
    assert {digest(one) for one in same} == {digest(region())}
    assert len({digest(one) for one in [region(), *other]}) == 5
    one, two = (region(mask=Mask.encode(blank(9, 12, (1, x)))) for x in (1, 2))
    assert digest(one) != digest(two)
    assert digest(one) == digest(replace(one, box=None, kind="polygon"))


def test_few_light_regions_do_not_warn():
    image = picture(1920, 1080)
    weight = weigh(image, [Drawing("box", Box(0, 0, 5, 5))] * 300)
    assert (weight.regions, weight.masks, weight.brush_bytes) == (300, 0, 0)
    assert freeze_warning(weight, "label-studio", image) is None
    assert freeze_warning(weight, "cvat", image) is None


def test_many_brush_masks_warn_for_label_studio_alone():
    image = picture(4000, 3000)
    mask = Mask.encode(blank(3000, 4000, (5, 5), (5, 6)))
    weight = weigh(image, [Drawing("mask", Box(5, 5, 7, 6), mask=mask)] * 150)
    assert weight.brush_bytes == 150 * 4000 * 3000 * 4
    assert weight.mask_pixels == 300
    warning = freeze_warning(weight, "label-studio", image)
    assert "150 brush masks of 4000×3000 px" in warning
    assert "send polygons" in warning
    assert freeze_warning(weight, "cvat", image) is None


def test_a_thousand_shapes_warn_for_cvat():
    image = picture(640, 480)
    drawings = [Drawing("polygon", Box(0, 0, 5, 5), rings=(np.zeros((4, 2)), np.zeros((4, 2))))] * 501
    assert weigh(image, drawings).regions == 1002
    assert "1002 shapes make CVAT slow" in freeze_warning(weigh(image, drawings), "cvat", image)
    assert freeze_warning(weigh(image, drawings[:500]), "cvat", image) is None
