"""What a reviewer's tags and edits mean, on plain values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autolabel.ontology import LabelClass, Ontology
from autolabel.types import AnnotatedImage, Annotation, Box, Correction, Image, LabelIssue, Mask
from autolabel_connectors.fiftyone.decisions import Context, decide
from autolabel_connectors.fiftyone.documents import Subject, pack, sample_fields
from autolabel_connectors.fiftyone.verdicts import is_sample_verb, is_verb, read_sample

pytest.importorskip("bson")  # comes with FiftyOne

ONTOLOGY = Ontology((LabelClass("scratch"), LabelClass("dent", ("dent", "ding"))), (LabelClass("glare"),))
IMAGE = Image("sha", "a.png", 64, 48)
HERE, THERE, MISSED = Box(4.25, 4, 20, 20.5), Box(40, 30, 60, 44), Box(2, 30, 12, 40)


def mask(box: Box) -> Mask:
    pixels = np.zeros((48, 64), bool)
    pixels[int(box.y_min) : int(box.y_max), int(box.x_min) : int(box.x_max)] = True
    return Mask.encode(pixels)


def annotation(uid: str, box: Box, label: int = 0, origin="model") -> Annotation:
    name = ONTOLOGY.names[label]
    return Annotation(uid, "sha", box, label, name, 0.8, (0.8, 0.1, 0.1), (0.3, 0.6, 0.1), mask(box), 0.9, origin)


SCRATCH, DENT = annotation("x", HERE), annotation("y", THERE, 1)
OVERLOOKED = LabelIssue("overlooked", "a.png", "sha", 0.1, True, "seen by another", None, "dent", MISSED)
PLACE = LabelIssue("location", "a.png", "sha", 0.1, True, "too small", "x", None, Box(4, 4, 24, 22))


class Shown:
    """A sample as a refresh leaves it, for a reviewer to change."""

    def __init__(self, *annotations: Annotation, issues=(), standing=None) -> None:
        self.annotations = annotations or (SCRATCH, DENT)
        self.standing = standing or {}
        subject = Subject(AnnotatedImage(IMAGE, self.annotations), "/a.png", tuple(issues))
        self.document = {"_id": "s", "tags": [], **sample_fields(subject, ONTOLOGY)}

    def regions(self, place: str = "annotations") -> list[dict]:
        return self.document[place]["detections"]

    def tag(self, number: int, *tags: str, place: str = "annotations") -> Shown:
        self.regions(place)[number]["tags"] = list(tags)
        return self

    def tag_image(self, *tags: str) -> Shown:
        self.document["tags"] = list(tags)
        return self

    def decided(self, run=None, predicted=None):
        run = self.annotations if run is None else run
        predicted = [a for a in self.annotations if a.origin == "model"] if predicted is None else predicted
        context = Context(
            IMAGE,
            {a.id: a for a in run},
            {a.id: a for a in predicted},
            self.standing,
            ONTOLOGY.classes,
            ONTOLOGY.negatives,
            "fiftyone t",
            "ann",
            "2026-01-01T00:00:00.000000+00:00",
        )
        return decide(read_sample(self.document), context)


def only(outcome) -> Correction:
    (correction,) = outcome.corrections
    assert (correction.path, correction.image_id, correction.by) == ("a.png", "sha", "ann")
    assert correction.at == "2026-01-01T00:00:00.000000+00:00"
    return correction


def test_nothing_done_is_nothing_decided():
    for shown in (Shown(), Shown(issues=[OVERLOOKED, PLACE]), Shown().tag(0, "ask bob").tag_image("mine")):
        assert not read_sample(shown.document).pending
        assert shown.decided().corrections == ()


def test_accept_keeps_the_runs_own_geometry():
    correction = only(Shown().tag(0, "Accept", "mine").decided())
    assert (correction.action, correction.annotation_id, correction.label) == ("accepted", "x", "scratch")
    assert (correction.box, correction.mask, correction.iou) == (HERE, SCRATCH.mask, 1.0)
    assert (correction.before_label, correction.before_box, correction.before_score) == ("scratch", HERE, 0.8)


def test_reject_deletes_and_remembers_what_was_there():
    correction = only(Shown().tag(1, "reject").decided())
    assert (correction.action, correction.annotation_id, correction.label, correction.box) == (
        "deleted",
        "y",
        None,
        None,
    )
    assert (correction.before_label, correction.before_box, correction.before_mask) == ("dent", THERE, DENT.mask)


@pytest.mark.parametrize(
    ("tag", "label", "notes"),
    [
        ("relabel:dent", "dent", 0),
        ("Relabel: DENT ", "dent", 0),
        ("relabel:ding", "dent", 0),
        ("relabel:burr  edge", "burr edge", 1),
    ],
)
def test_relabel_by_name_phrase_or_a_new_class(tag, label, notes):
    outcome = Shown().tag(0, tag).decided()
    correction = only(outcome)
    assert (correction.action, correction.label, correction.before_label) == ("edited", label, "scratch")
    assert (correction.box, correction.mask, correction.iou) == (HERE, SCRATCH.mask, 1.0)
    assert len(outcome.notes) == notes
    assert all("new class" in note for note in outcome.notes)


def test_relabel_as_what_it_is_accepts_and_as_a_negative_deletes():
    assert only(Shown().tag(0, "relabel:scratch").decided()).action == "accepted"
    outcome = Shown().tag(0, "relabel:glare").decided()
    assert only(outcome).action == "deleted"
    assert "to drop" in outcome.notes[0]


@pytest.mark.parametrize(
    "tags", [("accept", "reject"), ("relabel:dent", "relabel:scratch"), ("relabel:",), ("undo", "accept")]
)
def test_tags_that_contradict_each_other_decide_nothing_and_stay(tags):
    shown = Shown().tag(0, *tags).tag_image("reviewed")
    outcome = shown.decided()
    assert outcome.corrections == ()
    assert outcome.review is None
    assert outcome.held == {str(shown.regions()[0]["_id"])}
    assert len(outcome.notes) == 2


def test_an_edited_class_and_a_moved_box_come_back():
    shown = Shown()
    shown.regions()[1]["label"] = "scratch"
    shown.regions()[0]["bounding_box"][0] += 2 / 64
    relabelled, moved = sorted(shown.decided().corrections, key=lambda c: c.annotation_id, reverse=True)
    assert (relabelled.action, relabelled.label, relabelled.box, relabelled.mask) == (
        "edited",
        "scratch",
        THERE,
        DENT.mask,
    )
    assert (moved.action, moved.label) == ("edited", "scratch")
    assert moved.box.xyxy == pytest.approx((6.25, 4, 22, 20.5))
    columns = np.flatnonzero(moved.mask.decode().any(axis=0))
    assert (columns.min(), columns.max()) == (6, 21)
    assert 0.5 < moved.iou < 1


def test_arithmetic_and_packing_are_no_edits():
    shown = Shown()
    region = shown.regions()[0]
    region["bounding_box"] = [value + 1e-9 for value in region["bounding_box"]]
    from autolabel_connectors.fiftyone.documents import unpack

    region["mask"] = pack(unpack(region["mask"]).astype(np.uint8) * 255)
    region["label"] = None
    assert not read_sample(shown.document).pending


def test_an_edited_mask_comes_back():
    shown = Shown()
    pixels = np.zeros((14, 20), bool)
    pixels[:7] = True
    shown.regions()[1]["mask"] = pack(pixels)
    correction = only(shown.decided())
    assert (correction.action, correction.iou) == ("edited", 0.5)
    assert correction.mask.area == 140
    del shown.regions()[1]["mask"]
    assert only(shown.decided()).mask is None


def test_deleted_in_the_app_is_deleted():
    shown = Shown()
    del shown.regions()[0]
    assert (only(shown.decided()).action, only(shown.decided()).annotation_id) == ("deleted", "x")


def test_drawn_in_the_app_is_added_with_an_id_of_its_own():
    shown = Shown()
    drawn = {"_id": "f" * 24, "label": "dent", "bounding_box": [0.5, 0.0, 0.25, 0.25]}
    shown.regions().append(drawn)
    correction = only(shown.decided())
    assert (correction.action, correction.label, correction.box) == ("added", "dent", Box(32, 0, 48, 12))
    assert (correction.before_box, correction.mask) == (None, None)
    assert correction.annotation_id == only(shown.decided()).annotation_id != "f" * 24
    drawn["label"] = None
    outcome = shown.decided()
    assert outcome.corrections == ()
    assert outcome.held == {"f" * 24}
    assert "no class" in outcome.notes[0]
    drawn["tags"] = ["relabel:scratch"]
    assert only(shown.decided()).label == "scratch"
    drawn |= {"tags": [], "label": "dent", "bounding_box": [1.5, 0, 0.1, 0.1]}
    assert "inside the image" in shown.decided().notes[0]


def test_a_copy_of_a_region_is_added_and_the_original_stays():
    shown = Shown()
    copy = {**shown.regions()[0], "_id": "e" * 24, "bounding_box": [0.5, 0.5, 0.2, 0.2]}
    shown.regions().append(copy)
    assert only(shown.decided()).action == "added"


def test_a_region_with_a_new_database_id_is_known_by_its_annotation():
    shown = Shown()
    shown.regions()[0]["_id"] = "d" * 24
    assert not read_sample(shown.document).pending


def test_reviewed_accepts_what_nobody_touched():
    outcome = Shown().tag(0, "reject").tag_image("Reviewed").decided()
    assert {(c.annotation_id, c.action) for c in outcome.corrections} == {("x", "deleted"), ("y", "accepted")}
    assert outcome.review.state == "complete"
    assert (outcome.review.path, outcome.review.by) == ("a.png", "ann")


def test_reviewed_leaves_alone_what_others_decided_meanwhile():
    theirs = Correction("deleted", "a.png", "sha", "y", before_box=THERE, at="2025")
    outcome = Shown(standing={"y": theirs}).tag_image("reviewed").decided(run=[SCRATCH])
    assert {(c.annotation_id, c.action) for c in outcome.corrections} == {("x", "accepted")}


def test_skip_and_undo_of_an_image():
    outcome = Shown().tag_image("skip").decided()
    assert (outcome.review.state, outcome.corrections) == ("skipped", ())
    assert read_sample(Shown().tag_image("undo").document).undo
    assert "leave one" in Shown().tag_image("skip", "reviewed").decided().notes[0]


def test_undo_of_a_region_withdraws_its_decision():
    human = annotation("x", HERE, origin="human")
    assert Shown(human).tag(0, "undo").decided().withdrawn == {"x"}


def test_accepting_an_earlier_edit_stays_an_edit():
    human = annotation("x", THERE, 1, origin="human")
    correction = only(Shown(human).tag(0, "accept").decided(predicted=[SCRATCH]))
    assert (correction.action, correction.label, correction.before_label) == ("edited", "dent", "scratch")
    gone = Correction("edited", "a.png", "sha", "x", "dent", THERE, before_label="scratch", before_box=HERE)
    correction = only(Shown(human, standing={"x": gone}).tag(0, "accept").decided(predicted=[]))
    assert (correction.action, correction.before_box) == ("edited", HERE)


@pytest.mark.parametrize("now", [[annotation("x", Box(5, 5, 30, 30))], [annotation("x", THERE, 1)], []])
def test_what_the_reviewer_saw_counts_where_the_run_moved_on(now):
    """Other boxes, another class, or a threshold that drops it: resolved anew between opening and applying."""
    correction = only(Shown(SCRATCH).tag(0, "accept").decided(run=now, predicted=now))
    assert (correction.action, correction.label, correction.before_label) == ("accepted", "scratch", "scratch")
    assert correction.box.xyxy == pytest.approx(HERE.xyxy)
    assert (correction.before_box, correction.before_mask) == (correction.box, correction.mask)
    assert (correction.before_score, correction.iou) == (0.8, 1.0)
    reviewed = only(Shown(SCRATCH).tag_image("reviewed").decided(run=now, predicted=now))
    assert reviewed == correction
    relabelled = only(Shown(SCRATCH).tag(0, "relabel:dent").decided(run=now, predicted=now))
    assert (relabelled.action, relabelled.label, relabelled.before_label) == ("edited", "dent", "scratch")
    assert relabelled.before_box == relabelled.box


def test_a_mask_that_did_not_change_stays_the_runs_own():
    """A detector's box cuts the mask it was made from; the app holds what is inside."""
    cut, whole = replace(SCRATCH, box=Box(4, 4, 12, 12)), replace(SCRATCH, box=HERE)
    correction = only(Shown(cut).tag(0, "accept").decided(run=[whole], predicted=[whole]))
    assert (correction.action, correction.mask) == ("accepted", SCRATCH.mask)


def test_an_edit_is_one_where_the_run_moved_on_as_well():
    moved = annotation("x", Box(5, 5, 30, 30))
    shown = Shown(SCRATCH)
    shown.regions()[0]["bounding_box"][0] += 2 / 64
    assert only(shown.decided(run=[moved], predicted=[moved])).action == "edited"


def test_an_overlooked_doubt_is_taken_refused_or_changed():
    accepted = only(Shown(issues=[OVERLOOKED]).tag(0, "accept", place="doubts").decided())
    assert (accepted.action, accepted.label, accepted.box.xyxy) == ("added", "dent", pytest.approx(MISSED.xyxy))
    relabelled = only(Shown(issues=[OVERLOOKED]).tag(0, "relabel:scratch", place="doubts").decided())
    assert (relabelled.label, relabelled.annotation_id) == ("scratch", accepted.annotation_id)
    refused = only(Shown(issues=[OVERLOOKED]).tag(0, "reject", place="doubts").decided())
    assert (refused.action, refused.annotation_id, refused.before_label) == ("deleted", accepted.annotation_id, None)
    assert refused.before_box.xyxy == pytest.approx(MISSED.xyxy)
    nameless = LabelIssue("overlooked", "a.png", "sha", 0.1, True, "?", None, None, MISSED)
    assert "relabel:CLASS" in Shown(issues=[nameless]).tag(0, "accept", place="doubts").decided().notes[0]


def test_a_better_place_is_taken_or_refused():
    taken = only(Shown(issues=[PLACE]).tag(0, "accept", place="doubts").decided())
    assert (taken.action, taken.annotation_id, taken.box.xyxy) == ("edited", "x", pytest.approx((4, 4, 24, 22)))
    assert taken.mask == SCRATCH.mask
    refused = only(Shown(issues=[PLACE]).tag(0, "reject", place="doubts").decided())
    assert (refused.action, refused.annotation_id, refused.box) == ("accepted", "x", HERE)


def test_verbs_are_told_from_a_reviewers_own_tags():
    assert [tag for tag in ("accept", " REJECT", "relabel:x", "undo", "accepted?", "mine") if is_verb(tag)] == [
        "accept",
        " REJECT",
        "relabel:x",
        "undo",
    ]
    assert [tag for tag in ("reviewed", "Skip", "accept") if is_sample_verb(tag)] == ["reviewed", "Skip"]
