"""The noise pass from end to end: files in, issues out."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from autolabel.cli import cli
from autolabel.corrections import write_decisions
from autolabel.dataset import Run
from autolabel.errors import UsageError
from autolabel.issues import read_issues, read_notes
from autolabel.quality import NoiseOptions, find_noise, read_quality
from autolabel.quality.noise import up_to_date
from autolabel.quality.plant import SWAPPED, plant
from autolabel.types import Correction, Review
from tests.quality.sets import NAMES, grid, labels_of, write_coco, write_results

NO_IMAGES = NoiseOptions(images=False)


@pytest.fixture
def audit(tmp_path):
    """Labels with planted errors and evidence, as files; and what was planted."""
    labels, evidence, images = grid(80)
    planted = plant(labels, images, len(NAMES), np.random.default_rng(3))
    made = planted.labels
    made = labels_of(made.image, made.boxes_xyxy, made.label)
    coco = write_coco(tmp_path / "labels.json", made, len(images))
    return coco, write_results(tmp_path / "results.json", evidence), planted


def test_audit_of_a_coco_file_without_a_run(audit, tmp_path):
    labels, results, planted = audit
    answer = CliRunner().invoke(
        cli, ["noise", "--labels", str(labels), "--evidence", str(results), "--json"], catch_exceptions=False
    )
    assert answer.exit_code == 0
    said = json.loads(answer.stdout)
    folder = tmp_path / "labels.noise"
    assert said["folder"] == str(folder)
    issues = read_issues(folder)
    assert [issue.quality for issue in issues] == sorted(issue.quality for issue in issues)
    assert all(0 <= issue.quality <= 1 and issue.reason for issue in issues)
    swapped = {str(row) for row in np.flatnonzero(planted.kind == SWAPPED)}
    flagged = {issue.annotation_id for issue in issues if issue.kind in ("swap", "label") and issue.flagged}
    assert len(swapped & flagged) > 0.6 * len(swapped)
    suggested = [i.suggested_label for i in issues if i.kind == "swap" and i.flagged]
    assert set(suggested) <= set(NAMES)
    assert all(i.box is not None and i.annotation_id is None for i in issues if i.kind == "overlooked")
    table = read_quality(folder)
    assert table.num_rows == len(planted.labels)
    notes = read_notes(folder)
    assert notes is not None
    assert set(notes["reliability"]) >= {"evidence", "label"}
    assert any("pictures were not read" in note for note in notes["notes"])


def test_the_same_pass_gives_the_same_issues(audit, tmp_path):
    labels, results, _ = audit
    for name in ("a", "b"):
        find_noise(None, labels, [results], out=tmp_path / name, options=NO_IMAGES)
    assert read_issues(tmp_path / "a") == read_issues(tmp_path / "b")


def test_a_run_is_judged_by_its_other_opinion(make_run):
    run = make_run(count=40)
    result = find_noise(run, options=NO_IMAGES)
    assert result.labels == sum(len(item.annotations) for item in run)
    assert read_notes(run.path) is not None
    assert run.issues() == read_issues(run.path)
    assert any("judged by detector" in note for note in result.notes)
    # These models agree on everything, so nothing may be called a wrong label.
    assert "label" not in result.flagged


def test_issues_stand_until_labels_change(make_run, audit):
    """A run that has not changed is not judged again; an audit of other labels is never replaced."""
    run = make_run(count=6)
    assert not up_to_date(run)
    find_noise(run, options=NO_IMAGES)
    assert up_to_date(run)
    item = next(item for item in run if item.annotations)
    gone = item.annotations[0]
    decision = Correction("deleted", item.image.path, item.image.id, gone.id, before_box=gone.box, source="test")
    write_decisions(run.path, "test", [decision])
    assert not up_to_date(Run.open(run.path))
    find_noise(Run.open(run.path), options=NO_IMAGES)
    assert up_to_date(Run.open(run.path))
    # As many decisions, but others.
    write_decisions(run.path, "test", [replace(decision, action="accepted", label=gone.label, box=gone.box)])
    assert not up_to_date(Run.open(run.path))
    path = run.path / "people.json"
    path.write_text(json.dumps(run.to_coco()))
    find_noise(run, path, options=NO_IMAGES)
    assert up_to_date(Run.open(run.path))


def test_a_tiny_run_says_that_it_is_too_small(make_run):
    result = find_noise(make_run(count=2), options=NO_IMAGES)
    assert any("too few" in note for note in result.notes)


def test_labels_against_a_run(make_run, tmp_path):
    """The one label that is gone is the one place where something was overlooked."""
    run = make_run(count=20)
    coco = run.to_coco()
    coco["annotations"] = coco["annotations"][1:]
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(coco))
    result = find_noise(run, path, out=tmp_path / "out", options=NO_IMAGES)
    assert result.labels == len(coco["annotations"])
    overlooked = [issue for issue in read_issues(tmp_path / "out") if issue.kind == "overlooked"]
    assert len(overlooked) == 1
    assert overlooked[0].quality < 0.8
    assert any("too few to learn from" in note for note in result.notes)
    assert overlooked[0].path in {image.path for image in run.images()}
    assert not run.issues()


def test_what_the_labels_do_not_know_of_was_not_overlooked(make_run, tmp_path):
    """Images and classes that a file does not list are no gaps in it."""
    run = make_run(count=10)
    coco = run.to_coco()
    left = coco["images"][0]["id"]
    scratch = next(one["id"] for one in coco["categories"] if one["name"] == "scratch")
    coco["images"] = coco["images"][1:]
    coco["categories"] = [one for one in coco["categories"] if one["id"] == scratch]
    coco["annotations"] = [o for o in coco["annotations"] if o["image_id"] != left and o["category_id"] == scratch]
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(coco))
    find_noise(run, path, out=tmp_path / "out", options=NO_IMAGES)
    assert not [issue for issue in read_issues(tmp_path / "out") if issue.kind == "overlooked"]


def test_peoples_decisions_are_not_judged(make_run):
    run = make_run(count=12)
    item = next(item for item in run if item.annotations)
    mine, image = item.annotations[0], item.image
    wrong = "dent" if mine.label == "scratch" else "scratch"
    at = "2026-01-01T00:00:00+00:00"
    decided = Correction("edited", image.path, image.id, mine.id, wrong, mine.box, before_label=mine.label, at=at)
    write_decisions(run.path, "test", [decided, Review("complete", image.path, image.id, at=at)])
    again = type(run)(run.path)
    result = find_noise(again, options=NO_IMAGES)
    assert any("people's decisions" in note for note in result.notes)
    assert not [issue for issue in again.issues() if issue.annotation_id == mine.id]
    find_noise(again, options=NoiseOptions(people=True, images=False))
    assert [i for i in again.issues() if i.annotation_id == mine.id and i.suggested_label == mine.label]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["annotations"][0].update(category_id=99), "category_id 99"),
        (lambda d: d["annotations"][0].update(image_id=99_999), "image_id 99999"),
        (lambda d: d["annotations"][0].update(bbox=[1, 2, 3]), "bbox must be four"),
        (lambda d: d["annotations"][0].update(bbox=[1, 2, -3, 4]), "bbox must be four"),
        (lambda d: d["annotations"][1].update(id=d["annotations"][0]["id"]), "given twice"),
        (lambda d: d.pop("categories"), "has no categories"),
        (lambda d: d["images"][0].pop("file_name"), "needs id and file_name"),
    ],
)
def test_malformed_labels_are_named(audit, change, message):
    labels, results, _ = audit
    data = json.loads(labels.read_text())
    change(data)
    labels.write_text(json.dumps(data))
    with pytest.raises(UsageError, match=message):
        find_noise(None, labels, [results], options=NO_IMAGES)


def test_malformed_evidence_is_named(audit, tmp_path):
    labels, _, _ = audit
    bad = tmp_path / "bad.json"
    for text, message in (
        ("{}", "not COCO results"),
        ("nonsense", "cannot read evidence"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1.5}]', "score must be in"),
        ('[{"image_id": 77777, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]', "no detection"),
    ):
        bad.write_text(text)
        with pytest.raises(UsageError, match=message):
            find_noise(None, labels, [bad], options=NO_IMAGES)


def test_labels_that_do_not_fit_the_run(make_run, audit):
    labels, results, _ = audit
    run = make_run(count=3)
    with pytest.raises(UsageError, match="px in the run"):
        find_noise(run, labels, options=NO_IMAGES)
    data = json.loads(labels.read_text())
    data["images"] = [{**image, "width": 64, "height": 48} for image in data["images"]]
    data["categories"] = [{**c, "name": f"other {c['id']}"} for c in data["categories"]]
    labels.write_text(json.dumps(data))
    with pytest.raises(UsageError, match="is a class of the run"):
        find_noise(run, labels, options=NO_IMAGES)
    data["images"] = [{**image, "file_name": f"elsewhere-{image['id']}.png"} for image in data["images"]]
    labels.write_text(json.dumps(data))
    with pytest.raises(UsageError, match="no image of"):
        find_noise(run, labels, options=NO_IMAGES)
    with pytest.raises(UsageError, match="labels alone"):
        find_noise(None, labels, options=NO_IMAGES)
    with pytest.raises(UsageError, match="ids of another file"):
        find_noise(run, None, [results], options=NO_IMAGES)


def test_a_second_look_that_cannot_be_taken_is_said_or_refused(make_run):
    """Left to itself the pass goes on without; asked for by name it is an error."""
    run = make_run(count=3)
    answer = CliRunner().invoke(cli, ["noise", str(run.path), "--skip-images"])
    assert answer.exit_code == 0, answer.output
    assert "no second look" in answer.output
    assert "fake:squares" in answer.output
    answer = CliRunner().invoke(cli, ["noise", str(run.path), "--skip-images", "--second-look", "on"])
    assert answer.exit_code == 1
    answer = CliRunner().invoke(cli, ["noise", str(run.path), "--skip-images", "--second-look", "off"])
    assert "fake:squares" not in answer.output
