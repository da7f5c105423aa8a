"""Pulling what people did on a CVAT that answers as the recorded one does."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import autolabel
from autolabel.errors import UsageError
from tests.cvat.sync import Bench, expected_ids


def of(run: autolabel.Run, path: str) -> tuple[autolabel.types.Annotation, ...]:
    return tuple(
        a for item in autolabel.Run.open(run.path).predicted() if item.image.path == path for a in item.annotations
    )


@pytest.mark.parametrize("shape", ["auto", "box", "mask", "polygon"])
def test_what_a_person_accepted_keeps_the_runs_own_geometry(bench: Bench, make_run, shape):
    run = make_run(4)
    bench.push(run, shape=shape)
    assert bench.pull(run).counts == {}
    user = bench.server.add_user("mary")
    with bench.server.human.working_as(user["id"]):
        bench.server.human.complete(bench.tasks[0])
    report = bench.pull(run)
    assert report.counts == {"accepted": len(expected_ids(list(run))), "images complete": 4}
    assert report.warnings == ()
    found = {c.annotation_id: c for c in autolabel.Run.open(run.path).corrections()}
    for item in run.predicted():
        for annotation in item.annotations:
            accepted = found[annotation.id]
            assert (accepted.action, accepted.label, accepted.iou) == ("accepted", annotation.label, 1.0)
            assert (accepted.box, accepted.mask) == (annotation.box, annotation.mask)
            assert (accepted.by, accepted.seconds, accepted.source) == ("mary", None, bench.target.source)
            assert accepted.at.endswith("+00:00")
    assert {(r.state, r.by) for r in autolabel.Run.open(run.path).reviews()} == {("complete", "mary")}
    before = autolabel.Run.open(run.path).corrections()
    bench.pull(run)
    assert autolabel.Run.open(run.path).corrections() == before
    assert bench.writes(lambda: bench.push(run, shape=shape)) == 0


def test_moved_renamed_deleted_and_drawn_regions_are_understood(bench: Bench, make_run):
    run = make_run(8)
    bench.push(run, shape="box")
    human = bench.server.human
    first, second = bench.shapes("001.png")
    human.move(first["id"], 1, 0)
    human.delete(second["id"])
    (third,) = bench.shapes("002.png")
    human.relabel(third["id"], "dent")
    task, frame = bench.place("000.png")
    human.add(task, frame, "dent", (40, 30, 50, 42))
    bitmap = np.zeros((48, 64), bool)
    bitmap[5:9, 7:30] = True
    task, frame = bench.place("004.png")
    human.add(task, frame, "scratch", bitmap)
    found = bench.pulled(run)
    assert {c.action: c.annotation_id for c in found["001.png"]} == {
        "edited": bench.attributes(first)["annotation_id"],
        "deleted": bench.attributes(second)["annotation_id"],
    }
    (edited,) = (c for c in found["001.png"] if c.action == "edited")
    before = next(a for a in of(run, "001.png") if a.id == edited.annotation_id)
    assert edited.box.x_min == pytest.approx(before.box.x_min + 1)
    assert edited.before_box == before.box
    assert edited.iou == pytest.approx((before.box.width - 1) / (before.box.width + 1), abs=0.01)
    (renamed,) = found["002.png"]
    assert (renamed.action, renamed.before_label, renamed.label, renamed.iou) == ("edited", "scratch", "dent", 1.0)
    (drawn,) = found["000.png"]
    assert (drawn.action, drawn.label, drawn.box.xyxy) == ("added", "dent", (40, 30, 50, 42))
    (painted,) = found["004.png"]
    assert painted.mask.decode().tolist() == bitmap.tolist()
    assert autolabel.Run.open(run.path).reviews() == []
    assert bench.writes(lambda: bench.push(run, shape="box")) == 0
    effective = autolabel.Run.open(run.path)
    assert [a.label for a in effective["002.png"].annotations] == ["dent"]
    assert len(effective["000.png"].annotations) == 2


def test_a_region_that_a_person_drew_and_deleted_again_does_not_come_back(bench: Bench, make_run):
    run = make_run(2)
    bench.push(run)
    task, frame = bench.place("000.png")
    drawn = bench.server.human.add(task, frame, "dent", (40, 30, 50, 42))
    bench.pull(run)
    bench.server.human.delete(drawn)
    assert bench.writes(lambda: bench.push(run)) == 0
    bench.pull(run)
    assert autolabel.Run.open(run.path).corrections() == []


def test_deleted_frames_are_skipped(bench: Bench, make_run):
    run = make_run(3)
    bench.push(run)
    bench.server.human.delete_frame(*bench.place("001.png"))
    report = bench.pull(run)
    assert report.counts == {"images skipped": 1}
    (review,) = autolabel.Run.open(run.path).reviews()
    assert (review.state, review.path) == ("skipped", "001.png")
    assert bench.push(make_run(3, thresholds={"min_score": 0.9})).counts["delete region"] == 2


def test_what_cannot_be_taken_over_is_told(bench: Bench, make_run):
    run = make_run(2)
    bench.push(run)
    task, frame = bench.place("000.png")
    bench.server.human.tag(task, frame, "dent")
    bench.server.human.add(task, frame, "dent", (1, 2, 3, 4), type="points")
    report = bench.pull(run)
    assert any("tags or tracks" in warning for warning in report.warnings)
    assert any("points have no area" in warning for warning in report.warnings)
    assert autolabel.Run.open(run.path).corrections() == []


def test_decisions_outlive_their_task_and_project(bench: Bench, make_run):
    run = make_run(3)
    bench.push(run)
    bench.server.human.move(bench.shapes("000.png")[0]["id"], 2, 0)
    bench.server.human.complete(bench.tasks[0])
    bench.pull(run)
    before = autolabel.Run.open(run.path).corrections()
    bench.server.human.delete_task(bench.tasks[0])
    assert bench.pull(run).counts["kept of tasks that are gone"] == len(before) + 3
    assert autolabel.Run.open(run.path).corrections() == before
    bench.server.human.delete_project(1)
    with pytest.raises(UsageError, match="no project 'defects'"):
        bench.pull(run)
    bench.push(run)
    bench.pull(run)
    assert autolabel.Run.open(run.path).corrections() == before


def test_a_dry_pull_writes_nothing(bench: Bench, make_run):
    run = make_run(2)
    bench.push(run)
    bench.server.human.delete(bench.shapes("000.png")[0]["id"])
    assert bench.writes(lambda: bench.pull(run)) == 0
    shutil.rmtree(run.path / "corrections")
    assert bench.pull(run, dry_run=True).counts == {"deleted": 1}
    assert not (run.path / "corrections").exists()


def test_edits_are_understood_without_receipts(bench: Bench, make_run):
    run = make_run(4)
    bench.push(run)
    bench.server.human.move(bench.shapes("000.png")[0]["id"], 2, 0)
    bench.server.human.complete(bench.tasks[0])
    shutil.rmtree(run.path / "sync")
    counts = bench.pull(run).counts
    assert (counts["edited"], counts["accepted"]) == (1, len(expected_ids(list(run.predicted()))) - 1)


def test_an_edit_through_the_api_that_drops_all_attributes_is_still_ours(bench: Bench, make_run):
    run = make_run(2)
    bench.push(run, shape="box")
    shape = bench.shapes("000.png")[0]
    bench.server.human.change(shape["id"], points=[5.0, 5.0, 20.0, 20.0], attributes=[], source="auto")
    (edited,) = bench.pulled(run)["000.png"]
    assert (edited.action, edited.box.xyxy) == ("edited", (5, 5, 20, 20))
    assert bench.writes(lambda: bench.push(run, shape="box")) == 0


def test_people_edit_at_random_and_no_push_overwrites_them(bench: Bench, make_run):
    rng = np.random.default_rng(7)
    human = bench.server.human
    run = make_run(8)
    bench.push(run, shape="auto")
    theirs: dict[int, object] = {}
    gone: set[int] = set()
    refused: set[str | None] = set()
    for number in range(12):
        for _ in range(3):
            path = f"{rng.integers(8):03d}.png"
            task, frame = bench.place(path)
            shapes = bench.shapes(path)
            deed = rng.choice(["add", "move", "relabel", "delete", "mark"])
            if deed == "add" or not shapes:
                x, y = int(rng.integers(50)), int(rng.integers(30))
                new = human.add(task, frame, str(rng.choice(["scratch", "dent"])), (x, y, x + 9, y + 8))
                theirs[new] = human.shape(new)
                continue
            picked = int(rng.choice([s["id"] for s in shapes]))
            if deed == "delete":
                refused.add(bench.attributes(human.shape(picked)).get("annotation_id"))
                human.delete(picked)
                theirs.pop(picked, None)
                gone.add(picked)
                continue
            if deed == "move":
                human.move(picked, 1, 1)
            elif deed == "relabel":
                human.relabel(picked, str(rng.choice(["scratch", "dent"])))
            else:
                human.change(picked, occluded=True)
            theirs[picked] = human.shape(picked)
        if number % 3 == 1:
            bench.pull(run)
        shape = str(rng.choice(["auto", "box", "mask"]))
        bench.push(make_run(8, thresholds={"min_score": float(rng.choice([0.25, 0.43, 0.45, 0.9]))}), shape=shape)
        held = {s["id"]: s for t in bench.tasks for s in human.shapes(t)}
        assert not gone & held.keys()
        for uid, shape_held in theirs.items():
            assert held[uid] == shape_held
        owners = [bench.attributes(s)["annotation_id"] for s in held.values() if s["source"] == "auto"]
        assert len(owners) == len(set(owners))
        assert not (refused - {"none", None}) & set(owners)
