"""What is composed for Label Studio: receipts as the server holds regions, and nothing that it would refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.connect import PushOptions
from autolabel.errors import AutolabelError
from autolabel.ontology import LabelClass, Ontology
from autolabel.types import AnnotatedImage, Box, Mask
from autolabel_connectors.label_studio import compose
from autolabel_connectors.label_studio.convert import from_regions, held_region, to_regions
from autolabel_connectors.label_studio.label_config import check_label_config, label_config
from autolabel_connectors.raster import rasterise
from autolabel_connectors.rle import canonical
from autolabel_connectors.shapes import ShapeOptions, digest, draw, outline
from tests.connectors.cases import MASKS, annotation, odd_masks, picture

ONTOLOGY = Ontology((LabelClass("scratch"), LabelClass("dent")))
CONFIG = label_config(ONTOLOGY)
CONTROLS, _ = check_label_config(CONFIG, ONTOLOGY)
SHAPES = ("box", "polygon", "mask", "auto")


def composer(shape="box") -> compose.Composer:
    return compose.Composer(CONTROLS, PushOptions(shape=shape), CONFIG, "autolabel-v")


def assert_held_as_read(one, shape, image, **options):
    drawing = draw(one, shape, ShapeOptions(**options))
    foretold = held_region(one, image, drawing)
    (read,) = from_regions(json.loads(json.dumps(to_regions(one, image, drawing, CONTROLS))), image, CONTROLS)
    if foretold is not None:
        assert digest(foretold) == digest(read)
        assert (foretold.annotation_id, foretold.part_ids) == (read.annotation_id, read.part_ids)
    return foretold


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000), st.tuples(*[st.floats(0, 1, width=32)] * 4))
def test_a_box_is_foretold_as_it_is_read(width, height, at):
    x0, x1 = sorted((at[0] * width, at[1] * width))
    y0, y1 = sorted((at[2] * height, at[3] * height))
    foretold = assert_held_as_read(annotation((x0, y0, x1, y1)), "box", picture(width, height))
    assert foretold is not None or x1 - x0 < 0.02 or y1 - y0 < 0.02


@settings(max_examples=200, deadline=None)
@given(MASKS, st.sampled_from(SHAPES), st.sampled_from([8, 40, 100_000]))
def test_masks_and_polygons_are_foretold_as_they_are_read(mask, shape, budget):
    one = annotation(mask=mask, box=(0, 0, *mask.shape[::-1]))
    assert_held_as_read(one, shape, picture(*mask.shape[::-1]), max_vertices=budget)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", odd_masks())
def test_odd_masks_are_foretold_too(name, shape):
    mask = odd_masks()[name]
    one = annotation(mask=mask, box=(0, 0, *mask.shape[::-1]))
    assert assert_held_as_read(one, shape, picture(*mask.shape[::-1])) is not None


@settings(max_examples=200, deadline=None)
@given(MASKS)
def test_an_exact_outline_fills_the_mask_itself(mask):
    one = Mask.encode(mask)
    found = outline(one, 100_000)
    assert found.iou == 1.0
    filled = np.zeros(mask.shape, np.bool_)
    for ring in found.rings:
        filled |= rasterise([ring], mask.shape[::-1]).decode()
    assert np.array_equal(filled, mask)


def test_a_mask_with_empty_runs_is_the_same_mask():
    column = np.zeros((16, 1), np.bool_)
    column[1:4] = True
    plain = Mask.encode(column)
    cut = Mask(16, 1, b"110" + b"1<")  # 1 unset, 1 set, 0 unset, 2 set (stored as 1 more), 12 unset (as 12 more)
    assert np.array_equal(cut.decode(), column)
    assert cut != plain
    assert canonical(cut) == canonical(plain) == plain


def test_receipts_name_what_was_sent():
    items = (annotation((1, 1, 5, 5)), annotation((2, 2, 8, 8), label="dent", id="other"))
    wanted = composer().compose(AnnotatedImage(picture(20, 10), items))
    receipts = wanted.receipts(7, "now")
    assert [(r.annotation_id, r.label, r.remote_task, r.pushed_at) for r in receipts] == [
        (items[0].id, "scratch", "7", "now"),
        ("other", "dent", "7", "now"),
    ]
    assert {uid for r in receipts for uid in r.remote_ids} == {part["id"] for part in wanted.result}
    assert len({r.payload for r in receipts}) == 2
    assert wanted.held_by(json.loads(json.dumps(wanted.prediction)))
    assert not wanted.held_by({**wanted.prediction, "score": 0.1})


def test_each_kind_of_region_is_validated_once_and_its_numbers_always(monkeypatch):
    asked = []
    real = compose.Composer._errors
    monkeypatch.setattr(
        compose.Composer, "_errors", lambda self, *args: [*(asked.append(args) or ()), *real(self, *args)]
    )
    one, image = composer(), picture(20, 10)
    for place in range(3):
        one.compose(AnnotatedImage(image, (annotation((1, 1, 5 + place, 5)),)))
    assert len(asked) == 1
    one.compose(AnnotatedImage(image, (annotation(label="dent"),)))
    assert len(asked) == 2
    to = compose.to_regions

    def outside(*args, **named):
        return [{**part, "value": {**part["value"], "x": 100.5}} for part in to(*args, **named)]

    monkeypatch.setattr(compose, "to_regions", outside)
    with pytest.raises(AutolabelError, match="out of bounds"):
        one.compose(AnnotatedImage(image, (annotation(),)))


def test_two_regions_of_one_id_are_refused():
    one = annotation()
    with pytest.raises(AutolabelError, match="several regions have the id"):
        composer().compose(AnnotatedImage(picture(20, 10), (one, replace(one, box=Box(2.0, 2.0, 8.0, 8.0)))))


_CHECKS = """
import sys
from tests.connectors.test_label_studio_compose import annotation, composer, picture
from autolabel.types import AnnotatedImage
one = composer()
one.compose(AnnotatedImage(picture(9, 9), (annotation(),)))
assert not {"jsf", "boto3", "google.cloud.storage", "faker"} & set(sys.modules), "the check brings clients of clouds"
assert one._validator.generate_sample_task()
assert one._validator.generate_sample_prediction()
assert "jsf" in sys.modules
"""


def test_the_check_needs_none_of_the_clients_of_clouds_that_its_package_imports():
    subprocess.run([sys.executable, "-c", _CHECKS], check=True, timeout=120)
