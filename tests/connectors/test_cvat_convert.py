from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.errors import AutolabelError
from autolabel.ontology import Ontology
from autolabel.types import Box, Mask
from autolabel_connectors.cvat.convert import Problem, from_shape, from_shapes, group_id, to_shapes, validate
from autolabel_connectors.cvat.geometry import decode_mask, encode_mask
from autolabel_connectors.cvat.labels import attribute_specs, check_labels, label_specs
from autolabel_connectors.shapes import ShapeOptions, digest, draw
from tests.connectors.cases import MASKS, annotation, blank, disc, even_odd, odd_masks, picture

ONTOLOGY = Ontology.from_prompt("scratch. dent.")
PARTS = blank(40, 60)
PARTS[3:20, 4:30], PARTS[25:38, 33:50] = True, True

sides = st.integers(1, 4000)
shares = st.floats(0, 1, width=32)


def served(specs):
    """Labels as the server answers after they were created: with ids."""
    return [
        {**label, "id": 35 + i, "has_parent": False, "attributes": [
            {**spec, "id": 100 * (i + 1) + j} for j, spec in enumerate(label["attributes"])
        ]}
        for i, label in enumerate(copy.deepcopy(specs))
    ]  # fmt: skip


LABELS, _ = check_labels(served(label_specs(ONTOLOGY)), ONTOLOGY)


def sent(one, shape="auto", image=None, frame=0, labels=LABELS, attributes=None, **options):
    image = image or picture(60, 40)
    drawn = draw(one, shape, ShapeOptions(**options))
    return to_shapes(one, image, drawn, labels, frame=frame, attributes=attributes)


def stored(shapes, first=858):
    """Shapes as the server answers: through JSON, with ids."""
    return [{**shape, "id": first + i, "elements": []} for i, shape in enumerate(json.loads(json.dumps(shapes)))]


def there_and_back(one, shape="auto", image=None, **options):
    image = image or picture(60, 40)
    return from_shapes(stored(sent(one, shape, image, **options)), image, LABELS)


@settings(max_examples=300, deadline=None)
@given(sides, sides, st.tuples(shares, shares, shares, shares))
def test_a_box_comes_back_to_a_hundredth_of_a_px_and_stays_there(width, height, at):
    x0, x1 = sorted((at[0] * width, at[1] * width))
    y0, y1 = sorted((at[2] * height, at[3] * height))
    if x1 - x0 < 0.02 or y1 - y0 < 0.02:
        return
    image, one = picture(width, height), annotation((x0, y0, x1, y1))
    assert validate(sent(one, "box", image)[0], image, 1, LABELS) == []
    (back,) = there_and_back(one, "box", image)
    assert np.abs(np.subtract(back.box.xyxy, one.box.xyxy)).max() <= 0.00501
    (again,) = there_and_back(replace(one, box=back.box), "box", image)
    assert again.box == back.box
    assert digest(again) == digest(back)


@settings(max_examples=150, deadline=None)
@given(MASKS)
def test_a_mask_is_the_sdks_and_comes_back_exactly(mask):
    masks = pytest.importorskip("cvat_sdk.masks")
    coded, size_wh = Mask.encode(mask), mask.shape[::-1]
    if not mask.any():
        with pytest.raises(AutolabelError, match="at least one pixel"):
            encode_mask(coded)
        return
    points = encode_mask(coded)
    assert points == masks.encode_mask(mask)
    assert np.array_equal(masks.decode_mask(points, image_width=size_wh[0], image_height=size_wh[1]), mask)
    assert decode_mask(points, size_wh) == coded
    one = annotation(mask=mask)
    (back,) = there_and_back(one, "mask", picture(*size_wh))
    assert (back.mask, back.annotation_id) == (coded, one.id)


@settings(max_examples=100, deadline=None)
@given(MASKS, st.sampled_from([8, 40, 100_000]))
def test_polygons_come_back_as_one_region_with_the_loss_that_was_stated(mask, budget):
    one, image = annotation(mask=mask, box=(0, 0, *mask.shape[::-1])), picture(*mask.shape[::-1])
    drawn = draw(one, "polygon", ShapeOptions(max_vertices=budget))
    shapes = sent(one, "polygon", image, max_vertices=budget)
    assert all(validate(shape, image, 1, LABELS) == [] for shape in shapes)
    (back,) = from_shapes(stored(shapes), image, LABELS)
    assert back.annotation_id == one.id
    if mask.any():
        filled = np.any([even_odd([points], mask.shape) for points in drawn.rings], axis=0)
        assert np.array_equal(back.mask.decode(), filled)


@pytest.mark.parametrize("shape", ["polygon", "mask", "auto"])
@pytest.mark.parametrize("name", odd_masks())
def test_odd_masks_never_vanish(name, shape):
    mask = odd_masks()[name]
    (back,) = there_and_back(annotation(mask=mask), shape, picture(*mask.shape[::-1]))
    assert back.problem is None
    assert back.mask.decode().any()


def test_a_mask_with_a_crop_that_is_larger_or_outside_is_read():
    # Other tools crop by the box, not by the pixels, and people push masks over the border.
    mask = blank(6, 8, (2, 3), (5, 7))
    whole = np.pad(mask, 2)
    masks = pytest.importorskip("cvat_sdk.masks")
    *runs, left, top, right, bottom = masks.encode_mask(whole, [0, 0, 12, 10])
    assert decode_mask([*runs, left - 2, top - 2, right - 2, bottom - 2], (8, 6)) == Mask.encode(mask)


@pytest.mark.parametrize(
    "points", [[], [1, 2, 3], [0, 4, 0, 0, 2, 2], [0, 9.5, 0, 0, 2, 2], [0, -9, 18, 0, 0, 2, 2], [0, 4, 5, 5, 2, 2]]
)
def test_damaged_masks_are_problems(points):
    region = from_shape({"id": 5, "type": "mask", "label_id": 35, "points": points}, picture(9, 9), LABELS)
    assert region.problem
    assert region.label == "scratch"


def test_one_annotation_is_one_shape_with_attributes_that_are_never_empty():
    one = annotation((6, 4, 30, 20), score=0.93)
    (shape,) = sent(one, frame=2, attributes={"noise": "suspect", "suggested": "", "unknown": "x"})
    names = {spec.id: spec.name for spec in LABELS.by_name["scratch"].attributes.values()}
    assert {names[item["spec_id"]]: item["value"] for item in shape.pop("attributes")} == {
        "score": "0.9300", "annotation_id": one.id, "noise": "suspect", "suggested": "none",
    }  # fmt: skip
    assert shape == {
        "type": "rectangle", "label_id": 35, "frame": 2, "points": [6.0, 4.0, 30.0, 20.0], "source": "auto",
        "occluded": False, "outside": False, "z_order": 0, "rotation": 0.0, "score": 0.93, "group": 0,
    }  # fmt: skip
    (back,) = from_shapes(stored(sent(one, attributes={"noise": "suspect"})), picture(60, 40), LABELS)
    assert (back.score, back.origin, back.remote_id) == (0.93, "prediction", "858")
    assert back.attributes["noise"] == "suspect"


def test_a_noise_value_that_the_project_does_not_offer_becomes_its_default():
    (shape,) = sent(annotation(), attributes={"noise": "label: 0.12"})
    assert "no" in [item["value"] for item in shape["attributes"]]
    assert validate(shape, picture(60, 40), 1, LABELS) == []


def test_shapes_are_what_the_sdk_takes():
    models = pytest.importorskip("cvat_sdk.models")
    for shape in ("box", "polygon", "mask"):
        for item in sent(annotation((4, 3, 50, 38), mask=PARTS), shape):
            assert models.LabeledShapeRequest._new_from_openapi_data(**item).points == item["points"]
    for label in label_specs(ONTOLOGY):
        assert models.PatchedLabelRequest._new_from_openapi_data(**label).name == label["name"]


def test_parts_share_a_group_and_are_one_region():
    one = annotation(mask=PARTS)
    shapes = stored(sent(one))
    assert [shape["group"] for shape in shapes] == [group_id(one.id)] * 2
    assert 0 < group_id(one.id) <= 10**9
    (back,) = from_shapes(shapes[::-1], picture(60, 40), LABELS)
    assert (back.remote_id, back.part_ids, back.annotation_id) == ("858", ("858", "859"), one.id)
    assert back.mask == one.mask


def test_a_part_that_a_person_relabelled_is_a_region_of_its_own():
    shapes = stored(sent(annotation(mask=PARTS)))
    shapes[1] |= {"label_id": 36, "attributes": [], "source": "semi-auto"}
    first, second = from_shapes(shapes, picture(60, 40), LABELS)
    assert (first.label, first.annotation_id) == ("scratch", annotation().id)
    assert (second.label, second.annotation_id, second.origin) == ("dent", None, "prediction-changed")


def test_a_relabelled_shape_lost_its_attributes_and_is_known_by_its_id():
    one = annotation((6, 4, 30, 20))
    (shape,) = stored(sent(one))
    shape |= {"label_id": 36, "attributes": []}
    assert from_shapes([shape], picture(60, 40), LABELS)[0].annotation_id is None
    (back,) = from_shapes([shape], picture(60, 40), LABELS, ids={"858": one.id})
    assert (back.annotation_id, back.label) == (one.id, "dent")


def test_of_two_shapes_that_claim_one_annotation_the_older_is_it():
    one = annotation((6, 4, 30, 20))
    (shape,) = stored(sent(one))
    copied = {**copy.deepcopy(shape), "id": 1000, "points": [8.0, 6.0, 32.0, 22.0]}
    found = from_shapes([copied, shape], picture(60, 40), LABELS)
    assert {region.remote_id: region.annotation_id for region in found} == {"858": one.id, "1000": None}
    found = from_shapes([copied, shape], picture(60, 40), LABELS, ids={"1000": one.id})
    assert {region.remote_id: region.annotation_id for region in found} == {"858": None, "1000": one.id}


def drawn(kind, points, **more):
    return {"id": 7, "type": kind, "label_id": 35, "frame": 0, "points": points, "source": "manual", "attributes": [],
            "elements": [], "rotation": 0.0, **more}  # fmt: skip


def read(shape):
    return from_shape(shape, picture(200, 100), LABELS)


def test_a_turned_rectangle_is_its_enclosing_box_and_its_pixels():
    back = read(drawn("rectangle", [80.0, 40.0, 120.0, 60.0], rotation=30.0))
    half = (20 * np.cos(np.pi / 6) + 10 * 0.5, 20 * 0.5 + 10 * np.cos(np.pi / 6))
    assert back.box.xyxy == pytest.approx((100 - half[0], 50 - half[1], 100 + half[0], 50 + half[1]), abs=0.01)
    assert (back.kind, back.rotation) == ("box", 30.0)
    assert back.mask.area == pytest.approx(800, rel=0.02)
    turned = read(drawn("rectangle", [80.0, 40.0, 120.0, 60.0], rotation=90.0))
    assert (turned.box, turned.mask) == (Box(90, 30, 110, 70), None)


def test_an_ellipse_is_its_pixels():
    back = read(drawn("ellipse", [100.0, 50.0, 140.0, 40.0]))
    assert back.box.xyxy == pytest.approx((60, 40, 140, 60), abs=0.05)
    assert back.mask.area == pytest.approx(np.pi * 40 * 10, rel=0.01)
    assert read(drawn("ellipse", [100.0, 50.0, 140.0, 40.0], rotation=90.0)).box.xyxy == pytest.approx(
        (90, 10, 110, 90), abs=0.05
    )


def test_what_lies_outside_the_image_is_cut_off_or_reported():
    assert read(drawn("rectangle", [-50.0, 1.0, 9000.0, 2.0])).box == Box(0, 1, 200, 2)
    gone = read(drawn("rectangle", [300.0, 1.0, 310.0, 9.0]))
    assert gone.box is None
    assert "outside the image" in gone.problem


def test_what_has_no_area_is_reported_and_not_dropped():
    shapes = [
        drawn("polyline", [1.0, 1.0, 50.0, 60.0]),
        drawn("points", [5.0, 6.0], id=8),
        drawn("skeleton", [], id=9, elements=[drawn("points", [5.0, 6.0])]),
        drawn("cuboid", [1.0] * 16, id=10),
        drawn("polygon", [1.0, 1.0, 2.0, 2.0], id=11),
        drawn("rectangle", [1.0, 1.0, 2.0], id=12),
        drawn("rectangle", [float("nan"), 1.0, 2.0, 3.0], id=13),
        drawn("sphere", [1.0], id=14),
        drawn("rectangle", None, id=15),
    ]
    found = from_shapes(shapes, picture(200, 100), LABELS)
    assert len(found) == len(shapes)
    assert all(region.problem and region.label == "scratch" for region in found)
    assert [region.kind for region in found[:3]] == ["line", "point", "unknown"]
    assert found[1].attributes["points"] == "5,6"
    assert from_shapes([], picture(200, 100), LABELS) == []


def test_labels_that_are_not_ours_keep_their_name_and_unknown_ones_have_none():
    existing = [*served(label_specs(ONTOLOGY)), {"id": 99, "name": "glare", "attributes": []}]
    labels, problems = check_labels(existing, ONTOLOGY)
    assert problems == []
    assert from_shape(drawn("rectangle", [1.0, 1.0, 5.0, 5.0], label_id=99), picture(9, 9), labels).label == "glare"
    assert from_shape(drawn("rectangle", [1.0, 1.0, 5.0, 5.0], label_id=1), picture(9, 9), labels).label is None


def test_specs_have_a_numeric_score_and_no_empty_value():
    specs = label_specs(ONTOLOGY, ["#112233", "#445566"])
    assert [(spec["name"], spec["color"]) for spec in specs] == [("scratch", "#112233"), ("dent", "#445566")]
    by_name = {spec["name"]: spec for spec in attribute_specs()}
    assert by_name["score"] == {
        "name": "score", "mutable": False, "input_type": "number", "values": ["0", "1", "0.0001"], "default_value": "0",
    }  # fmt: skip
    assert set(by_name) == {"score", "annotation_id", "noise", "noise_reason", "suggested", "model_version"}
    assert all(spec["default_value"] and all(spec["values"]) for spec in by_name.values())


def test_what_does_not_fit_is_said_in_plain_words():
    # As recorded from a project that someone made by hand.
    score = {"id": 10, "name": "score", "mutable": False, "input_type": "text", "default_value": "", "values": [""]}
    existing = [{"id": 35, "name": "Scratch", "type": "polygon", "attributes": [score]}]
    labels, problems = check_labels(existing, ONTOLOGY, "box")
    assert problems[0].startswith("label 'Scratch' is for polygon only and refuses rectangle; ")
    assert problems[1].startswith("label 'Scratch' has no attribute annotation_id, noise, noise_reason, suggested, mod")
    assert problems[2].startswith("attribute 'score' of label 'Scratch' has the default '', which breaks")
    assert problems[3] == "the project has no label 'dent'; add it in the project's settings"
    assert labels.by_name["scratch"].id == 35
    with pytest.raises(AutolabelError, match="label 'dent' is not in the project"):
        to_shapes(annotation(label="dent"), picture(9, 9), draw(annotation()), labels, frame=0)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"frame": 3}, "frame"),
        ({"frame": -1}, "frame"),
        ({"label_id": 999999}, "label_id"),
        ({"type": "sphere"}, "type"),
        ({"points": [1.0, 1.0, 2.0]}, "points"),
        ({"points": [-50.0, 1.0, 9000.0, 2.0]}, "points"),
        ({"points": [5.0, 5.0, 5.004, 9.0]}, "points"),
        ({"points": [9.0, 9.0, 5.0, 5.0]}, "points"),
        ({"points": [5.0, float("nan"), 9.0, 9.0]}, "points"),
        ({"type": "polygon", "points": [1.0, 1.0, 5.0, 5.0]}, "points"),
        ({"type": "mask", "points": [0.0, 4.0, 5.0, 5.0, 6.0, 7.0]}, "points"),
        ({"type": "mask", "points": [4.0, 5.0, 5.0, 6.0, 6.0]}, "points"),
        ({"type": "mask", "points": [4.0, 0.0, 5.0, 5.0, 6.0, 6.0]}, "points"),
        ({"type": "mask", "points": [0.0, 4.0, 59.0, 5.0, 60.0, 6.0]}, "points"),
        ({"attributes": [{"spec_id": 5, "value": "x"}]}, "spec_id"),
        ({"attributes": [{"spec_id": 100, "value": ""}]}, "attribute score"),
        ({"attributes": [{"spec_id": 100, "value": "1.3"}]}, "attribute score"),
        ({"attributes": [{"spec_id": 100, "value": "high"}]}, "attribute score"),
        ({"attributes": [{"spec_id": 101, "value": ""}]}, "attribute annotation_id"),
        ({"attributes": [{"spec_id": 102, "value": "perhaps"}]}, "attribute noise"),
    ],
)
def test_what_the_server_would_refuse_drop_or_accept_wrongly_is_found(change, field):
    (shape,) = sent(annotation((6, 4, 30, 20)), frame=2)
    assert validate(shape, picture(60, 40), 3, LABELS) == []
    problems = validate({**shape, **change}, picture(60, 40), 3, LABELS)
    assert [problem.field for problem in problems] == [field]
    assert problems[0].remedy


def test_a_problem_reads_as_field_value_and_remedy():
    assert str(Problem("frame", "999", "it must be 0 to 2")) == "frame is 999; it must be 0 to 2"


def test_a_label_for_polygons_alone_takes_no_rectangle():
    existing = served(label_specs(ONTOLOGY))
    existing[0]["type"] = "polygon"
    labels, _ = check_labels(existing, ONTOLOGY)
    (box,) = sent(annotation((6, 4, 30, 20)), labels=labels)
    assert [problem.field for problem in validate(box, picture(60, 40), 1, labels)] == ["type"]
    (polygon,) = sent(annotation(mask=disc(40, 12)), "polygon", labels=labels)
    assert validate(polygon, picture(60, 40), 1, labels) == []
