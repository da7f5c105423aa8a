"""Annotations, review and auto-annotation through the unmodified cvat-sdk, and people's edits beside it."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.cvat.helpers import LABELS, label_ids, make_task, patch, rectangle, spec_ids
from tests.cvat.stand_in import StandIn

cvat_sdk = pytest.importorskip("cvat_sdk")
import cvat_sdk.auto_annotation as cvataa  # noqa: E402
from cvat_sdk.api_client import exceptions  # noqa: E402
from cvat_sdk.core.exceptions import BackgroundRequestException  # noqa: E402
from cvat_sdk.masks import decode_mask, encode_mask  # noqa: E402

if TYPE_CHECKING:
    from cvat_sdk import Client
    from cvat_sdk.core.proxies.tasks import Task


@pytest.fixture
def task(cvat_client: Client, tmp_path: Path) -> Task:
    return make_task(cvat_client, tmp_path, 4, segment_size=2)


def test_a_new_task_has_no_annotations(task: Task):
    found = task.get_annotations()
    assert (found.tags, found.shapes, found.tracks) == ([], [], [])


def test_shapes_masks_and_tags_come_back_as_they_went(task: Task):
    labels, specs = label_ids(task), spec_ids(task)
    bitmap = np.zeros((48, 64), bool)
    bitmap[5:20, 7:30] = True
    bitmap[9, 12:15] = False
    score = [{"spec_id": specs["score"], "value": "0.93"}]
    mask = {**rectangle(labels["scratch"], 3, attributes=score), "type": "mask", "points": encode_mask(bitmap)}
    answer = patch(
        task,
        "create",
        rectangle(labels["dent"], 2, source="auto", group=3, occluded=True, z_order=2, rotation=45.0),
        mask,
        tags=[{"label_id": labels["dent"], "frame": 1, "source": "auto"}],
    )
    assert [shape["attributes"] for shape in answer["shapes"]] == [[], score]
    read = task.get_annotations()
    box, painted = read.shapes
    assert (box.id, box.source, box.group, box.occluded, box.rotation) == (
        answer["shapes"][0]["id"],
        "auto",
        3,
        True,
        45,
    )
    assert box.points == [1, 2, 10, 12]
    assert np.array_equal(decode_mask(painted.points, image_width=64, image_height=48), bitmap)
    assert {a.spec_id: a.value for a in painted.attributes} == {specs["score"]: "0.93", specs["noise"]: "no"}
    assert [(tag.frame, tag.source) for tag in read.tags] == [(1, "auto")]


def test_an_update_keeps_the_id_and_replaces_every_field(task: Task):
    labels, specs = label_ids(task), spec_ids(task)
    score = {"spec_id": specs["score"], "value": "0.5"}
    [shape] = patch(task, "create", rectangle(labels["scratch"], attributes=[score], group=4))["shapes"]
    patch(task, "update", rectangle(labels["dent"], points=(2, 2, 9, 9), id=shape["id"]))
    [changed] = task.get_annotations().shapes
    assert (changed.id, changed.label_id, changed.group, changed.attributes) == (shape["id"], labels["dent"], None, [])
    with pytest.raises(exceptions.ApiException, match="spec_id") as error:
        patch(task, "update", rectangle(labels["dent"], id=shape["id"], attributes=[score]))
    assert error.value.status == 400
    assert [s.id for s in task.get_annotations().shapes] == [shape["id"]]


def test_an_update_brings_back_what_is_gone_and_a_second_delete_is_no_error(task: Task):
    label = label_ids(task)["dent"]
    [shape] = patch(task, "create", rectangle(label))["shapes"]
    for _ in range(2):
        assert patch(task, "delete", rectangle(label, id=shape["id"]))["shapes"][0]["id"] == shape["id"]
        assert task.get_annotations().shapes == []
    patch(task, "update", rectangle(label, id=shape["id"]))
    assert [s.id for s in task.get_annotations().shapes] == [shape["id"]]


def test_an_id_belongs_to_one_job(task: Task):
    label = label_ids(task)["dent"]
    [shape] = patch(task, "create", rectangle(label, 0))["shapes"]
    first, second = sorted(task.get_jobs(), key=lambda job: job.id)
    with pytest.raises(exceptions.ApiException, match="already exists"):
        patch(task, "update", rectangle(label, 3, id=shape["id"]))
    patch(second, "delete", rectangle(label, 0, id=shape["id"]))
    assert [s.id for s in first.get_annotations().shapes] == [shape["id"]]
    first.remove_annotations(ids=[shape["id"]])
    assert task.get_annotations().shapes == []


def test_put_replaces_all_and_gives_new_ids(task: Task):
    label = label_ids(task)["dent"]
    old = patch(task, "create", rectangle(label, 0), rectangle(label, 3))["shapes"]
    task.set_annotations({"shapes": [rectangle(label, 3)], "tags": [], "tracks": []})
    [shape] = task.get_annotations().shapes
    assert shape.frame == 3
    assert shape.id > max(row["id"] for row in old)
    task.remove_annotations()
    assert task.get_annotations().shapes == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"label_id": 999}, ["label_id `999` is invalid"]),
        ({"points": [1.0, 2.0, 3.0]}, {"shapes": [{}, {"points": ["invalid length for shape type 'rectangle'"]}]}),
        ({"type": "polygon"}, {"shapes": [{}, {"points": ["invalid length for shape type 'polygon'"]}]}),
        ({"attributes": [{"spec_id": 77, "value": "x"}]}, ["spec_id `77` is invalid"]),
        ({"id": 5}, {"shapes": [{}, {"id": ["must be absent"]}]}),
        ({"type": "blob"}, {"shapes": [{}, {"type": ['"blob" is not a valid choice.']}]}),
    ],
)
def test_what_the_server_refuses_it_refuses_whole(task: Task, change: dict, expected: object):
    label = label_ids(task)["dent"]
    body = {"shapes": [rectangle(label), {**rectangle(label), **change}]}
    _, answer = task._client.api_client.call_api(
        f"/api/tasks/{task.id}/annotations/?action=create", "PATCH", body=body, _check_status=False
    )
    assert (answer.status, json.loads(answer.data)) == (400, expected)
    assert task.get_annotations().shapes == []


def test_what_the_server_lets_pass(cvat_client: Client, tmp_path: Path):
    task = make_task(cvat_client, tmp_path, labels=[{"name": "outline", "type": "polygon"}])
    label = label_ids(task)["outline"]
    assert patch(task, "create", rectangle(label, 999))["shapes"] == []
    assert len(patch(task, "create", rectangle(label, points=(-50, 1, 9000, 2)))["shapes"]) == 1
    assert [s.points for s in task.get_annotations().shapes] == [[-50, 1, 9000, 2]]


@pytest.mark.parametrize(("version", "kept"), [("2.54.1", False), ("2.57.0", True)])
def test_scores_are_kept_from_2_57_on(tmp_path: Path, version: str, kept: bool):
    with StandIn(version=version) as server:
        client = cvat_sdk.make_client(server.url, credentials=server.credentials)
        client.config.status_check_period = 0.01
        task = make_task(client, tmp_path)
        patch(task, "create", rectangle(label_ids(task)["dent"], score=0.25))
        assert task.get_annotations().shapes[0].to_dict().get("score") == (0.25 if kept else None)


def test_tracks_carry_mutable_attributes_on(task: Task):
    labels, specs = label_ids(task), spec_ids(task)
    first = {**rectangle(0, 0), "attributes": [{"spec_id": specs["noise"], "value": "yes"}]}
    shapes = [{key: value for key, value in row.items() if key != "label_id"} for row in (first, rectangle(0, 1))]
    patch(task, "create", tracks=[{"label_id": labels["scratch"], "frame": 0, "shapes": shapes}])
    [track] = task.get_annotations().tracks
    assert [a.value for a in track.attributes] == ["0"]
    assert [[a.value for a in shape.attributes] for shape in track.shapes] == [["yes"], ["yes"]]


def test_people_keep_ids_and_turn_auto_into_semi_auto(cvat: StandIn, task: Task):
    labels, specs = label_ids(task), spec_ids(task)
    boxes = [rectangle(labels["scratch"], frame, source="auto") for frame in (0, 1, 2)]
    moved, relabelled, deleted = (row["id"] for row in patch(task, "create", *boxes)["shapes"])
    cvat.human.move(moved, 3, -1)
    cvat.human.set_attribute(moved, "noise", "yes")
    cvat.human.relabel(relabelled, "dent")
    cvat.human.delete(deleted)
    bitmap = np.zeros((48, 64), bool)
    bitmap[10:20, 10:20] = True
    drawn = cvat.human.add(task.id, 3, "dent", bitmap)
    tag = cvat.human.tag(task.id, 3, "scratch")
    shapes = {shape.id: shape for shape in task.get_annotations().shapes}
    assert sorted(shapes) == [moved, relabelled, drawn]
    assert [shapes[n].source for n in (moved, relabelled, drawn)] == ["semi-auto", "semi-auto", "manual"]
    assert shapes[moved].points == [4, 1, 13, 11]
    assert {a.spec_id: a.value for a in shapes[moved].attributes} == {specs["score"]: "0", specs["noise"]: "yes"}
    assert (shapes[relabelled].label_id, shapes[relabelled].attributes) == (labels["dent"], [])
    bitmap[15:, :] = False
    cvat.human.paint(drawn, bitmap)
    points = cvat.human.shape(drawn)["points"]
    assert np.array_equal(decode_mask(points, image_width=64, image_height=48), bitmap)
    assert [t.id for t in task.get_annotations().tags] == [tag]


def test_changes_show_in_the_dates_of_job_task_and_project(cvat: StandIn, cvat_client: Client, tmp_path: Path):
    project = cvat_client.projects.create({"name": "p", "labels": LABELS})
    task = make_task(cvat_client, tmp_path, labels=[], project_id=project.id)
    shape = cvat.human.add(task.id, 0, "dent", [1, 1, 5, 5])
    before = [task.fetch().updated_date, project.fetch().updated_date, task.get_jobs()[0].updated_date]
    cvat.human.move(shape, 1, 1)
    after = [task.fetch().updated_date, project.fetch().updated_date, task.get_jobs()[0].updated_date]
    assert all(new > old for old, new in zip(before, after, strict=True))


def test_review_issues_and_comments(cvat: StandIn, cvat_client: Client, task: Task):
    job = min(task.get_jobs(), key=lambda job: job.id)
    issue = cvat_client.issues.create(
        {"frame": 0, "position": [1.0, 2.0, 9.0, 9.0], "job": job.id, "message": "a dent?"}
    )
    cvat_client.comments.create({"issue": issue.id, "message": "yes"})
    assert [comment.message for comment in issue.get_comments()] == ["yes", "a dent?"]
    assert [found.id for found in job.get_issues()] == [issue.id]
    assert job.fetch().issues.count == 1
    cvat.human.resolve(issue.id)
    assert issue.fetch().resolved is True
    assert [found.id for found in cvat_client.issues.list(job_id=job.id, resolved=False)] == []
    issue.remove()
    assert cvat_client.comments.list() == []


def test_annotate_task_runs_a_detection_function(cvat_client: Client, task: Task):
    class Corner:
        spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec("dent", 0)])

        def detect(self, _context, image):
            return [cvataa.rectangle(0, [0, 0, image.width / 2, image.getpixel((0, 0))[0] + 1])]

    cvataa.annotate_task(cvat_client, task.id, Corner(), clear_existing=True)
    shapes = task.get_annotations().shapes
    assert [(s.frame, s.points[3], s.source) for s in shapes] == [(n, n * 20 + 1, "auto") for n in range(4)]


def test_coco_export_and_its_failure_on_an_empty_score(cvat: StandIn, cvat_client: Client, task: Task, tmp_path: Path):
    labels, specs = label_ids(task), spec_ids(task)
    bitmap = np.zeros((48, 64), bool)
    bitmap[5:9, 7:12] = True
    cvat.human.add(task.id, 0, "dent", bitmap)
    patch(task, "create", rectangle(labels["scratch"], 2))
    path = task.export_dataset("COCO 1.0", tmp_path / "out.zip", include_images=True)
    with zipfile.ZipFile(path) as archive:
        assert len([name for name in archive.namelist() if name.startswith("images/")]) == 4
        coco = json.loads(archive.read("annotations/instances_default.json"))
    assert [a["bbox"] for a in coco["annotations"]] == [[7, 5, 5, 4], [1, 2, 9, 10]]
    assert [a["area"] for a in coco["annotations"]] == [20, 90]
    assert coco["annotations"][1]["attributes"]["score"] == 0
    empty = {"spec_id": specs["score"], "value": ""}
    patch(task, "create", rectangle(labels["scratch"], 3, attributes=[empty]))
    with pytest.raises(BackgroundRequestException, match="could not convert string to float: ''"):
        task.export_dataset("COCO 1.0", tmp_path / "again.zip")


def test_imported_annotations_have_the_source_file(cvat_client: Client, task: Task, tmp_path: Path):
    patch(task, "create", rectangle(label_ids(task)["dent"], 2))
    xml = b"""<annotations><image id="1" name="img1.png" width="64" height="48">
        <box label="scratch" xtl="1" ytl="2" xbr="3" ybr="4"><attribute name="score">0.5</attribute></box>
        <polygon label="dent" points="1,1;9,1;9,9"/><tag label="dent"/></image></annotations>"""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("annotations.xml", xml)
    (tmp_path / "in.zip").write_bytes(buffer.getvalue())
    task.import_annotations("CVAT 1.1", tmp_path / "in.zip")
    read = task.get_annotations()
    assert [(s.type.value, s.frame, s.source) for s in read.shapes] == [
        ("rectangle", 1, "file"),
        ("polygon", 1, "file"),
    ]
    assert len(read.tags) == 1
    (tmp_path / "bad.zip").write_bytes(b"no archive")
    with pytest.raises(BackgroundRequestException):
        task.import_annotations("CVAT 1.1", tmp_path / "bad.zip")
