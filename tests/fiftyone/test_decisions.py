"""What a reviewer decides in a real FiftyOne with a real database, and how it comes back into the run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import autolabel
from autolabel import runner
from autolabel.cli import cli
from autolabel.corrections import read_decisions, write_decisions
from autolabel.errors import UsageError
from autolabel.issues import write_issues
from autolabel.types import Box, Correction, Review
from tests.fiftyone.sessions import apply, issues_of, labels_of, refresh, region
from tests.test_boxes import InnerSegmenter


def test_tags_come_back_as_decisions_that_stand(fiftyone, reviewer, run, dataset):
    two, one = (dataset.match(fiftyone.ViewField("annotation_count") == count).values("path") for count in (2, 1))
    a, b, c = *two[:2], one[0]
    by_path = {sample.path: sample for sample in dataset}
    region(by_path[a], "scratch").tags.append("reject")
    region(by_path[a], "dent").tags += ["accept", "mine"]
    region(by_path[b], "scratch").tags.append("relabel:dent")
    by_path[c].tags.append("reviewed")
    for path in (a, b, c):
        by_path[path].save()

    preview = apply(reviewer, run, dry_run=True)
    assert preview.counts == {"deleted": 1, "accepted": 2, "edited": 1, "reviewed": 1}
    assert read_decisions(run.path) == []
    report = apply(reviewer, run)
    assert (report.counts, report.warnings) == (preview.counts, ())
    assert labels_of(run, a) == [("dent", "human")]
    assert labels_of(run, b) == [("dent", "human"), ("dent", "model")]
    assert labels_of(run, c) == [("scratch", "human")]
    decisions = read_decisions(run.path, "fiftyone")
    assert {d.by for d in decisions} == {"ann"}
    assert len({d.at for d in decisions}) == 1
    assert [d.state for d in decisions if isinstance(d, Review)] == ["complete"]

    dataset.reload()
    assert dataset.count_sample_tags() == {}
    assert dataset.count_label_tags() == {"mine": 1}
    sample = dataset.match(fiftyone.ViewField("path") == c).first()
    assert (sample.review, sample.reviewed_by, sample.human_count) == ("reviewed", "ann", 1)
    assert dataset.load_saved_view("reviewed").values("path") == [c]
    assert dataset.count("annotations.detections") == sum(
        len(item.annotations) for item in autolabel.Run.open(run.path)
    )
    # Again: nothing new, nothing lost, and a later pass of the models overwrites none of it.
    assert apply(reviewer, run).counts == {}
    assert read_decisions(run.path, "fiftyone") == decisions
    settled = runner.resolve_run(autolabel.Run.open(run.path), {"thresholds": {"min_score": 0.99}})
    assert settled.manifest.counts["annotations"] == 0
    assert labels_of(run, b) == [("dent", "human")]
    assert labels_of(run, c) == [("scratch", "human")]


def test_edits_come_back_through_fiftyones_own_objects(fiftyone, reviewer, run, dataset):
    """As the app saves them: the whole sample is written anew, every mask packed again."""
    sample = dataset.match(fiftyone.ViewField("annotation_count") == 2).first()
    path = sample.path
    before = run[path].annotations
    moved, _ = sample.annotations.detections
    moved.bounding_box = [moved.bounding_box[0] + 4 / 64, *moved.bounding_box[1:]]
    sample.annotations.detections = [
        moved,
        fiftyone.Detection(label="dent", bounding_box=[0.5, 0.75, 0.25, 0.25], mask=np.ones((3, 4), bool)),
    ]
    sample.save()
    untouched = dataset.match(fiftyone.ViewField("annotation_count") == 1).first()
    untouched.set_field("annotations", untouched.annotations)
    untouched.save()
    assert apply(reviewer, run).counts == {"edited": 1, "deleted": 1, "added": 1}
    edited, added = autolabel.Run.open(run.path)[path].annotations
    assert edited.id == before[0].id
    assert edited.box.x_min == pytest.approx(before[0].box.x_min + 4)
    assert np.array_equal(edited.mask.decode(), np.roll(before[0].mask.decode(), 4, axis=1))
    assert (added.label, added.origin, added.box) == ("dent", "human", Box(32, 36, 48, 48))
    assert added.mask.area == 16 * 12
    dataset.reload()
    shown = dataset.match(fiftyone.ViewField("path") == path).first().annotations.detections
    assert [region.annotation_id for region in shown] == [edited.id, added.id]
    assert {region.origin for region in shown} == {"human"}
    assert apply(reviewer, run).counts == {}


def test_a_refresh_keeps_what_is_not_applied_yet(fiftyone, reviewer, run, dataset):
    write_issues(run.path, issues_of(run), {})
    path = list(run.images())[1].path
    sample = dataset.match(fiftyone.ViewField("path") == path).first()
    sample.annotations.detections[0].tags.append("reject")
    sample.save()
    report = refresh(reviewer, run)
    assert report.counts["kept"] == 1
    assert any("--apply" in warning for warning in report.warnings)
    sample.reload()
    assert sample.annotations.detections[0].tags == ["reject"]
    assert apply(reviewer, run).counts == {"deleted": 1}
    assert refresh(reviewer, run).counts == {"unchanged": 6}


@pytest.mark.parametrize("boxes", [("detector", "mask"), ("mask", "detector")])
def test_other_boxes_between_opening_and_applying_are_nobodys_edits(fiftyone, reviewer, make_run, boxes):
    opened, later = boxes
    run = make_run(6, segmenter=InnerSegmenter(), thresholds={"boxes": opened})
    dataset = fiftyone.load_dataset(refresh(reviewer, run).dataset)
    sample = dataset.match(fiftyone.ViewField("annotation_count") == 2).first()
    path, shown = sample.path, run[sample.path].annotations
    sample.tags.append("reviewed")
    sample.save()
    settled = runner.resolve_run(run, {"thresholds": {"boxes": later}})
    assert settled[path].annotations[0].box != shown[0].box
    assert apply(reviewer, settled).counts == {"accepted": 2, "reviewed": 1}
    after = autolabel.Run.open(run.path)[path].annotations
    assert {a.origin for a in after} == {"human"}
    assert [a.box.xyxy for a in after] == [pytest.approx(a.box.xyxy) for a in shown]
    assert [a.mask for a in after] == [a.mask for a in shown]
    assert apply(reviewer, settled).counts == {}


def test_decisions_of_earlier_sessions_and_other_tools_are_kept(fiftyone, reviewer, run, dataset):
    items = list(run)
    theirs = Correction("deleted", items[0].image.path, items[0].image.id, items[0].annotations[0].id, at="2020")
    write_decisions(run.path, "cvat", [theirs])
    for number in (1, 2):
        sample = dataset.match(fiftyone.ViewField("path") == items[number].image.path).first()
        sample.annotations.detections[0].tags.append("accept")
        sample.save()
        apply(reviewer, run)
    assert len(read_decisions(run.path, "fiftyone")) == 2
    assert read_decisions(run.path, "cvat") == [replace(theirs, source="cvat")]


def test_undo_withdraws_what_was_decided_here(fiftyone, reviewer, run, dataset):
    sample = dataset.match(fiftyone.ViewField("annotation_count") == 2).first()
    before = labels_of(run, sample.path)
    sample.annotations.detections[0].tags.append("relabel:burr")
    sample.annotations.detections[1].tags.append("reject")
    sample.tags.append("reviewed")
    sample.save()
    report = apply(reviewer, run)
    assert any("new class" in warning for warning in report.warnings)
    assert labels_of(run, sample.path) == [("burr", "human")]
    dataset.reload()
    assert "class: burr" in dataset.list_saved_views()
    sample.reload()
    sample.annotations.detections[0].tags.append("undo")
    sample.save()
    assert apply(reviewer, run).counts == {"undone": 1}
    sample.reload()
    sample.tags.append("undo")
    sample.save()
    assert apply(reviewer, run).counts == {"undone": 2}
    assert labels_of(run, sample.path) == before
    assert read_decisions(run.path) == []


def test_what_cannot_be_done_stays_in_the_app_and_is_told(fiftyone, reviewer, run, dataset):
    sample = dataset.match(fiftyone.ViewField("annotation_count") == 2).first()
    region(sample, "scratch").tags += ["accept", "reject"]
    region(sample, "dent").tags.append("accept")
    sample.annotations.detections.append(fiftyone.Detection(bounding_box=[0.1, 0.1, 0.2, 0.2]))
    sample.tags.append("reviewed")
    sample.save()
    report = apply(reviewer, run)
    assert report.counts == {"accepted": 1}
    assert len(report.warnings) == 3
    sample.reload()
    assert sample.tags == ["reviewed"]
    assert region(sample, "scratch").tags == ["accept", "reject"]
    assert region(sample, "dent").tags == []
    region(sample, "scratch").tags = ["accept"]
    region(sample, None).label = "dent"
    sample.save()
    assert apply(reviewer, run).counts == {"accepted": 1, "added": 1, "reviewed": 1}


def test_answered_issues_are_not_asked_again(fiftyone, reviewer, run, dataset):
    write_issues(run.path, issues_of(run)[:3], {"at": "2020-01-01T00:00:00+00:00"})
    refresh(reviewer, run)
    dataset.reload()
    for sample in dataset.match(fiftyone.ViewField("flagged_count") > 0):
        for found in sample.annotations.detections:
            found.tags.append("accept")
        for found in sample.doubts.detections:
            found.tags.append("reject")
        sample.save()
    apply(reviewer, run)
    dataset.reload()
    assert dataset.values("flagged_count") == [0] * 6
    assert dataset.count("doubts.detections") == 0
    # A pass after the decisions may doubt them again.
    write_issues(run.path, issues_of(run)[:3], {"at": "2099-01-01T00:00:00+00:00"})
    refresh(reviewer, run)
    dataset.reload()
    assert sum(dataset.values("flagged_count")) == 2


def test_delete_removes_the_dataset_and_not_what_was_applied(fiftyone, reviewer, run, dataset):
    sample = dataset.first()
    sample.tags.append("skip")
    sample.save()
    apply(reviewer, run)
    assert reviewer.delete(run) == run.name
    assert fiftyone.list_datasets() == []
    assert reviewer.delete(run) is None
    assert len(read_decisions(run.path)) == 1
    with pytest.raises(UsageError, match="never opened"):
        apply(reviewer, run)
    assert refresh(reviewer, run).counts["added"] == 6


def test_the_command_line(fiftyone, run):
    def call(*args: str):
        return CliRunner().invoke(cli, ["review", str(run.path), *args])

    made = call("--no-app", "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["counts"]["added"] == 6
    sample = fiftyone.load_dataset(run.name).match(fiftyone.ViewField("annotation_count") == 1).first()
    sample.annotations.detections[0].tags.append("reject")
    sample.save()
    told = json.loads(call("--apply", "--dry-run", "--json").stdout)
    assert told["changes"] == [{"what": "deleted", "path": sample.path, "detail": "scratch"}]
    applied = call("--apply", "--by", "eve")
    assert "1 deleted came back" in applied.output
    assert read_decisions(run.path)[0].by == "eve"
    assert "nothing new" in call("--apply").output
    assert isinstance(call("--dry-run").exception, UsageError)
    assert isinstance(call("--apply", "--delete").exception, UsageError)
    assert run.name in call("--delete").output
