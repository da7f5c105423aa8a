"""Pulling what people did on a real server."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import autolabel
from autolabel.errors import UsageError
from autolabel.types import Correction, Review
from autolabel_connectors.label_studio.brush import encode_brush
from autolabel_connectors.receipts import FOLDER
from tests.label_studio.server import ADMIN, LabelStudioServer
from tests.label_studio.sync import Bench


@pytest.fixture
def bench(label_studio: LabelStudioServer) -> Bench:
    return Bench.of(label_studio)


def pulled(bench: Bench, run: autolabel.Run) -> dict[str, list[Correction]]:
    """Pull, and return the effective corrections by path."""
    bench.pull(run)
    found: dict[str, list[Correction]] = {}
    for correction in autolabel.Run.open(run.path).corrections():
        if correction.effective:
            found.setdefault(correction.path, []).append(correction)
    return found


def result_of(bench: Bench, path: str) -> list[dict]:
    return copy.deepcopy(bench.task(path)["predictions"][0]["result"])


@pytest.mark.parametrize("shape", ["auto", "box", "mask", "polygon"])
def test_what_was_submitted_unchanged_is_accepted_with_the_runs_own_geometry(bench: Bench, make_run, shape):
    run = make_run(2)
    bench.push(run, shape=shape)
    bench.annotate("001.png")
    report = bench.pull(run)
    assert report.counts == {"accepted": 2, "images complete": 1}
    assert report.warnings == ()
    found = {c.annotation_id: c for c in autolabel.Run.open(run.path).corrections()}
    for annotation in run["001.png"].annotations:
        accepted = found[annotation.id]
        assert (accepted.action, accepted.label, accepted.iou) == ("accepted", annotation.label, 1.0)
        assert (accepted.box, accepted.mask) == (annotation.box, annotation.mask)
        assert (accepted.by, accepted.seconds, accepted.source) == (ADMIN, 12.5, bench.target.source)
        assert accepted.at.endswith("+00:00")
    (review,) = autolabel.Run.open(run.path).reviews()
    assert (review.state, review.path, review.by, review.seconds) == ("complete", "001.png", ADMIN, 12.5)


def test_moved_renamed_deleted_and_drawn_regions_are_understood(bench: Bench, make_run):
    run = make_run(4)
    models = {a.id: a for item in run for a in item.annotations}
    bench.push(run, shape="box")
    first, second = result_of(bench, "001.png")
    moved = {**first, "value": {**first["value"], "x": first["value"]["x"] + 100 / 64}, "origin": "prediction-changed"}
    drawn = {
        **{k: first[k] for k in ("to_name", "from_name", "type", "original_width", "original_height")},
        "id": "drawn",
        "value": {"x": 50, "y": 50, "width": 25, "height": 25, "rotation": 0, "rectanglelabels": ["dent"]},
    }
    bench.annotate("001.png", [moved, drawn])
    (only,) = result_of(bench, "000.png")
    bench.annotate("000.png", [{**only, "value": {**only["value"], "rectanglelabels": ["dent"]}}])
    found = pulled(bench, run)
    ids = {c.action: c for c in found["001.png"]}
    assert set(ids) == {"edited", "deleted", "added"}
    edited = ids["edited"]
    before = models[edited.annotation_id]
    assert edited.box.x_min == pytest.approx(before.box.x_min + 1, abs=0.011)
    assert edited.before_box == before.box
    assert edited.iou == pytest.approx((before.box.width - 1) / (before.box.width + 1), abs=0.01)
    assert ids["added"].box.xyxy == pytest.approx((32, 24, 48, 36), abs=0.01)
    assert ids["deleted"].annotation_id == second["meta"]["autolabel"]["id"]
    (renamed,) = found["000.png"]
    assert (renamed.action, renamed.before_label, renamed.label, renamed.iou) == ("edited", "scratch", "dent", 1.0)
    assert renamed.box == models[renamed.annotation_id].box
    opened = autolabel.Run.open(run.path)
    assert sorted(a.label for a in opened["001.png"].annotations) == ["dent", edited.label]


def test_a_region_drawn_in_another_kind_is_the_same_region(bench: Bench, make_run):
    run = make_run(1)
    bench.push(run, shape="mask")
    (part,) = result_of(bench, "000.png")
    (annotation,) = run["000.png"].annotations
    box = annotation.box
    value = {
        "x": box.x_min / 0.64, "y": box.y_min / 0.48, "width": (box.width + 2) / 0.64, "height": box.height / 0.48,
        "rotation": 0, "rectanglelabels": ["scratch"],
    }  # fmt: skip
    base = {k: part[k] for k in ("to_name", "original_width", "original_height")}
    bench.annotate("000.png", [{**base, "id": "new", "from_name": "box", "type": "rectanglelabels", "value": value}])
    (correction,) = pulled(bench, run)["000.png"]
    assert (correction.action, correction.annotation_id) == ("edited", annotation.id)
    assert correction.iou == pytest.approx(box.width / (box.width + 2), abs=0.01)


def test_a_repainted_mask_comes_home_pixel_for_pixel(bench: Bench, make_run):
    from autolabel.types import Mask

    run = make_run(1)
    bench.push(run, shape="mask")
    (part,) = result_of(bench, "000.png")
    mask = run["000.png"].annotations[0].mask.decode()
    mask[0:5, 0:7] = True
    painted = Mask.encode(mask)
    bench.annotate("000.png", [{**part, "value": {**part["value"], "rle": encode_brush(painted)}}])
    (correction,) = pulled(bench, run)["000.png"]
    assert correction.action == "edited"
    assert np.array_equal(correction.mask.decode(), mask)


def test_turned_boxes_ellipses_and_unknown_shapes_are_kept_or_told_of(bench: Bench, make_run):
    config = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image" canRotate="true">'
        '<Label value="scratch"/><Label value="dent"/></RectangleLabels><EllipseLabels name="e" toName="image">'
        '<Label value="dent"/></EllipseLabels><KeyPointLabels name="k" toName="image"><Label value="dent"/>'
        "</KeyPointLabels></View>"
    )
    bench.send("POST", "/api/projects/", {"title": bench.title, "label_config": config})
    run = make_run(1)
    bench.push(run, shape="box")
    base = {"to_name": "image", "original_width": 64, "original_height": 48}
    turned = {"x": 50, "y": 20, "width": 20, "height": 10, "rotation": 30, "rectanglelabels": ["dent"]}
    ellipse = {"x": 30, "y": 70, "radiusX": 10, "radiusY": 10, "rotation": 0, "ellipselabels": ["dent"]}
    point = {"x": 90, "y": 90, "width": 1, "keypointlabels": ["dent"]}
    strange = {"x": 1, "what": "ever"}
    bench.annotate(
        "000.png",
        [
            {**base, "id": "t", "from_name": "box", "type": "rectanglelabels", "value": turned},
            {**base, "id": "e", "from_name": "e", "type": "ellipselabels", "value": ellipse},
            {**base, "id": "p", "from_name": "k", "type": "keypointlabels", "value": point},
            {**base, "id": "s", "from_name": "s", "type": "hologramlabels", "value": strange},
        ],
    )
    report = bench.pull(run)
    assert report.counts["added"] == 2
    assert report.counts["regions that are not taken over"] == 2
    assert any("'p'" in warning for warning in report.warnings)
    assert any("'s'" in warning for warning in report.warnings)
    assert all(c.mask is not None for c in autolabel.Run.open(run.path).corrections() if c.action == "added")


def test_skipped_tasks_are_reviewed_as_skipped_and_drafts_decide_nothing(bench: Bench, make_run):
    run = make_run(3)
    bench.push(run)
    bench.annotate("000.png", was_cancelled=True)
    bench.send("POST", f"/api/tasks/{bench.task('001.png')['id']}/drafts", {"result": [], "lead_time": 1})
    report = bench.pull(run)
    assert report.counts == {"images skipped": 1, "tasks with drafts, not submitted yet": 1}
    (review,) = autolabel.Run.open(run.path).reviews()
    assert (review.state, review.path) == ("skipped", "000.png")


def test_of_several_annotators_the_ground_truth_counts_else_the_newest(bench: Bench, make_run):
    anna = bench.server.add_user(f"anna-{bench.title[5:]}@example.com")
    run = make_run(2)
    bench.push(run)
    for path in ("000.png", "001.png"):
        bench.annotate(path, [], token=anna.token)
        bench.annotate(path)
    assert {c.action for c in pulled(bench, run)["000.png"]} == {"accepted"}
    others = [c for c in autolabel.Run.open(run.path).corrections() if not c.effective]
    assert {(c.action, c.by) for c in others} == {("deleted", anna.email)}
    theirs = next(a for a in bench.task("000.png")["annotations"] if a["completed_by"] == anna.id)
    bench.send("PATCH", f"/api/annotations/{theirs['id']}/", {"ground_truth": True})
    found = pulled(bench, run)
    assert {(c.action, c.by) for c in found["000.png"]} == {("deleted", anna.email)}
    assert {c.by for c in found["001.png"]} == {ADMIN}


def test_a_second_pull_says_the_same(bench: Bench, make_run):
    run = make_run(3)
    bench.push(run)
    bench.annotate("000.png", [])
    first = pulled(bench, run)
    assert pulled(bench, run) == first


def test_work_is_kept_when_its_task_or_project_is_deleted_and_withdrawn_when_the_person_does(bench: Bench, make_run):
    run = make_run(3)
    bench.push(run)
    for path in ("000.png", "001.png", "002.png"):
        bench.annotate(path, [])
    before = pulled(bench, run)
    assert set(before) == {"000.png", "001.png", "002.png"}
    bench.send("DELETE", f"/api/tasks/{bench.task('000.png')['id']}/")
    bench.send("DELETE", f"/api/annotations/{bench.task('001.png')['annotations'][0]['id']}/")
    after = pulled(bench, run)
    assert after == {path: before[path] for path in ("000.png", "002.png")}
    assert pulled(bench, run) == after
    bench.send("DELETE", f"/api/projects/{bench.project['id']}/")
    with pytest.raises(UsageError, match="push the run there first"):
        bench.pull(run)
    bench.push(run)
    assert pulled(bench, run) == after


def test_a_label_deleted_from_the_config_keeps_its_regions(bench: Bench, make_run):
    config = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">{}'
        '<Label value="scratch"/></RectangleLabels></View>'
    )
    both = config.format('<Label value="dent"/>')
    bench.send("POST", "/api/projects/", {"title": bench.title, "label_config": both})
    run = make_run(2)
    bench.push(run, shape="box")
    bench.annotate("001.png")
    bench.send("PATCH", f"/api/projects/{bench.project['id']}/", {"label_config": both.replace('"dent"', '"ding"')})
    assert {c.label for c in pulled(bench, run)["001.png"]} == {"scratch", "dent"}
    with pytest.raises(UsageError, match="dent"):
        bench.push(run, shape="box")


def test_lost_receipts_are_found_again_on_the_server(bench: Bench, make_run):
    import shutil

    run = make_run(2)
    bench.push(run)
    bench.annotate("001.png")
    shutil.rmtree(run.path / FOLDER)
    found = pulled(bench, run)["001.png"]
    assert {c.action for c in found} == {"accepted"}
    assert {c.box for c in found} == {a.box for a in run["001.png"].annotations}


def test_a_dry_pull_writes_nothing(bench: Bench, make_run):
    run = make_run(1)
    bench.push(run)
    bench.annotate("000.png")
    assert bench.pull(run, dry_run=True).counts["accepted"] == 1
    assert autolabel.Run.open(run.path).corrections() == []


def test_sync_leaves_peoples_work_and_brings_the_rest_up_to_date(bench: Bench, make_run):
    run = make_run(6)
    bench.push(run)
    bench.annotate("000.png", [])
    changed = make_run(6, thresholds={"min_score": 0.43})
    task = bench.task("000.png")
    bench.pull(changed)
    bench.push(changed)
    assert bench.task("000.png")["annotations"] == task["annotations"]
    assert bench.task("000.png")["predictions"] == task["predictions"]
    opened = autolabel.Run.open(run.path)
    assert opened["000.png"].annotations == ()
    assert bench.push(changed).changes == ()
    assert [type(d) for d in opened.reviews()] == [Review]
