from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.ontology import LabelClass, Ontology
from autolabel.types import Box, Mask
from autolabel_connectors.label_studio.brush import encode_bitmask, encode_brush
from autolabel_connectors.label_studio.convert import from_region, from_regions, region_id, to_regions
from autolabel_connectors.label_studio.label_config import check_label_config, label_config
from autolabel_connectors.shapes import ShapeOptions, digest, draw
from tests.connectors.cases import MASKS, annotation, blank, disc, even_odd, odd_masks, picture, ring

ONTOLOGY = Ontology((LabelClass("scratch"), LabelClass('Öl & "dent" <1>')))
CONTROLS, _ = check_label_config(label_config(ONTOLOGY), ONTOLOGY)
PARTS = blank(40, 60)
PARTS[3:20, 4:30], PARTS[25:38, 33:50] = True, True

sides = st.integers(1, 4000)
shares = st.floats(0, 1, width=32)


def there_and_back(one, shape="auto", image=None, controls=CONTROLS, **options):
    image = image or picture(60, 40)
    items = to_regions(one, image, draw(one, shape, ShapeOptions(**options)), controls)
    return from_regions(json.loads(json.dumps(items)), image, controls)


@settings(max_examples=300, deadline=None)
@given(sides, sides, st.tuples(shares, shares, shares, shares))
def test_a_box_comes_back_to_a_hundredth_of_a_px_and_stays_there(width, height, at):
    x0, x1 = sorted((at[0] * width, at[1] * width))
    y0, y1 = sorted((at[2] * height, at[3] * height))
    if x1 - x0 < 0.02 or y1 - y0 < 0.02:
        return
    image, one = picture(width, height), annotation((x0, y0, x1, y1))
    (back,) = there_and_back(one, "box", image)
    assert np.abs(np.subtract(back.box.xyxy, one.box.xyxy)).max() <= 0.00501
    assert 0 <= back.box.x_min < back.box.x_max <= width
    assert 0 <= back.box.y_min < back.box.y_max <= height
    (again,) = there_and_back(replace(one, box=back.box), "box", image)
    assert again.box == back.box
    assert digest(again) == digest(back)


@settings(max_examples=300, deadline=None)
@given(sides, sides, st.tuples(shares, shares, shares, shares), st.floats(-1e-9, 1e-9))
def test_what_a_servers_arithmetic_adds_is_no_edit(width, height, at, noise):
    x0, x1 = sorted((at[0] * width, at[1] * width))
    y0, y1 = sorted((at[2] * height, at[3] * height))
    if x1 - x0 < 1 or y1 - y0 < 1:
        return
    image, one = picture(width, height), annotation((x0, y0, x1, y1))
    (item,) = to_regions(one, image, draw(one, "box"), CONTROLS)
    moved = copy.deepcopy(item)
    for name in ("x", "y", "width", "height"):
        moved["value"][name] += noise
    assert digest(from_region(moved, image)) == digest(from_region(item, image))


@settings(max_examples=100, deadline=None)
@given(MASKS)
def test_a_mask_comes_back_exactly(mask):
    one = annotation(mask=mask, box=(0, 0, *mask.shape[::-1]))
    (back,) = there_and_back(one, "mask", picture(*mask.shape[::-1]))
    assert back.annotation_id == one.id
    assert back.mask == (one.mask if mask.any() else None)


@settings(max_examples=100, deadline=None)
@given(MASKS, st.sampled_from([8, 40, 100_000]))
def test_polygons_come_back_as_one_region_with_the_loss_that_was_stated(mask, budget):
    one = annotation(mask=mask, box=(0, 0, *mask.shape[::-1]))
    drawn = draw(one, "polygon", ShapeOptions(max_vertices=budget))
    (back,) = there_and_back(one, "polygon", picture(*mask.shape[::-1]), max_vertices=budget)
    assert back.annotation_id == one.id
    if mask.any():
        filled = np.any([even_odd([points], mask.shape) for points in drawn.rings], axis=0)
        assert np.array_equal(back.mask.decode(), filled)
        assert drawn.iou < 1 or back.mask == one.mask


@pytest.mark.parametrize("shape", ["polygon", "mask", "auto"])
@pytest.mark.parametrize("name", odd_masks())
def test_odd_masks_never_vanish(name, shape):
    mask = odd_masks()[name]
    (back,) = there_and_back(annotation(mask=mask), shape, picture(*mask.shape[::-1]))
    assert back.problem is None
    assert back.mask.decode().any()


def test_one_annotation_is_one_item_with_all_that_the_editor_needs():
    one = annotation((6, 4, 30, 20), label='Öl & "dent" <1>')
    (item,) = to_regions(one, picture(60, 40), draw(one), CONTROLS, {"noise": "label, 0.12", "suggested": "scratch"})
    assert item == {
        "id": region_id(one.id),
        "from_name": "box",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": 60,
        "original_height": 40,
        "image_rotation": 0,
        "score": 0.75,
        "meta": {
            "autolabel": {"id": one.id, "noise": "label, 0.12", "suggested": "scratch"},
            "text": ["noise: label, 0.12", "suggested: scratch"],
        },
        "value": {
            "x": pytest.approx(10),
            "y": pytest.approx(10),
            "width": pytest.approx(40),
            "height": pytest.approx(40),
            "rotation": 0,
            "rectanglelabels": ['Öl & "dent" <1>'],
        },
    }
    back = from_region(item, picture(60, 40), CONTROLS)
    assert (back.label, back.score, back.annotation_id) == (one.label, 0.75, one.id)
    assert back.attributes == {
        "noise": "label, 0.12", "suggested": "scratch", "text": "noise: label, 0.12\nsuggested: scratch",
    }  # fmt: skip


def test_region_ids_are_short_and_always_the_same():
    assert region_id("a") == region_id("a") != region_id("b")
    assert region_id("a", 2) == region_id("a") + "-2"
    assert len(region_id("a")) == 10
    assert region_id("a").isalnum()


def test_a_score_a_hair_above_one_is_sent_as_one():
    one = annotation(score=1.0000001)
    assert to_regions(one, picture(60, 40), draw(one), CONTROLS)[0]["score"] == 1.0


def test_parts_are_children_of_the_first_and_one_region():
    one = annotation(mask=PARTS)
    items = to_regions(one, picture(60, 40), draw(one), CONTROLS)
    assert [item["id"] for item in items] == [region_id(one.id), region_id(one.id, 1)]
    assert [item.get("parentID") for item in items] == [None, region_id(one.id)]
    (back,) = from_regions(items[::-1], picture(60, 40), CONTROLS)
    assert back.remote_id == region_id(one.id)
    assert back.part_ids == (region_id(one.id), region_id(one.id, 1))
    assert back.mask == one.mask


def test_a_part_that_a_person_relabelled_is_a_region_of_its_own():
    one = annotation(mask=PARTS)
    items = to_regions(one, picture(60, 40), draw(one), CONTROLS)
    items[1]["value"]["polygonlabels"] = ['Öl & "dent" <1>']
    first, second = from_regions(items, picture(60, 40), CONTROLS)
    assert (first.annotation_id, first.label) == (one.id, "scratch")
    assert (second.annotation_id, second.label) == (None, 'Öl & "dent" <1>')
    assert first.mask.area + second.mask.area == one.mask.area


def test_a_part_that_a_person_deleted_is_gone_and_the_rest_stays_ours():
    one = annotation(mask=PARTS)
    items = to_regions(one, picture(60, 40), draw(one), CONTROLS)
    for kept in items:
        (back,) = from_regions([kept], picture(60, 40), CONTROLS)
        assert back.annotation_id == one.id
        assert 0 < back.mask.area < one.mask.area


def test_a_copy_of_a_region_is_a_new_one():
    one = annotation((6, 4, 30, 20))
    (item,) = to_regions(one, picture(60, 40), draw(one), CONTROLS)
    copied = {**copy.deepcopy(item), "id": "Xy_3-abcd9"}
    found = from_regions([item, copied], picture(60, 40), CONTROLS)
    assert {region.remote_id: region.annotation_id for region in found} == {item["id"]: one.id, "Xy_3-abcd9": None}


def test_an_import_that_gives_new_ids_keeps_what_the_notes_say():
    one = annotation(mask=PARTS)
    items = to_regions(one, picture(60, 40), draw(one), CONTROLS)
    new = {items[0]["id"]: "Qx_1-first0", items[1]["id"]: "Qx_1-secon1"}
    for item in items:
        item["id"] = new[item["id"]]
        if "parentID" in item:
            item["parentID"] = new[item["parentID"]]
    stray = {**copy.deepcopy(items[0]), "id": "copy-of-it0"}
    back, extra = from_regions([*items, stray], picture(60, 40), CONTROLS)
    assert (back.annotation_id, back.mask, len(back.part_ids)) == (one.id, one.mask, 2)
    assert (extra.annotation_id, extra.remote_id) == (None, "copy-of-it0")


def test_what_was_sent_is_known_by_its_id_even_without_notes():
    one = annotation((6, 4, 30, 20))
    (item,) = to_regions(one, picture(60, 40), draw(one), CONTROLS)
    del item["meta"]
    assert from_regions([item], picture(60, 40))[0].annotation_id is None
    assert from_regions([item], picture(60, 40), ids={item["id"]: one.id})[0].annotation_id == one.id


def drawn(kind, value, **more):
    return {
        "id": "abc", "from_name": "x", "to_name": "image", "type": kind, "value": value, "original_width": 200,
        "original_height": 100, "image_rotation": 0, "origin": "manual", **more,
    }  # fmt: skip


def rectangle(x, y, width, height, rotation=0, **more):
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation, "rectanglelabels": ["scratch"]}
    return drawn("rectanglelabels", value, **more)


def read(item):
    return from_region(item, picture(200, 100))


def test_who_made_a_region_is_read():
    assert read(rectangle(10, 10, 10, 10)).origin == "manual"
    assert read(rectangle(10, 10, 10, 10, origin="prediction")).origin == "prediction"
    assert read(rectangle(10, 10, 10, 10, origin="prediction-changed")).origin == "prediction-changed"


def test_a_turned_rectangle_is_its_enclosing_box_and_its_pixels():
    back = read(rectangle(50, 50, 20, 20, rotation=45))
    half = 20 / np.sqrt(2), 40 / np.sqrt(2)
    assert back.box.xyxy == pytest.approx((100 - half[0], 50, 100 + half[1], 50 + sum(half)), abs=0.01)
    assert back.rotation == 45
    assert back.mask.area == pytest.approx(40 * 20, rel=0.02)


def test_a_quarter_turn_is_a_plain_box():
    back = read(rectangle(50, 20, 20, 20, rotation=90))
    assert back.box == Box(80, 20, 100, 60)
    assert back.mask is None
    assert read(rectangle(50, 50, 20, 20, rotation=360)).box == Box(100, 50, 140, 70)


def test_what_lies_outside_the_image_is_cut_off_or_reported():
    assert read(rectangle(-10, -10, 20, 30)).box == Box(0, 0, 20, 20)
    assert read(rectangle(95, 90, 20, 30)).box == Box(190, 90, 200, 100)
    assert read(rectangle(60, 50, -20, 10)).box == Box(80, 50, 120, 60)
    gone = read(rectangle(120, 10, 10, 10))
    assert gone.box is None
    assert "outside the image" in gone.problem
    assert "no area" in read(rectangle(20, 10, 0, 10)).problem


def test_an_ellipse_is_its_pixels():
    value = {"x": 50, "y": 50, "radiusX": 20, "radiusY": 10, "rotation": 0, "ellipselabels": ["scratch"]}
    back = read(drawn("ellipselabels", value))
    assert back.kind == "ellipse"
    assert back.box.xyxy == pytest.approx((60, 40, 140, 60), abs=0.05)
    assert back.mask.area == pytest.approx(np.pi * 40 * 10, rel=0.01)
    upright = read(drawn("ellipselabels", {**value, "rotation": 90}))
    assert upright.box.xyxy == pytest.approx((90, 10, 110, 90), abs=0.05)


def test_what_has_no_area_is_reported_and_not_dropped():
    items = [
        drawn("keypointlabels", {"x": 50, "y": 50, "width": 0.5, "keypointlabels": ["scratch"]}),
        drawn("videorectangle", {"sequence": [], "labels": ["scratch"]}, id="video"),
        drawn("vectorlabels", {"vertices": [], "vectorlabels": ["scratch"]}, id="vector"),
        drawn("polygonlabels", {"points": [[1, 1], [5, 5]], "polygonlabels": ["scratch"]}, id="two points"),
        drawn("rectanglelabels", {"x": 5, "y": 5, "width": "wide", "height": 5}, id="damaged"),
        drawn("rectanglelabels", {"x": 5, "y": 5, "width": float("nan"), "height": 5}, id="not a number"),
        drawn("brushlabels", {"format": "rle", "rle": [1, 2, 3], "brushlabels": ["scratch"]}, id="broken"),
        drawn("brushlabels", {"format": "rle", "rle": encode_brush(Mask.encode(blank(100, 200)))}, id="empty"),
    ]
    found = from_regions(items, picture(200, 100))
    assert len(found) == len(items)
    assert all(region.problem for region in found)
    assert found[0].kind == "point"
    assert found[0].label == "scratch"
    assert found[0].attributes == {"point": "100,50"}


def test_answers_about_the_whole_image_are_no_regions():
    items = [
        {"id": "q", "from_name": "quality", "to_name": "image", "type": "choices", "value": {"choices": ["good"]}},
        {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"},
    ]
    assert from_regions(items, picture(200, 100)) == []
    assert from_regions([], picture(200, 100)) == []


def test_a_question_about_a_region_does_not_make_it_two():
    asked = {**rectangle(10, 10, 10, 10), "from_name": "severity", "type": "choices"}
    asked["value"] = {**asked["value"], "choices": ["deep"]}
    del asked["value"]["rectanglelabels"]
    (region,) = from_regions([rectangle(10, 10, 10, 10), asked], picture(200, 100))
    assert (region.kind, region.label) == ("box", "scratch")


@pytest.mark.parametrize(
    ("turn", "seen"),
    [(90, (50, 10, 30, 20)), (180, (70, 50, 20, 30)), (270, (20, 70, 30, 20))],
)
def test_regions_drawn_on_a_turned_view_lie_where_they_belong(turn, seen):
    # Upright: x 10–30 %, y 20–50 % of 200 × 100 px. The view turns clockwise.
    assert read(rectangle(*seen, image_rotation=turn)).box == Box(20, 20, 60, 50)


def test_a_mask_painted_on_a_smaller_copy_is_scaled():
    small = np.zeros((50, 100), np.bool_)
    small[10:20, 30:60] = True
    value = {"format": "rle", "rle": encode_brush(Mask.encode(small)), "brushlabels": ["scratch"]}
    item = drawn("brushlabels", value, original_width=100, original_height=50)
    assert np.array_equal(read(item).mask.decode(), small.repeat(2, axis=0).repeat(2, axis=1))
    assert "another image" in from_region(item, picture(100, 200)).problem


SPLIT = """
<View>
  <Header value="Mark the defects"/>
  <Image name="img" value="$photo"/>
  <Labels name="label" toName="img">
    <Label value="Scratch"/>
    <Label value="Oil" alias="Öl &amp; &quot;dent&quot; &lt;1&gt;"/>
  </Labels>
  <Rectangle name="rect" toName="img"/>
  <Polygon name="poly" toName="img"/>
  <Brush name="brush" toName="img"/>
</View>
"""


@pytest.mark.parametrize("shape", ["box", "polygon", "mask", "auto"])
def test_projects_with_one_tag_of_labels_work_as_well(shape):
    controls, problems = check_label_config(SPLIT, ONTOLOGY)
    assert problems == []
    assert (controls.to_name, controls.image_key) == ("img", "photo")
    one = annotation((4, 3, 50, 38), mask=PARTS)
    items = to_regions(one, picture(60, 40), draw(one, shape), controls)
    assert {item["from_name"] for item in items} >= {"label"}
    assert next(item["value"]["labels"] for item in items if item["type"] == "labels") == ["Scratch"]
    (back,) = from_regions(items, picture(60, 40), controls)
    assert (back.label, back.annotation_id, back.problem) == ("scratch", one.id, None)


def test_bitmask_projects_work_as_well():
    xml = label_config(ONTOLOGY, "mask").replace("BrushLabels", "BitmaskLabels")
    controls, problems = check_label_config(xml, ONTOLOGY, "mask")
    assert problems == []
    one = annotation(mask=ring(40, 15, 6))
    (back,) = there_and_back(one, "mask", picture(40, 40), controls)
    assert back.mask == one.mask
    value = {"imageDataURL": encode_bitmask(one.mask), "bitmasklabels": ["scratch"]}
    assert from_region(drawn("bitmasklabels", value), picture(40, 40)).mask == one.mask


@pytest.mark.parametrize("shape", ["box", "polygon", "mask", "auto"])
@pytest.mark.parametrize("config", [label_config(ONTOLOGY), SPLIT])
def test_the_sdk_accepts_what_is_sent(shape, config):
    interface = pytest.importorskip("label_studio_sdk.label_interface").LabelInterface(config)
    controls, _ = check_label_config(config, ONTOLOGY)
    result = []
    for place, name in enumerate(ONTOLOGY.names):
        one = annotation((4, 3, 60, 40), mask=PARTS if place else disc(40, 12), label=name, id=str(place))
        image = picture(60, 40) if place else picture(40, 40)
        result += to_regions(one, image, draw(one, shape), controls, {"noise": "label"})
    errors = interface.validate_prediction({"result": result, "score": 0.5, "model_version": "v"}, return_errors=True)
    assert errors == []
