"""``autolabel review`` on a real FiftyOne with a real database."""

from __future__ import annotations

import json
import shutil
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
from autolabel.reviewing import RefreshOptions, load_reviewer
from autolabel.types import Box, Correction, LabelIssue, Review
from tests.conftest import write_pictures


@pytest.fixture
def reviewer(fiftyone):
    return load_reviewer()


@pytest.fixture
def run(make_run):
    return make_run(6)


def quiet(*_):
    pass


def refresh(reviewer, run, **options):
    return reviewer.refresh(autolabel.Run.open(run.path), RefreshOptions(**options), quiet)


def apply(reviewer, run, **options):
    return reviewer.apply(autolabel.Run.open(run.path), **{"by": "ann", "dry_run": False, "on_step": quiet, **options})


def labels_of(run, path: str) -> list[tuple[str, str]]:
    return [(a.label, a.origin) for a in autolabel.Run.open(run.path)[path].annotations]


def region(sample, label: str):
    """The one region of a class."""
    (found,) = [region for region in sample.annotations.detections if region.label == label]
    return found


def issues_of(run) -> list[LabelIssue]:
    first, second, third = list(run)[:3]
    bad = second.annotations[0]
    return [
        LabelIssue("label", second.image.path, second.image.id, 0.1, True, "looks like a dent", bad.id, "dent"),
        LabelIssue("label", first.image.path, first.image.id, 0.8, False, "fine", first.annotations[0].id),
        LabelIssue(
            "overlooked", third.image.path, third.image.id, 0.2, True, "missed", None, "dent", Box(1, 30, 9, 40)
        ),
        LabelIssue(
            "near-duplicate", first.image.path, first.image.id, 0.05, True, "alike", related=(third.image.path,)
        ),
        LabelIssue("label", first.image.path, first.image.id, 0.3, True, "gone", "no such annotation"),
    ]


@pytest.fixture
def dataset(fiftyone, reviewer, run):
    return fiftyone.load_dataset(refresh(reviewer, run).dataset)


def test_a_run_is_shown_whole_and_nothing_is_copied(fiftyone, run, dataset):
    assert (dataset.name, dataset.persistent, dataset.media_type) == (run.name, True, "image")
    for item, sample in zip(run, dataset.sort_by("path"), strict=True):
        assert sample.filepath == str(run.local_path(item.image).absolute())
        assert (sample.path, sample.image_id, sample.review) == (item.image.path, item.image.id, "todo")
        assert (sample.metadata.width, sample.metadata.height) == (item.image.width, item.image.height)
        assert (sample.annotation_count, sample.human_count) == (len(item.annotations), 0)
        for annotation, region in zip(item.annotations, sample.annotations.detections, strict=True):
            assert (region.annotation_id, region.label, region.origin) == (annotation.id, annotation.label, "model")
            assert region.confidence == pytest.approx(annotation.score)
            x, y, width, height = np.array(region.bounding_box) * [64, 48, 64, 48]
            assert (x, y, x + width, y + height) == pytest.approx(annotation.box.xyxy)
            assert region.mask.all()
            assert (region.detector_label, region.classifier_label) == (annotation.label, annotation.label)
            assert region.detector_score == pytest.approx(max(annotation.phrase_scores))
            assert region.classifier_prob == pytest.approx(max(annotation.class_probs))
            assert region.disagree is False
            assert region.uncertainty == pytest.approx(1 - np.ptp(annotation.class_probs), abs=1e-6)
    assert not list((run.path / "review").glob("images/*"))


def test_what_is_written_is_what_fiftyone_would_write(fiftyone, dataset):
    """The documents are made by hand for speed; FiftyOne's own round trip must leave them as they are."""
    collection = dataset._sample_collection
    for sample in dataset:
        stored = collection.find_one({"_id": sample._id})
        by_fiftyone = sample.to_mongo_dict(include_id=True)
        for region in by_fiftyone["annotations"]["detections"]:
            region["mask"] = fiftyone.core.utils.deserialize_numpy_array(region["mask"]).tolist()
        for region in stored["annotations"]["detections"]:
            region["mask"] = fiftyone.core.utils.deserialize_numpy_array(region["mask"]).tolist()
        assert without_nones(by_fiftyone) == without_nones(stored)
    twin = fiftyone.Dataset("twin")
    first = dataset.first()
    twin.add_sample(fiftyone.Sample(filepath=first.filepath, annotations=first.annotations.copy()))
    native, ours = twin._sample_collection.find_one(), collection.find_one({"_id": first._id})
    assert set(native) - set(ours) == set()
    assert {k: type(v) for k, v in native.items()} == {k: type(ours[k]) for k in native}
    assert set(native["annotations"]["detections"][0]) == set(ours["annotations"]["detections"][0])


def without_nones(value):
    if isinstance(value, dict):
        return {key: without_nones(inner) for key, inner in value.items() if inner is not None}
    return [without_nones(inner) for inner in value] if isinstance(value, list) else value


def test_opening_twice_makes_one_dataset_and_writes_nothing(fiftyone, reviewer, run, dataset):
    before = list(dataset._sample_collection.find())
    assert refresh(reviewer, run).counts == {"unchanged": 6}
    assert fiftyone.list_datasets() == [run.name]
    assert list(dataset._sample_collection.find()) == before


def test_issues_are_shown_with_their_views(fiftyone, reviewer, run, dataset):
    write_issues(run.path, issues_of(run), {})
    report = refresh(reviewer, run)
    assert report.counts == {"added": 0, "updated": 3, "unchanged": 3, "removed": 0, "kept": 0}
    assert any("does not have" in warning for warning in report.warnings)
    first, second, third = (image.path for image in list(run.images())[:3])
    dataset.reload()
    suspect = dataset.match(fiftyone.ViewField("path") == second).first()
    region = suspect.annotations.detections[0]
    assert (region.flagged, region.kind, region.suggested_label, region.reason) == (
        True,
        "label",
        "dent",
        "looks like a dent",
    )
    assert (region.quality, region.issues) == (pytest.approx(0.1), ["label"])
    assert (suspect.worst_quality, suspect.issue_kinds, suspect.flagged_count) == (pytest.approx(0.1), ["label"], 1)
    doubt = dataset.match(fiftyone.ViewField("path") == third).first().doubts.detections[0]
    assert (doubt.label, doubt.kind) == ("dent", "overlooked")
    assert np.multiply(doubt.bounding_box, [64, 48, 64, 48]) == pytest.approx([1, 30, 8, 10])

    def shown(name: str) -> list[str]:
        return dataset.load_saved_view(name).values("path")

    assert shown("noisiest first") == [first, second, third]
    assert shown("to review")[:3] == [first, second, third]
    assert shown("issue: label") == [second]
    assert shown("overlooked") == [third]
    assert shown("duplicates") == [first, third]
    assert shown("issue: near-duplicate") == [first]
    assert shown("class: dent") == [
        path for path in dataset.values("path") if ("dent", "model") in labels_of(run, path)
    ]
    assert shown("models disagree") == shown("reviewed") == shown("skipped") == shown("uncertain") == []
    patches = dataset.load_saved_view("suspects (patches)")
    assert patches.values("annotations.annotation_id") == [region.annotation_id]
    write_issues(run.path, [], {})
    refresh(reviewer, run)
    dataset.reload()
    assert "issue: label" not in dataset.list_saved_views()
    assert dataset.count("doubts.detections") == 0


def test_a_reviewers_own_tags_views_and_fields_survive_a_refresh(fiftyone, reviewer, run, dataset):
    sample = dataset.match(fiftyone.ViewField("annotation_count") == 2).first()
    sample.tags.append("ask bob")
    sample.annotations.detections[0].tags.append("odd")
    sample.annotations.detections[0]["note"] = "look at the edge"
    sample["weather"] = "rain"
    sample.save()
    dataset.save_view("mine", dataset.limit(1))
    write_issues(run.path, issues_of(run), {})
    write_decisions(run.path, "cvat", [Review("complete", sample.path, sample.image_id, at="2099")])
    refresh(reviewer, run)
    dataset.reload()
    sample.reload()
    assert (sample.tags, sample["weather"], sample.review) == (["ask bob"], "rain", "reviewed")
    assert dataset.list_saved_views().count("mine") == 1
    # On an image that somebody else reviewed as complete, only what people left remains.
    assert sample.annotations.detections == []


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


def test_images_that_come_and_go(fiftyone, reviewer, run, dataset, models):
    write_pictures(run.local_path(next(run.images())).parent, 8)
    grown = autolabel.run(path=run.path, prompt="scratch. dent.", **models)
    counts = refresh(reviewer, grown).counts
    assert (counts["added"], len(grown)) == (2, 8)
    dataset.reload()
    assert len(dataset) == 8
    dataset.delete_samples(dataset.limit(3))
    assert refresh(reviewer, grown).counts["added"] == 3


def test_limit_takes_the_most_doubtful_and_never_drops_what_is_there(fiftyone, reviewer, run):
    write_issues(run.path, issues_of(run), {})
    name = refresh(reviewer, run, limit=2).dataset
    paths = [image.path for image in run.images()]
    assert sorted(fiftyone.load_dataset(name).values("path")) == paths[:2]
    assert refresh(reviewer, run, limit=4).counts["added"] == 2
    assert refresh(reviewer, run, limit=1).counts["removed"] == 0
    assert refresh(reviewer, run).counts["added"] == 2


def test_every_run_has_a_dataset_of_its_own(fiftyone, reviewer, run, dataset, tmp_path):
    fiftyone.Dataset("other", persistent=True)
    shutil.copytree(run.path, tmp_path / "other")
    copied = refresh(reviewer, autolabel.Run.open(tmp_path / "other"))
    assert copied.dataset not in ("other", run.name)
    assert len(fiftyone.load_dataset(copied.dataset)) == 6
    moved = tmp_path / "moved"
    shutil.move(run.path, moved)
    assert refresh(reviewer, autolabel.Run.open(moved)).dataset == dataset.name
    nameless = tmp_path / "刮痕"
    shutil.copytree(moved, nameless)
    assert len(fiftyone.load_dataset(refresh(reviewer, autolabel.Run.open(nameless)).dataset)) == 6


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


def test_classes_of_any_script_have_views(fiftyone, reviewer, make_run):
    run = make_run(2, prompt="scratch. 刮痕. dent.")
    dataset = fiftyone.load_dataset(refresh(reviewer, run).dataset)
    assert sum(name.startswith("class: ") for name in dataset.list_saved_views()) == 3
    assert dataset.label_schemas["annotations"]["classes"] == ["scratch", "刮痕", "dent"]
    assert dataset.active_label_schemas == ["annotations"]


def test_the_embeddings_have_a_map(fiftyone, reviewer, run, dataset):
    results = dataset.load_brain_results("regions")
    assert results.points.shape == (dataset.count("annotations.detections"), 2)
    assert set(results.label_ids) == set(map(str, dataset.values("annotations.detections.id", unwind=True)))


def test_formats_that_browsers_do_not_show_are_converted(fiftyone, reviewer, workspace, models):
    from PIL import Image

    write_pictures(workspace / "images", 2)
    Image.open(workspace / "images" / "000.png").save(workspace / "images" / "z.tif")
    run = autolabel.run(prompt="scratch. dent.", **models)
    dataset = fiftyone.load_dataset(refresh(reviewer, run).dataset)
    shown = dict(zip(dataset.values("path"), dataset.values("filepath"), strict=True))
    tif = next(path for path in shown if path.endswith("z.tif"))
    assert shown[tif].startswith(str(run.path.absolute() / "review" / "images"))
    with Image.open(shown[tif]) as image:
        assert image.size == (64, 48)


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
