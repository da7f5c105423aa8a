"""A run in a real FiftyOne with a real database: what is shown, and how it stays up to date."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import autolabel
from autolabel.corrections import write_decisions
from autolabel.issues import write_issues
from autolabel.types import Review
from tests.conftest import write_pictures
from tests.fiftyone.sessions import issues_of, labels_of, refresh


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
