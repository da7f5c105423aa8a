"""What people and servers do that is easily taken for something else: copies, marks, other orders, refusals."""

from __future__ import annotations

import pytest

import autolabel
from autolabel.issues import write_issues
from autolabel.types import LabelIssue
from autolabel_connectors.cvat.client import Cvat, open_server
from tests.cvat.sync import Bench, expected_ids


def doubt(run: autolabel.Run, path: str) -> str:
    """Doubt the first region of an image, and return its id."""
    item = run[path]
    annotation = item.annotations[0]
    write_issues(run.path, [LabelIssue("label", path, item.image.id, 0.1, True, "odd", annotation.id, "dent")], {})
    return annotation.id


def test_frames_are_told_by_their_names_in_whatever_order_the_server_shows_them(bench: Bench, make_run, monkeypatch):
    run = make_run(6)
    doubt(run, "003.png")
    upload = Cvat.upload

    def by_name(self, task, files, request_bytes, pbar, data):
        upload(self, task, files, request_bytes, pbar, {**data, "sorting_method": "lexicographical"})

    monkeypatch.setattr(Cvat, "upload", by_name)
    bench.push(run, order="noisiest", shape="box")
    assert bench.place("003.png")[1] == 3
    for item in run:
        held = sorted(bench.attributes(shape)["annotation_id"] for shape in bench.shapes(item.image.path))
        assert held == sorted(annotation.id for annotation in item.annotations)


@pytest.mark.parametrize("source", ["auto", "semi-auto"])
def test_a_changed_attribute_or_flag_is_a_persons_work_whatever_its_source(bench: Bench, make_run, source):
    run = make_run(4)
    doubted = doubt(run, "003.png")
    bench.push(run, shape="box")
    human = bench.server.human
    human.set_attribute(bench.shape_of(doubted)["id"], "noise", "no")
    human.change(bench.shape_of(doubted)["id"], source=source)
    hidden = bench.shapes("001.png")[0]["id"]
    human.change(hidden, occluded=True, source=source)
    assert bench.writes(lambda: bench.push(run, shape="box")) == 0
    bench.push(run, shape="mask")
    assert bench.attributes(bench.shape_of(doubted))["noise"] == "no"
    assert human.shape(hidden)["type"] == "rectangle"
    bench.push(make_run(4, thresholds={"min_score": 0.9}), shape="mask")
    assert human.shape(hidden)["occluded"]


def test_attributes_that_a_project_gets_later_are_no_marks_of_people(bench: Bench, make_run):
    bench.server.human.create_project("defects", ["scratch", "dent"])
    run = make_run(3)
    bench.push(run, shape="box")
    server = open_server(bench.target)
    labels = [
        {"id": row["id"], "attributes": [{"name": "score", "mutable": False, "input_type": "text", "values": ["0"]}]}
        for row in server.listed("/api/labels", project_id=1)
    ]
    server.call("PATCH", "/api/projects/1", body={"labels": labels})
    report = bench.push(run, shape="box")
    assert report.counts == {"update region": len(expected_ids(list(run)))}
    assert all(float(bench.attributes(s)["score"]) > 0 for s in bench.server.human.shapes(bench.tasks[0]))
    assert bench.writes(lambda: bench.push(run, shape="box")) == 0


@pytest.mark.parametrize("source", ["auto", "manual"])
def test_a_copy_of_our_region_is_the_persons_who_made_it(bench: Bench, make_run, source):
    run = make_run(4)
    bench.push(run, shape="polygon")
    original = bench.shapes("000.png")[0]
    copied = {"type": original["type"], "attributes": bench.attributes(original), "source": source}
    moved = [value + 5 for value in original["points"]]
    here = bench.server.human.add(*bench.place("000.png"), "scratch", moved, **copied)
    there = bench.server.human.add(*bench.place("002.png"), "scratch", original["points"], **copied)
    found = bench.pulled(run)
    assert {path: [c.action for c in made] for path, made in found.items()} == {
        "000.png": ["added"],
        "002.png": ["added"],
    }
    bench.push(make_run(4, thresholds={"min_score": 0.9}), shape="polygon")
    assert [shape["id"] for shape in bench.shapes("000.png")] == [here]
    assert [shape["id"] for shape in bench.shapes("002.png")] == [there]


def test_what_was_rejected_is_not_accepted(bench: Bench, make_run):
    run = make_run(3)
    bench.push(run)
    bench.server.human.set_job(bench.job_of("000.png"), stage="acceptance", state="rejected")
    bench.pull(run)
    assert autolabel.Run.open(run.path).reviews() == []


def test_what_people_drew_comes_back_when_a_deleted_project_is_made_anew(bench: Bench, make_run):
    run = make_run(3)
    bench.push(run, shape="box")
    human = bench.server.human
    human.add(*bench.place("000.png"), "dent", (40, 30, 50, 40))
    first, second = bench.shapes("001.png")
    human.move(first["id"], 3, 1)
    human.delete(second["id"])
    bench.pull(run)
    before = sorted((c.action, c.path, c.annotation_id) for c in autolabel.Run.open(run.path).corrections())
    human.delete_project(1)
    bench.push(run, shape="box")
    assert [40, 30, 50, 40] in [shape["points"] for shape in bench.shapes("000.png")]
    assert len(bench.shapes("001.png")) == 1
    assert bench.writes(lambda: bench.push(run, shape="box")) == 0
    bench.pull(run)
    assert before == sorted((c.action, c.path, c.annotation_id) for c in autolabel.Run.open(run.path).corrections())
    assert bench.writes(lambda: bench.push(run, shape="box")) == 0


def test_annotations_replaced_under_new_ids_are_known_again(bench: Bench, make_run):
    run = make_run(4)
    bench.push(run, shape="mask")
    (task,) = bench.tasks
    server = open_server(bench.target)
    shapes = server.annotations(task)["shapes"]
    fresh = [{key: value for key, value in shape.items() if key != "id"} for shape in shapes]
    body = {"version": 0, "tags": [], "tracks": [], "shapes": fresh}
    server.call("PUT", f"/api/tasks/{task}/annotations/", body=body)
    assert not {s["id"] for s in shapes} & {s["id"] for s in server.annotations(task)["shapes"]}
    assert bench.writes(lambda: bench.push(run, shape="mask")) == 0
    fewer = make_run(4, thresholds={"min_score": 0.43})
    bench.push(fewer, shape="mask")
    held = sorted(bench.attributes(shape)["annotation_id"] for shape in bench.server.human.shapes(task))
    assert held == expected_ids(list(fewer))


def test_a_project_of_an_organization_is_worked_on_within_it(bench: Bench, make_run):
    run = make_run(2)
    server = open_server(bench.target)
    made = server.call("POST", "/api/organizations", body={"slug": "plant-3"})
    bench.push(run)
    bench.server.state.projects[1]["organization"] = made["id"]
    bench.server.state.tasks[bench.tasks[0]]["organization"] = made["id"]
    for job in bench.server.site.jobs_of(bench.tasks[0]):
        job["organization"] = made["id"]
    bench.server.log.clear()
    bench.push(make_run(4))
    bench.pull(run)
    asked = [entry for entry in bench.server.log if entry.path.startswith(("/api/tasks", "/api/jobs", "/api/labels"))]
    assert asked
    assert {entry.request.headers.get("x-organization") for entry in asked} == {"plant-3"}
