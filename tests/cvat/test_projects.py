"""Projects that people set up or changed: labels of one shape, renamed labels, groups, other kinds of attributes."""

from __future__ import annotations

import pytest

import autolabel
from autolabel.errors import AutolabelError
from autolabel_connectors.cvat.client import open_server
from tests.cvat.stand_in import StandIn
from tests.cvat.sync import Bench, expected_ids

ALL = ("rectangle", "polygon", "mask")


def labels_of(bench: Bench, *specs: dict) -> None:
    """Make the project with these labels."""
    open_server(bench.target).call("POST", "/api/projects", body={"name": "defects", "labels": list(specs)})


def text(name: str) -> dict:
    return {"name": name, "mutable": False, "input_type": "text", "values": ["none"], "default_value": "none"}


def test_a_label_that_somebody_renamed_is_still_the_class_it_was(bench: Bench, make_run):
    run = make_run(4)
    bench.push(run, shape="box")
    scratch = next(uid for uid, name in bench.labels().items() if name == "scratch")
    bench.server.human.rename_label(scratch, "Kratzer")
    bench.server.human.move(bench.shapes("000.png")[0]["id"], 3, 0)
    report = bench.push(run, shape="box")
    assert any("somebody calls label 'scratch' 'Kratzer' now" in warning for warning in report.warnings)
    assert report.counts == {"regions left as people have them": 1}
    (edited,) = bench.pulled(run)["000.png"]
    assert (edited.action, edited.label, edited.before_label) == ("edited", "scratch", "scratch")
    bench.push(make_run(4, thresholds={"min_score": 0.99}), shape="box")
    assert len(bench.server.human.shapes(bench.tasks[0])) == 1


def test_a_label_of_another_project_is_no_renamed_one(bench: Bench, make_run):
    bench.push(make_run(1))
    bench.server.human.delete_project(1)
    bench.server.human.create_project("defects", ["one", "two"])
    with pytest.raises(AutolabelError, match="no label 'scratch'"):
        bench.push(make_run(1))


@pytest.mark.parametrize("kind", ALL)
def test_a_label_for_one_kind_of_shape_gets_that_kind(bench: Bench, make_run, kind):
    labels_of(
        bench,
        {"name": "scratch", "type": kind, "attributes": [text("annotation_id")]},
        {"name": "dent", "type": "any", "attributes": [text("annotation_id")]},
    )
    run = make_run(4)
    report = bench.push(run)
    assert any(f"label 'scratch' is for {kind} only, so its regions are drawn like that" in w for w in report.warnings)
    shapes = bench.server.human.shapes(bench.tasks[0])
    assert len(shapes) >= len(expected_ids(list(run)))
    assert {s["type"] for s in shapes if bench.labels()[s["label_id"]] == "scratch"} == {kind}
    assert bench.writes(lambda: bench.push(run)) == 0
    asked = {"rectangle": "mask", "polygon": "box", "mask": "polygon"}[kind]
    with pytest.raises(AutolabelError, match="set its shape to any"):
        bench.push(run, shape=asked)


def test_a_group_that_a_person_made_stays(bench: Bench, make_run):
    run = make_run(4)
    bench.push(run, shape="box")
    grouped = bench.shapes("001.png")
    for shape in grouped:
        bench.server.human.change(shape["id"], group=7, source="auto")
    bench.push(run, shape="mask")
    assert [(s["group"], s["type"]) for s in bench.shapes("001.png")] == [(7, "rectangle")] * len(grouped)
    assert {s["type"] for s in bench.shapes("002.png")} == {"mask"}


def test_attributes_of_other_kinds_get_values_that_the_editor_takes(bench: Bench, make_run):
    kinds = [
        {"name": "noise", "input_type": "checkbox", "values": ["false"], "default_value": "false", "mutable": False},
        {"name": "score", "input_type": "number", "values": ["0", "1", "0.01"], "default_value": "0", "mutable": True},
        {
            "name": "noise_reason",
            "input_type": "number",
            "values": ["0", "9", "1"],
            "default_value": "0",
            "mutable": False,
        },
        text("annotation_id"),
    ]
    labels_of(bench, *({"name": name, "attributes": kinds} for name in ("scratch", "dent")))
    run = make_run(2)
    bench.push(run, shape="box")
    for shape in bench.server.human.shapes(bench.tasks[0]):
        values = bench.attributes(shape)
        assert (values["noise"], values["noise_reason"]) == ("false", "0")
        assert 0 < float(values["score"]) < 1
    assert bench.writes(lambda: bench.push(run, shape="box")) == 0


def test_servers_that_keep_scores_get_them(make_run):
    with StandIn(version="2.57.0") as server:
        bench = Bench(server)
        run = make_run(2)
        bench.push(run, shape="box")
        scores = {a.id: a.score for item in run for a in item.annotations}
        for shape in server.human.shapes(bench.tasks[0]):
            uid = bench.attributes(shape)["annotation_id"]
            assert shape["score"] == pytest.approx(scores[uid], abs=5e-5)
        assert bench.writes(lambda: bench.push(run, shape="box")) == 0


def test_a_cloud_address_means_what_is_below_the_bucket(make_run, workspace):
    run = make_run(2)
    with StandIn(buckets={"bucket": workspace}) as server:
        bench = Bench(server)
        body = {"provider_type": "AWS_S3_BUCKET", "resource": "bucket", "display_name": "b", "credentials_type": "KEY"}
        storage = open_server(bench.target).call("POST", "/api/cloudstorages", body=body)["id"]
        bench.push(run, media="cloud", media_root="s3://bucket/images", storage_id=storage)
        assert sorted(bench.place(item.image)[1] for item in run) == [0, 1]
        assert server.errors == []


def test_frames_that_no_annotation_job_shows_are_left_alone(bench: Bench, make_run):
    run = make_run(4)
    bench.push(run, shape="box")
    (job,) = bench.server.state.jobs.values()
    job["type"] = "ground_truth"
    assert bench.writes(lambda: bench.push(run, shape="mask")) == 0
    assert bench.pull(run).counts == {}
    assert autolabel.Run.open(run.path).reviews() == []


def test_frames_that_two_jobs_show_are_left_alone_and_told(bench: Bench, make_run):
    run = make_run(6)
    bench.push(run, shape="box")
    first = bench.server.state.jobs[min(bench.server.state.jobs)]
    second = {**first, "id": 99, "start_frame": 4}
    bench.server.state.jobs[99] = second
    bench.server.state.annotations[99] = {"tags": {}, "shapes": {}, "tracks": {}}
    first["stop_frame"] = 5
    report = bench.push(run, shape="mask")
    assert any("2 images shown by two jobs" in warning for warning in report.warnings)
    kinds = {path: {s["type"] for s in bench.shapes(path)} for path in ("000.png", "005.png")}
    assert kinds == {"000.png": {"mask"}, "005.png": {"rectangle"}}
    assert bench.writes(lambda: bench.push(run, shape="mask")) == 0
