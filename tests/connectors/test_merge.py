"""The rules of a sync, one image at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.types import Annotation, Box, Image, Mask
from autolabel_connectors.merge import Comparison, added_id, compare, corrections_of, plan, shape_digest
from autolabel_connectors.receipts import Receipt
from autolabel_connectors.shapes import Region

IMAGE = Image("sha", "a.png", 640, 480)
A, B, C = Box(10, 10, 60, 60), Box(100, 100, 180, 160), Box(300, 200, 420, 330)


def annotation(uid: str, box: Box = A, label: str = "scratch", score: float = 0.8, origin="model") -> Annotation:
    return Annotation(uid, "sha", box, 0, label, score, (score,), origin=origin)


def payload(item: Annotation) -> str:
    return f"{item.label} {item.box.xyxy} {item.score}"


def region(uid: str, box: Box | None = A, label: str | None = "scratch", **more) -> Region:
    return Region(uid, "box", label, box, **more)


def pushed(item: Annotation) -> tuple[Receipt, Region]:
    """What a push of an annotation leaves here and there."""
    there = region(f"r-{item.id}", item.box, item.label, annotation_id=item.id)
    receipt = Receipt(
        "a.png", "sha", item.id, "7", (there.remote_id,), shape_digest(there), payload(item), item.label, item.box,
        score=item.score,
    )  # fmt: skip
    return receipt, there


def records(comparison: Comparison, accepted: bool = True):
    return corrections_of(IMAGE, comparison, source="tool", task="7", accepted=accepted, by="ann", at="1")


def actions(comparison: Comparison, accepted: bool = True) -> list[tuple[str, str]]:
    return [(c.action, c.annotation_id) for c in records(comparison, accepted)]


def test_nothing_there_and_nothing_known():
    assert compare([], []) == Comparison()
    assert plan([], Comparison(), payload).empty
    assert records(Comparison()) == []


def test_the_same_push_twice_changes_nothing():
    ours = [annotation("x", A), annotation("y", B)]
    receipts, regions = zip(*map(pushed, ours), strict=True)
    comparison = compare(receipts, regions)
    assert not comparison.touched
    assert plan(ours, comparison, payload) == replace(plan([], Comparison(), payload), same=2)


def test_a_moved_region_is_an_edit_and_is_left_alone():
    receipt, there = pushed(annotation("x"))
    moved = replace(there, box=Box(20, 10, 70, 60))
    comparison = compare([receipt], [moved])
    (edit,) = records(comparison)
    assert (edit.action, edit.box, edit.before_box) == ("edited", moved.box, A)
    assert edit.iou == pytest.approx(40 / 60)
    assert plan([annotation("x", B)], comparison, payload).empty


def test_a_changed_label_is_an_edit_that_keeps_our_geometry():
    exact = Mask.encode(np.eye(480, 640, dtype=bool))
    receipt, there = pushed(annotation("x"))
    (edit,) = records(compare([replace(receipt, mask=exact)], [replace(there, label="dent")]))
    assert (edit.label, edit.before_label, edit.iou, edit.mask, edit.box) == ("dent", "scratch", 1.0, exact, A)


def test_the_spelling_of_a_label_is_no_edit():
    receipt, there = pushed(annotation("x"))
    assert not compare([receipt], [replace(there, label="Scratch ")]).touched


def test_a_region_without_its_label_keeps_ours():
    receipt, there = pushed(annotation("x"))
    (edit,) = records(compare([receipt], [replace(there, label=None, box=B)]))
    assert (edit.action, edit.label) == ("edited", "scratch")


def test_a_deleted_region_stays_deleted_also_when_the_model_finds_it_again():
    receipt, _ = pushed(annotation("x"))
    comparison = compare([receipt], [])
    assert actions(comparison, accepted=False) == [("deleted", "x")]
    again = [annotation("x"), annotation("x2", Box(12, 10, 62, 60)), annotation("far", C)]
    assert [a.id for a in plan(again, comparison, payload).create] == ["far"]


def test_a_persons_region_keeps_the_models_away_but_not_another_persons():
    comparison = compare([], [region("new", A)])
    assert actions(comparison) == [("added", added_id("tool", "7", "new"))]
    assert plan([annotation("x", A)], comparison, payload).empty
    human = annotation("y", A, origin="human")
    assert plan([human], comparison, payload).create == (human,)
    own = annotation(added_id("tool", "7", "new"), A, origin="human")
    assert plan([own], comparison, payload, own_ids=[own.id]).empty


def test_a_region_drawn_anew_over_ours_is_an_edit():
    receipt, _ = pushed(annotation("x"))
    drawn = region("hand", Box(12, 10, 60, 62))
    assert actions(compare([receipt], [drawn])) == [("edited", "x")]
    assert actions(compare([receipt], [replace(drawn, box=C)])) == [
        ("deleted", "x"),
        ("added", added_id("tool", "7", "hand")),
    ]


def test_new_ids_after_an_import_are_recognised():
    receipt, there = pushed(annotation("x"))
    assert not compare([receipt], [replace(there, remote_id="99")]).touched


def test_a_copy_of_our_region_is_the_persons():
    receipt, there = pushed(annotation("x"))
    copy = replace(there, remote_id="copy", box=C)
    comparison = compare([receipt], [copy, there])
    assert [r.annotation_id for r, _ in comparison.untouched] == ["x"]
    assert comparison.added == (copy,)


def test_parts_of_one_annotation_are_found_by_any_of_them():
    receipt, there = pushed(annotation("x"))
    receipt = replace(receipt, remote_ids=("1", "2"))
    assert not compare([receipt], [replace(there, remote_id="2", annotation_id=None, part_ids=("2",))]).touched


def test_a_region_made_into_nothing_is_deleted():
    receipt, there = pushed(annotation("x"))
    comparison = compare([receipt], [replace(there, box=None, problem="no area")])
    assert actions(comparison) == [("deleted", "x")]
    unknown = region("p", None, "scratch", problem="a keypoint has no area")
    assert records(compare([], [unknown])) == []


def test_accepted_only_when_a_person_is_done():
    receipt, there = pushed(annotation("x"))
    comparison = compare([receipt], [there])
    assert actions(comparison, accepted=False) == []
    assert actions(comparison) == [("accepted", "x")]


def test_a_changed_run_updates_creates_and_deletes_what_nobody_touched():
    ours = [annotation("x", A), annotation("y", B)]
    receipts, regions = zip(*map(pushed, ours), strict=True)
    comparison = compare(receipts, regions)
    now = [annotation("x", A, score=0.9), annotation("z", C)]
    found = plan(now, comparison, payload)
    assert [a.id for a, _, _ in found.update] == ["x"]
    assert [r.annotation_id for r, _ in found.delete] == ["y"]
    assert [a.id for a in found.create] == ["z"]
    assert plan(now, comparison, payload, closed=True) == replace(plan([], Comparison(), payload), kept=2)


boxes = st.tuples(*[st.integers(0, 8)] * 2, *[st.integers(1, 4)] * 2).map(
    lambda v: Box(v[0] * 40.0, v[1] * 40.0, (v[0] + v[2]) * 40.0, (v[1] + v[3]) * 40.0)
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_sync_ever_changes_what_a_person_did(data):
    """Random pushes and edits in turn: a person's regions outlive every plan, and a second push has nothing to do."""
    remote: dict[str, Region] = {}
    receipts: dict[str, Receipt] = {}
    serial = 0
    for _ in range(data.draw(st.integers(1, 3))):
        ours = [annotation(f"m{i}", box) for i, box in enumerate(data.draw(st.lists(boxes, max_size=4)))]
        ours = [a for a in ours if a.id not in receipts or receipts[a.id].box == a.box]
        for repeat in range(2):
            comparison = compare(list(receipts.values()), list(remote.values()))
            hands_off = {r.remote_id: r for _, r in comparison.edited} | {r.remote_id: r for r in comparison.added}
            gone = {r.annotation_id for r in comparison.deleted}
            found = plan(ours, comparison, payload)
            assert repeat == 0 or found.empty
            for item in found.create:
                assert item.id not in gone
                receipts[item.id], there = pushed(item)
                assert there.remote_id not in remote
                remote[there.remote_id] = there
            for item, receipt, there in found.update:
                assert there.remote_id not in hands_off
                receipts[item.id] = replace(pushed(item)[0], remote_ids=receipt.remote_ids)
                remote[there.remote_id] = replace(there, box=item.box, label=item.label)
            for receipt, there in found.delete:
                assert there.remote_id not in hands_off
                del remote[there.remote_id], receipts[receipt.annotation_id]
            assert all(remote[uid] == kept for uid, kept in hands_off.items())
        for uid in list(remote):
            match data.draw(st.sampled_from(["keep", "move", "delete", "label"])):
                case "move":
                    remote[uid] = replace(remote[uid], box=data.draw(boxes))
                case "delete":
                    del remote[uid]
                case "label":
                    remote[uid] = replace(remote[uid], label="dent")
        if data.draw(st.booleans()):
            serial += 1
            remote[f"h{serial}"] = region(f"h{serial}", data.draw(boxes))
