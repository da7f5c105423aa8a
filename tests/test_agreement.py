"""How well people agreed with the models."""

from __future__ import annotations

import pytest

from autolabel.agreement import agreement, wilson_interval
from autolabel.types import Box, Correction, Review

BOX = Box(0, 0, 1, 1)


def decide(action, uid, before=None, label=None, path="a.png", **more) -> Correction:
    return Correction(
        action, path, "sha", uid, label, None if action == "deleted" else BOX, before_label=before, **more
    )


def test_nobody_did_anything():
    found = agreement(["scratch"], [], [])
    assert (found.complete, found.skipped, found.minutes, found.people) == (0, 0, 0, ())
    assert (found.classes[0].proposed, found.classes[0].acceptance, found.classes[0].interval) == (0, None, None)


def test_every_outcome_is_counted_under_the_class_the_models_gave():
    corrections = [
        decide("accepted", "1", "scratch", "scratch", iou=1.0, by="ann", seconds=60),
        decide("edited", "2", "scratch", "scratch", iou=0.6, by="ann", seconds=60),
        decide("edited", "3", "scratch", " Scratch", iou=0.8, by="ann", seconds=60),
        decide("edited", "4", "scratch", "dent", iou=0.5, by="ann", seconds=60),
        decide("deleted", "5", "dent", path="b.png", by="bob"),
        decide("added", "6", None, "dent", path="b.png", by="bob"),
        decide("added", "7", None, "burr", path="b.png", by="bob"),
        decide("accepted", "8", "dent", "dent", path="b.png", effective=False),
        decide("deleted", "9", path="b.png", by="bob"),
    ]
    reviews = [Review("complete", "a.png", "sha", "ann", seconds=60), Review("skipped", "c.png", "shc", "bob")]
    found = agreement(["scratch", "dent"], corrections, reviews)
    scratch, dent, burr = found.classes
    assert (scratch.accepted, scratch.reshaped, scratch.relabelled, scratch.deleted, scratch.missed) == (1, 2, 1, 0, 0)
    assert scratch.acceptance == 0.25
    assert scratch.edit_iou == pytest.approx(0.7)
    assert scratch.minutes == pytest.approx(1.0)
    assert (dent.deleted, dent.missed, dent.acceptance) == (1, 1, 0.0)
    assert (burr.label, burr.missed) == ("burr", 1)
    assert (found.complete, found.skipped, found.minutes) == (1, 1, 1.0)
    assert dict(found.people) == {"ann": 5, "bob": 4}
    assert found.to_json()["classes"][0]["proposed"] == 4


def test_the_interval_is_wilsons():
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-3)
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-3)
