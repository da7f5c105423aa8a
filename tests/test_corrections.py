"""People's decisions: stored, indexed and laid over what the models said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autolabel.corrections import apply, labels_of, overlap_iou, read_decisions, standing, write_decisions
from autolabel.errors import StoreError
from autolabel.ontology import LabelClass, Ontology
from autolabel.types import AnnotatedImage, Annotation, Box, Correction, Image, Mask, Review

ONTOLOGY = Ontology((LabelClass("scratch"), LabelClass("dent")))
IMAGE = Image("sha", "a.png", 64, 48)
HERE, THERE = Box(4, 4, 20, 20), Box(40, 30, 60, 44)


def mask(box: Box) -> Mask:
    pixels = np.zeros((48, 64), bool)
    pixels[int(box.y_min) : int(box.y_max), int(box.x_min) : int(box.x_max)] = True
    return Mask.encode(pixels)


def model(uid: str, box: Box, label: int = 0) -> Annotation:
    name = ONTOLOGY.classes[label].name
    return Annotation(uid, "sha", box, label, name, 0.8, (0.8, 0.1), (0.3, 0.7), mask(box), 0.9)


def decide(action, uid: str, box: Box | None = None, label: str | None = None, at: str = "1", **more) -> Correction:
    return Correction(action, "a.png", "sha", uid, label, box, at=at, source="tool", **more)


def laid(annotations, decisions) -> list[Annotation]:
    found = standing(decisions).get(("a.png", "sha"))
    return list(apply(AnnotatedImage(IMAGE, tuple(annotations)), found, labels_of(ONTOLOGY, decisions)).annotations)


def test_without_decisions_nothing_changes():
    assert laid([], []) == []
    assert laid([model("x", HERE)], []) == [model("x", HERE)]


def test_round_trip_keeps_every_field(tmp_path):
    decisions = [
        decide("edited", "x", HERE, "dent", mask=mask(HERE), before_label="scratch", before_box=THERE, iou=0.25),
        decide("deleted", "y", before_box=HERE, before_mask=mask(HERE), before_score=0.5, by="ann", effective=False),
        Review("complete", "a.png", "sha", by="ann", at="2", source="tool", seconds=12.5),
    ]
    write_decisions(tmp_path, "tool", decisions)
    assert read_decisions(tmp_path) == decisions
    write_decisions(tmp_path, "Other Tool/1", [])
    assert read_decisions(tmp_path, "tool") == decisions
    write_decisions(tmp_path, "tool", decisions[:1])
    assert read_decisions(tmp_path) == decisions[:1]
    with pytest.raises(StoreError, match="name of letters"):
        write_decisions(tmp_path, "//", [])


def test_a_region_is_as_decided_and_keeps_the_models_opinions():
    edited = laid([model("x", HERE)], [decide("edited", "x", THERE, "dent")])
    assert [(a.box, a.label, a.label_id, a.origin, a.mask, a.mask_score) for a in edited] == [
        (THERE, "dent", 1, "human", None, None)
    ]
    assert edited[0].class_probs == (0.3, 0.7)
    accepted = laid([model("x", HERE)], [decide("accepted", "x", HERE, "scratch", mask=mask(HERE))])
    assert accepted == [replace(model("x", HERE), origin="human")]


def test_thresholds_take_nothing_from_a_person():
    assert [a.id for a in laid([], [decide("accepted", "x", HERE, "scratch")])] == ["x"]
    assert laid([], [decide("deleted", "x", before_box=HERE)]) == []


def test_deleted_stays_deleted_also_under_another_id():
    gone = decide("deleted", "x", before_box=HERE)
    shifted = Box(5, 4, 21, 20)
    assert laid([model("x", HERE), model("x2", shifted), model("y", THERE)], [gone]) == [model("y", THERE)]


def test_a_models_box_gives_way_to_a_persons_region():
    added = decide("added", "new", HERE, "dent")
    assert [(a.id, a.origin) for a in laid([model("x", HERE), model("y", THERE)], [added])] == [
        ("new", "human"),
        ("y", "model"),
    ]


def test_a_complete_image_holds_what_people_left_and_nothing_else():
    decisions = [decide("accepted", "x", HERE, "scratch"), Review("complete", "a.png", "sha", at="2")]
    assert [a.id for a in laid([model("x", HERE), model("y", THERE)], decisions)] == ["x"]
    skipped = [Review("skipped", "a.png", "sha", at="2")]
    assert [a.id for a in laid([model("x", HERE)], skipped)] == ["x"]


def test_the_newest_decision_stands_and_only_effective_ones_count():
    first, second = decide("edited", "x", HERE, "dent", at="1"), decide("deleted", "x", before_box=HERE, at="2")
    assert laid([model("x", HERE)], [second, first]) == []
    other = replace(second, effective=False)
    assert [a.label for a in laid([model("x", HERE)], [first, other])] == ["dent"]


def test_decisions_on_other_content_of_the_file_are_not_applied():
    old = replace(decide("deleted", "x"), image_id="older")
    assert laid([model("x", HERE)], [old]) == [model("x", HERE)]


def test_a_class_that_only_people_used_comes_after_the_ontology():
    decisions = [decide("added", "n", HERE, "Burr"), decide("added", "m", THERE, " Dent ")]
    assert labels_of(ONTOLOGY, decisions).names == ("scratch", "dent", "Burr")
    assert [(a.label, a.label_id) for a in laid([], decisions)] == [("Burr", 2), ("dent", 1)]


def test_overlap_by_masks_else_by_boxes():
    half = Box(4, 4, 12, 20)
    assert overlap_iou((HERE, None), (half, None)) == 0.5
    assert overlap_iou((HERE, mask(HERE)), (HERE, mask(half))) == 0.5
    assert overlap_iou((HERE, mask(HERE)), (half, None)) == 0.5
    assert overlap_iou((HERE, None), (THERE, None)) == 0.0
    assert overlap_iou((Box(1, 1, 1, 1), None), (Box(1, 1, 1, 1), None)) == 1.0
