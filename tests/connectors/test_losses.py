"""What a push says of masks shown as polygons."""

from __future__ import annotations

from autolabel_connectors.losses import Losses
from autolabel_connectors.shapes import ShapeOptions, draw
from tests.connectors.cases import annotation, disc


def test_nothing_is_said_where_no_polygons_are_shown():
    losses = Losses()
    losses.take("a.png", [])
    losses.take("b.png", [draw(annotation(), "box")])
    assert losses.said() == ""


def test_the_median_and_the_worst_are_said_and_an_image_counts_once():
    round_one = annotation((2.0, 2.0, 38.0, 38.0), mask=disc(40, 18.0))
    fine = draw(round_one, "polygon", ShapeOptions(max_vertices=100))
    coarse = draw(round_one, "polygon", ShapeOptions(max_vertices=4))
    assert coarse.iou < fine.iou <= 1
    losses = Losses()
    losses.take("a.png", [fine, fine])
    losses.take("b.png", [coarse])
    losses.take("b.png", [coarse])
    assert losses.said() == (
        f"3 regions shown as polygons: IoU with their masks {fine.iou:.3f} in the median, "
        f"{coarse.iou:.3f} at worst (b.png)"
    )
