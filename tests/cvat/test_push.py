"""Pushing a run to a CVAT that answers as the recorded one does, through the unmodified SDK."""

from __future__ import annotations

import contextlib

import pytest

import autolabel
from autolabel.errors import AutolabelError, UsageError
from autolabel.issues import write_issues
from autolabel.types import LabelIssue, Mask, Segments
from autolabel_connectors.receipts import open_receipts
from tests.cvat.stand_in import Fault
from tests.cvat.sync import Bench, expected_ids
from tests.fakes import BoxSegmenter


@pytest.mark.parametrize("shape", ["auto", "box", "mask", "polygon"])
def test_a_push_makes_project_tasks_and_regions_and_the_same_again_changes_nothing(bench: Bench, make_run, shape):
    run = make_run(6)
    report = bench.push(run, shape=shape)
    assert report.counts["create project"] == 1
    assert report.counts["create region"] == sum(len(item.annotations) for item in run)
    held = [bench.attributes(s)["annotation_id"] for s in bench.server.human.shapes(bench.tasks[0])]
    assert sorted(held) == expected_ids(list(run))
    for item in run:
        for annotation in item.annotations:
            shape_held = bench.shape_of(annotation.id)
            assert bench.labels()[shape_held["label_id"]] == annotation.label
            assert shape_held["source"] == "auto"
            assert float(bench.attributes(shape_held)["score"]) == pytest.approx(annotation.score, abs=1e-4)
    before = bench.essence()
    assert bench.writes(lambda: bench.push(run, shape=shape)) == 0
    assert bench.push(run, shape=shape).changes == ()
    assert bench.essence() == before


def test_other_thresholds_update_delete_and_create_only_what_differs(bench: Bench, make_run):
    run = make_run(6)
    bench.push(run)
    ids = {bench.attributes(s)["annotation_id"]: s["id"] for s in bench.server.human.shapes(bench.tasks[0])}
    fewer = make_run(6, thresholds={"min_score": 0.43})
    gone = set(ids) - set(expected_ids(list(fewer)))
    assert 0 < len(gone) < len(ids)
    report = bench.push(fewer)
    assert report.counts["delete region"] == len(gone)
    assert len(report.changes) == len(gone)
    now = {bench.attributes(s)["annotation_id"]: s["id"] for s in bench.server.human.shapes(bench.tasks[0])}
    assert now == {uid: number for uid, number in ids.items() if uid not in gone}
    report = bench.push(make_run(6))
    assert report.counts == {"create region": len(gone)}


def test_other_shapes_update_in_place(bench: Bench, make_run):
    run = make_run(4)
    bench.push(run, shape="box")
    ids = {bench.attributes(s)["annotation_id"]: s["id"] for s in bench.server.human.shapes(bench.tasks[0])}
    report = bench.push(run, shape="mask")
    assert report.counts == {"update region": len(ids)}
    now = {bench.attributes(s)["annotation_id"]: s for s in bench.server.human.shapes(bench.tasks[0])}
    assert {uid: s["id"] for uid, s in now.items()} == ids
    assert {s["type"] for s in now.values()} == {"mask"}


def test_what_a_person_did_stays(bench: Bench, make_run):
    run = make_run(8)
    bench.push(run, shape="box")
    human = bench.server.human
    first, second = bench.shapes("001.png")
    human.move(first["id"], 3, 1)
    human.delete(second["id"])
    (third,) = bench.shapes("002.png")
    human.relabel(third["id"], "dent")
    fourth, _ = bench.shapes("003.png")
    human.change(fourth["id"], occluded=True)
    task, frame = bench.place("000.png")
    human.add(task, frame, "dent", (40, 30, 50, 40))
    before = bench.essence()
    assert bench.push(run, shape="box").changes == ()
    assert bench.essence() == before
    bench.push(make_run(8, thresholds={"min_score": 0.9}), shape="box")
    left = {s["id"] for t in bench.tasks for s in human.shapes(t)}
    assert left == {first["id"], third["id"], fourth["id"], bench.shapes("000.png")[0]["id"]}
    bench.push(run, shape="mask")
    assert [s["type"] for s in bench.shapes("001.png")] == ["rectangle"]
    assert human.shape(first["id"])["points"] == [value + (3, 1)[i % 2] for i, value in enumerate(first["points"])]


@pytest.mark.parametrize("change", [{"state": "completed"}, {"stage": "acceptance"}, {"stage": "validation"}], ids=str)
def test_jobs_at_review_or_done_are_left_alone(bench: Bench, make_run, change):
    run = make_run(4)
    bench.push(run)
    bench.server.human.set_job(bench.job_of("000.png"), **change)
    assert bench.push(make_run(4, thresholds={"min_score": 0.9}), shape="mask").changes == ()


def test_later_images_become_a_new_task(bench: Bench, make_run):
    bench.push(make_run(3))
    report = bench.push(make_run(5))
    assert report.counts["create task"] == 1
    assert len(bench.tasks) == 2
    assert bench.place("004.png")[0] != bench.place("000.png")[0]
    assert bench.writes(lambda: bench.push(make_run(5))) == 0


def test_many_images_are_dealt_out_to_tasks_and_jobs(bench: Bench, make_run, monkeypatch):
    from autolabel_connectors.cvat import images

    monkeypatch.setattr(images, "TASK_IMAGES", 4)
    monkeypatch.setattr(images, "JOB_IMAGES", 2)
    run = make_run(10)
    bench.push(run)
    assert [len(bench.server.site.jobs_of(task)) for task in bench.tasks] == [2, 2, 1]
    assert sorted(bench.attributes(s)["annotation_id"] for t in bench.tasks for s in bench.server.human.shapes(t)) == (
        expected_ids(list(run))
    )
    assert bench.writes(lambda: bench.push(run)) == 0


def test_a_dry_run_says_what_would_change_and_writes_nothing(bench: Bench, make_run):
    run = make_run(3)
    assert bench.writes(lambda: bench.push(run, dry_run=True)) == 0
    told = bench.push(run, dry_run=True)
    assert told.changes == bench.push(run).changes
    fewer = make_run(4, thresholds={"min_score": 0.43})
    assert bench.writes(lambda: bench.push(fewer, dry_run=True)) == 0
    told = bench.push(fewer, dry_run=True)
    assert sorted(map(str, told.changes)) == sorted(map(str, bench.push(fewer).changes))
    assert told.counts["delete region"] > 0
    assert told.counts["create task"] == 1


def test_projects_that_do_not_fit_are_errors_with_the_remedy(bench: Bench, make_run):
    run = make_run(2)
    bench.server.human.create_project("defects", ["scratch"])
    with pytest.raises(UsageError, match=r"no label 'dent'; add it"):
        bench.push(run)
    bench.server.human.create_project("defects")
    with pytest.raises(UsageError, match="has 2 projects called 'defects'"):
        bench.push(run)
    assert bench.tasks == []


def test_a_project_without_our_attributes_is_used_with_a_warning(bench: Bench, make_run):
    bench.server.human.create_project("defects", ["Scratch", "dent", "other"])
    run = make_run(4)
    report = bench.push(run)
    assert any("no attribute score" in warning for warning in report.warnings)
    assert len(bench.server.human.shapes(bench.tasks[0])) == len(expected_ids(list(run)))
    assert bench.writes(lambda: bench.push(run)) == 0


def test_doubts_travel_as_attributes_and_issues_and_the_noisiest_come_first(bench: Bench, make_run):
    run = make_run(4)
    item = run["003.png"]
    doubted = item.annotations[0]
    doubts = [
        LabelIssue("label", "003.png", item.image.id, 0.1, True, "looks like a dent", doubted.id, "dent"),
        LabelIssue("overlooked", "001.png", run["001.png"].image.id, 0.4, True, "a dent at the left"),
    ]
    write_issues(run.path, doubts, {})
    report = bench.push(run, order="noisiest")
    assert report.counts["raise issue"] == 2
    assert [bench.place(name)[1] for name in ("003.png", "001.png", "000.png", "002.png")] == [0, 1, 2, 3]
    notes = bench.attributes(bench.shape_of(doubted.id))
    assert (notes["noise"], notes["suggested"]) == ("suspect", "dent")
    assert "looks like a dent" in notes["noise_reason"]
    issues = bench.server.state.issues
    assert [row["frame"] for row in issues.values()] == [0, 1]
    assert bench.writes(lambda: bench.push(run, order="noisiest")) == 0
    bench.server.human.resolve(min(issues))
    bench.server.human.delete_issue(max(issues))
    assert bench.writes(lambda: bench.push(run, order="noisiest")) == 0
    write_issues(run.path, [], {})
    assert bench.push(run, order="noisiest").counts == {"update region": 1}
    assert bench.attributes(bench.shape_of(doubted.id))["noise"] == "no"


def test_images_come_from_a_share_or_a_cloud(make_run, workspace):
    from tests.cvat.stand_in import StandIn

    run = make_run(3)
    with StandIn(share=workspace, buckets={"bucket": workspace}) as server:
        bench = Bench(server)
        bench.push(run, media="share", media_root="images")
        assert sorted(bench.place(item.image)[1] for item in run) == [0, 1, 2]
        assert bench.writes(lambda: bench.push(run, media="share", media_root="images")) == 0
        with pytest.raises(UsageError, match="--storage-id"):
            bench.push(run, media="cloud")
        with pytest.raises(UsageError, match="no local files"):
            bench.push(run, media="local")
        assert server.errors == []


def test_a_server_that_never_gets_to_our_images_is_an_error_and_its_task_is_kept(make_run, monkeypatch):
    from autolabel_connectors.cvat import upload
    from tests.cvat.stand_in import StandIn

    monkeypatch.setattr(upload, "PATIENCE_SECONDS", 0.01)
    run = make_run(2)
    with StandIn(polls=("queued",) * 60) as server:
        bench = Bench(server)
        with pytest.raises(AutolabelError, match=r"import workers run"):
            bench.push(run)
        assert bench.tasks == [1]
        monkeypatch.setattr(upload, "PATIENCE_SECONDS", 60.0)
        bench.push(run)
        assert bench.tasks == [1]
        assert len(server.human.shapes(1)) == len(expected_ids(list(run)))


def test_large_files_go_by_tus(bench: Bench, make_run, monkeypatch):
    from autolabel_connectors.cvat import upload

    monkeypatch.setattr(upload, "REQUEST_BYTES", 100)
    run = make_run(2)
    bench.push(run)
    assert bench.server.log.count("PATCH", "/api/tasks/*/data/*") >= 2
    assert bench.writes(lambda: bench.push(run)) == 0


def test_lost_receipts_are_found_again_and_what_people_did_is_known(bench: Bench, make_run):
    import shutil

    run = make_run(8)
    bench.push(run)
    first, _ = bench.shapes("001.png")
    bench.server.human.move(first["id"], 2, 0)
    shutil.rmtree(run.path / "sync")
    assert bench.writes(lambda: bench.push(run)) == 0
    with open_receipts(run.path, bench.target.source) as receipts:
        assert len(receipts) == len(expected_ids(list(run)))
    report = bench.push(make_run(8, thresholds={"min_score": 0.9}))
    assert report.counts["delete region"] == len(expected_ids(list(run))) - 1
    assert [s["id"] for s in bench.shapes("001.png")] == [first["id"]]


def test_what_cvat_would_accept_wrongly_is_not_sent(bench: Bench, make_run, monkeypatch):
    from autolabel_connectors.cvat import compose

    real = compose.to_shapes

    def broken(*args, **options):
        return [{**part, "frame": 999} for part in real(*args, **options)]

    monkeypatch.setattr(compose, "to_shapes", broken)
    with pytest.raises(AutolabelError, match=r"cannot be shown: frame is 999"):
        bench.push(make_run(1))


def test_a_project_deleted_meanwhile_is_made_anew_and_a_deleted_task_stays_deleted(bench: Bench, make_run):
    run = make_run(3)
    bench.push(run)
    bench.server.human.delete_project(1)
    assert bench.push(run).counts["create project"] == 1
    bench.server.human.delete_task(bench.tasks[0])
    report = bench.push(run)
    assert report.changes == ()
    assert any("stay deleted" in warning for warning in report.warnings)


def test_two_runs_in_one_project_leave_each_other_alone(bench: Bench, make_run):
    run = make_run(3)
    bench.push(run)
    other = autolabel.run("images", prompt="scratch. dent.", path="runs/other", **_models())
    before = bench.essence()
    bench.push(other)
    bench.push(run)
    assert set(before[3]) <= set(bench.essence()[3])


def _models():
    from tests.conftest import Models

    return Models()


def test_a_user_and_password_stand_in_for_a_token(bench: Bench, make_run):
    bench.token = ":".join(bench.server.credentials)
    run = make_run(2)
    bench.push(run)
    assert bench.writes(lambda: bench.push(run)) == 0
    bench.token = "admin:wrong"
    with pytest.raises(UsageError, match="does not accept user 'admin'"):
        bench.push(run)


class SplitSegmenter(BoxSegmenter):
    """Leaves out the middle columns of a box, so that a mask has two parts."""

    def predict_batch(self, images, boxes_xyxy):
        found = super().predict_batch(images, boxes_xyxy)
        return [Segments(tuple(map(self._split, segments.masks)), segments.scores) for segments in found]

    @staticmethod
    def _split(mask: Mask) -> Mask:
        pixels = mask.decode()
        columns = pixels.any(axis=0).nonzero()[0]
        pixels[:, columns[len(columns) // 2 - 1] : columns[len(columns) // 2] + 1] = False
        return Mask.encode(pixels)


def test_masks_in_several_parts_are_one_region_however_they_are_drawn(bench: Bench, make_run):
    run = make_run(4, segmenter=SplitSegmenter())
    bench.push(run, shape="polygon")
    regions = len(expected_ids(list(run)))
    parts = bench.server.human.shapes(bench.tasks[0])
    assert len(parts) == 2 * regions
    assert len({shape["group"] for shape in parts}) == regions
    assert bench.writes(lambda: bench.push(run, shape="polygon")) == 0
    assert bench.push(run, shape="mask").counts == {"update region": regions}
    assert [s["type"] for s in bench.server.human.shapes(bench.tasks[0])] == ["mask"] * regions
    report = bench.push(run, shape="polygon")
    assert report.counts == {"update region": regions}
    assert report.notes[0].startswith(f"{regions} regions shown as polygons: IoU with their masks 1.000 in the median")
    assert len(bench.server.human.shapes(bench.tasks[0])) == 2 * regions
    first, second = bench.shapes("000.png")
    bench.server.human.delete(first["id"])
    assert bench.writes(lambda: bench.push(run, shape="polygon")) == 0
    (edited,) = (c for c in bench.pulled(run)["000.png"])
    assert (edited.action, edited.iou) == ("edited", pytest.approx(0.5, abs=0.01))
    bench.push(run, shape="mask")
    assert [s["id"] for s in bench.shapes("000.png")] == [second["id"]]


@pytest.mark.parametrize(
    "fault",
    [
        Fault.drop,
        Fault.drop_after,
        Fault.twice,
        lambda: Fault.error(500),
        lambda: Fault.error(401),
        lambda: Fault.error_after(401),
    ],
    ids=["dropped before", "dropped after", "doubled", "500", "stopped before", "stopped after"],
)
def test_a_fault_halfway_through_a_change_of_parts_heals(bench: Bench, make_run, fault):
    run = make_run(4, segmenter=SplitSegmenter())
    bench.push(run, shape="polygon")
    parts = bench.server.human.shapes(bench.tasks[0])
    for nth in (1, 2):
        for shape in ("mask", "polygon"):
            bench.server.faults.add(fault(), method="PATCH", path="/api/tasks/*/annotations/", nth=nth)
            with contextlib.suppress(AutolabelError):
                bench.push(run, shape=shape)
            bench.server.faults.clear()
            bench.push(run, shape=shape)
            assert bench.writes(lambda shape=shape: bench.push(run, shape=shape)) == 0
        assert len(bench.server.human.shapes(bench.tasks[0])) == len(parts)
    assert bench.pull(run).counts == {}
