from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import autolabel
from autolabel.errors import ConfigError, StoreError, UsageError
from autolabel.execute import Progress
from autolabel.export import export_run
from autolabel.runner import default_inputs, resolve_run
from autolabel.store import RunFolder
from autolabel.types import RGB, Detections, Float, Mask, ModelInfo, Segments
from tests.conftest import Models, write_pictures
from tests.fakes import BoxSegmenter, ColourClassifier, SquareDetector, picture

ROOT = Path(__file__).parents[1]


def labels(run: autolabel.Run) -> dict[str, list[str]]:
    return {item.image.path: [a.label for a in item.annotations] for item in run}


def coco_bytes(run: autolabel.Run, folder: Path) -> bytes:
    export_run(run, "coco", folder)
    return (folder / "annotations.json").read_bytes()


def test_a_folder_without_images_is_an_error(workspace: Path, models: Models) -> None:
    (workspace / "images").mkdir()
    with pytest.raises(UsageError, match="holds no image"):
        autolabel.run(prompt="scratch.", **models)
    assert not (workspace / "runs").exists()


def test_images_come_from_the_argument_the_recipe_the_images_folder_or_here(workspace: Path) -> None:
    recipe = autolabel.Recipe(prompt="dent.", images=("shelf",))
    assert default_inputs(autolabel.Recipe()) == (".",)
    (workspace / "images").mkdir()
    assert default_inputs(autolabel.Recipe()) == ("images",)
    assert default_inputs(recipe) == ("shelf",)
    assert default_inputs(recipe, "a") == ("a",)
    assert default_inputs(recipe, ["a", Path("b")]) == ("a", "b")
    assert default_inputs(recipe, ()) == ("shelf",)


def test_a_run_labels_every_image_and_keeps_both_opinions(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 6)
    run = autolabel.run(prompt="scratch. dent.", **models)
    assert run.manifest.status == "done"
    assert {path: sorted(names) for path, names in labels(run).items()} == {
        "000.png": ["scratch"],
        "001.png": ["dent", "scratch"],
        "002.png": ["scratch"],
        "003.png": ["dent", "scratch"],
        "004.png": [],
        "005.png": ["dent", "scratch"],
    }
    annotation = run["000.png"].annotations[0]
    assert annotation.box.xyxy == (2, 3, 12, 13)
    assert annotation.score == pytest.approx(0.4 + 100 / 64 / 48)
    assert annotation.phrase_scores == pytest.approx((annotation.score, 0.05))
    assert annotation.class_probs == pytest.approx((0.9, 0.1))
    assert annotation.mask is not None
    assert annotation.mask.area == 100
    assert run.manifest.counts == {"images": 6, "labelled": 6, "failed": 0, "annotations": 8}
    assert run.manifest.labels == {"scratch": 5, "dent": 3}


def test_images_without_boxes_cost_no_mask_and_no_crop(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 5)
    autolabel.run(prompt="scratch. dent.", **models)
    assert {task: sum(sizes) for task, sizes in models.calls().items()} == {
        "detector": 5,
        "segmenter": 4,
        "classifier": 4,
    }


def test_the_same_call_again_calls_no_model_and_changes_nothing(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 6)
    first = autolabel.run(prompt="scratch. dent.", **models)
    before = {p: p.read_bytes() for p in first.path.rglob("*.parquet")}
    calls = models.calls()
    second = autolabel.run(prompt="scratch. dent.", **models)
    assert second.path == first.path
    assert models.calls() == calls
    assert {p: p.read_bytes() for p in second.path.rglob("*.parquet")} == before


def test_new_images_are_added_to_the_run(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 3)
    first = autolabel.run(prompt="scratch. dent.", **models)
    ids = {a.id for item in first for a in item.annotations}
    write_pictures(workspace / "images", 6)
    second = autolabel.run(prompt="scratch. dent.", **models)
    assert models.calls()["detector"] == [3, 3]
    assert list(labels(second)) == [f"{n:03d}.png" for n in range(6)]
    assert ids < {a.id for item in second for a in item.annotations}


def test_a_changed_image_is_labelled_again_and_replaces_the_old_one(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 4)
    autolabel.run(prompt="scratch. dent.", **models)
    Image.fromarray(picture(("dent", 5, 5, 20))).save(workspace / "images" / "000.png")
    run = autolabel.run(prompt="scratch. dent.", **models)
    assert models.calls()["detector"] == [4, 1]
    assert len(run) == 4
    assert labels(run)["000.png"] == ["dent"]
    assert run.manifest.labels == {"scratch": 3, "dent": 3}
    assert run.manifest.counts["annotations"] == sum(len(names) for names in labels(run).values())


def test_a_changed_threshold_calls_no_model(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 6)
    first = autolabel.run(prompt="scratch. dent.", **models)
    calls = models.calls()
    stricter = autolabel.run(prompt="scratch. dent.", thresholds={"min_score": 0.43}, **models)
    assert models.calls() == calls
    assert stricter.path == first.path
    assert stricter.manifest.rejects == {"low_score": 1}
    again = autolabel.run(prompt="scratch. dent.", **models)
    assert models.calls() == calls
    assert labels(again) == labels(first)


def test_resolving_a_finished_run_equals_running_with_those_thresholds(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 9)
    run = autolabel.run(prompt="scratch. dent.", path="a", **models)
    resolved = resolve_run(run, {"thresholds": {"min_score": 0.43}, "assign": "detector"})
    for task in ("detector", "segmenter", "classifier"):
        assert resolved.manifest.resolved[task] == run.manifest.resolved[task] is not None
    other = autolabel.run(
        prompt="scratch. dent.", path="b", thresholds={"min_score": 0.43}, assign="detector", **Models()
    )
    assert labels(resolved) == labels(other)
    assert coco_bytes(resolved, workspace / "x") == coco_bytes(other, workspace / "y")
    assert resolved.manifest.assign == "detector"


def test_a_threshold_below_what_is_stored_needs_the_detector(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 2)
    run = autolabel.run(prompt="scratch. dent.", **models)
    with pytest.raises(ConfigError, match=r"min_score 0.02 is below 0.1, the lowest score this run has stored"):
        resolve_run(run, {"thresholds": {"min_score": 0.02}})
    autolabel.run(prompt="scratch. dent.", thresholds={"min_score": 0.02}, **models)
    assert models.calls()["detector"] == [2, 2]


def test_what_was_stored_under_a_lower_floor_serves_a_higher_one(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 4)
    low = autolabel.run(prompt="scratch. dent.", thresholds={"min_score": 0.02}, **models)
    high = autolabel.run(prompt="scratch. dent.", **models)
    assert models.calls()["detector"] == [4]
    assert high.path == low.path
    assert high.manifest.resolved["floor"] == 0.02


class MaskingDetector(SquareDetector):
    """Brings an empty mask for each box."""

    def predict_batch(self, images: Sequence[RGB], phrases: Sequence[str], min_score: float) -> list[Detections]:
        found = super().predict_batch(images, phrases, min_score)
        empty = [Mask.encode(np.zeros(image.shape[:2], np.bool_)) for image in images]
        return [replace(d, masks=(mask,) * len(d.boxes_xyxy)) for d, mask in zip(found, empty, strict=True)]


def test_a_detector_that_segments_is_not_asked_twice(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 3)
    autolabel.run(prompt="scratch.", path="run", **models)
    run = autolabel.run(prompt="scratch. dent.", path="run", **{**models, "detector": MaskingDetector()})
    assert models.calls()["segmenter"] == [3]
    assert {annotation.mask.area for item in run for annotation in item.annotations if annotation.mask} == {0}
    fresh = autolabel.run(prompt="scratch. dent.", path="fresh", **{**models, "detector": MaskingDetector()})
    assert models.calls()["segmenter"] == [3]
    assert labels(fresh) == labels(run)


class OtherClassifier(ColourClassifier):
    def __init__(self) -> None:
        super().__init__()
        self.info = ModelInfo("fake:other")


def test_another_classifier_keeps_boxes_and_masks(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 4)
    autolabel.run(prompt="scratch. dent.", path="run", **models)
    other = OtherClassifier()
    run = autolabel.run(prompt="scratch. dent.", path="run", **{**models, "classifier": other})
    assert models.calls() == {"detector": [4], "segmenter": [4], "classifier": [4]}
    assert other.calls == [4]
    assert run.manifest.models["classifier"].spec == "fake:other"
    autolabel.run(prompt="scratch. dent.", path="run", **models)
    assert models.calls()["classifier"] == [4]


def test_other_words_in_the_same_folder_are_looked_for_anew(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 4)
    narrow = autolabel.run(prompt="scratch.", path="run", **models)
    wide = autolabel.run(prompt="scratch. dent.", path="run", **models)
    assert models.calls()["detector"] == [4, 4]
    assert wide.ontology.names == ("scratch", "dent")
    assert wide.manifest.labels == {"scratch": 4, "dent": 2}
    assert [len(item.annotations[0].phrase_scores) for item in wide] == [2] * 4
    assert narrow.manifest.run_id == wide.manifest.run_id
    again = autolabel.run(prompt="scratch.", path="run", **models)
    assert models.calls()["detector"] == [4, 4]
    assert again.manifest.labels == {"scratch": 4}


def test_a_run_without_segmenter_and_classifier_has_boxes_and_the_detectors_labels(workspace: Path) -> None:
    write_pictures(workspace / "images", 2)
    run = autolabel.run(prompt="scratch. dent.", detector=SquareDetector(), segmenter="none", classifier="none")
    annotation = run["000.png"].annotations[0]
    assert annotation.mask is None
    assert annotation.class_probs is None
    assert annotation.label == "scratch"
    assert run.manifest.assign == "detector"


def test_negatives_are_detected_then_dropped(workspace: Path, models: Models) -> None:
    (workspace / "images").mkdir()
    Image.fromarray(picture(("scratch", 2, 2, 10), ("glare", 30, 20, 12))).save(workspace / "images" / "a.png")
    run = autolabel.run(recipe=autolabel.Recipe(prompt="scratch.", negatives=[{"name": "glare"}]), **models)  # type: ignore[list-item]
    assert labels(run) == {"a.png": ["scratch"]}
    assert run.manifest.rejects == {"negative": 1}
    assert len(run["a.png"].annotations[0].phrase_scores) == 2


def test_a_broken_image_costs_a_row_in_the_ledger(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 3)
    (workspace / "images" / "001.png").write_bytes(b"")
    run = autolabel.run(prompt="scratch. dent.", **models)
    assert run.manifest.status == "partial"
    assert [(f.path, f.stage, f.error) for f in run.failures()] == [("001.png", "decode", "ImageError")]
    assert list(labels(run)) == ["000.png", "002.png"]
    ledger = [json.loads(line) for line in (run.path / "failures.jsonl").read_text().splitlines()]
    assert [row["path"] for row in ledger] == ["001.png"]


def test_a_repaired_image_leaves_the_ledger(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 3)
    good = (workspace / "images" / "001.png").read_bytes()
    (workspace / "images" / "001.png").write_bytes(b"")
    autolabel.run(prompt="scratch. dent.", **models)
    (workspace / "images" / "001.png").write_bytes(good)
    run = autolabel.run(prompt="scratch. dent.", **models)
    assert run.manifest.status == "done"
    assert run.failures() == []
    assert (run.path / "failures.jsonl").read_text() == ""


class PickyDetector(SquareDetector):
    """Fails on pictures with a dent until it is repaired."""

    broken = True

    def predict_batch(self, images: Sequence[RGB], phrases: Sequence[str], min_score: float) -> list[Detections]:
        if self.broken and any((image == (0, 255, 0)).all(axis=2).any() for image in images):
            raise RuntimeError("out of memory")
        return super().predict_batch(images, phrases, min_score)


def test_an_image_a_model_fails_on_does_not_take_its_batch_along(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 4)
    picky = PickyDetector()
    run = autolabel.run(prompt="scratch. dent.", **{**models, "detector": picky})
    assert list(labels(run)) == ["000.png", "002.png"]
    assert [(f.path, f.stage, f.message) for f in run.failures()] == [
        ("001.png", "detect", "out of memory"),
        ("003.png", "detect", "out of memory"),
    ]
    picky.broken = False
    same = autolabel.run(prompt="scratch. dent.", **{**models, "detector": picky})
    assert len(same.failures()) == 2
    mended = autolabel.run(prompt="scratch. dent.", retry_failed=True, **{**models, "detector": picky})
    assert mended.failures() == []
    assert len(mended) == 4


class ShortSegmenter(BoxSegmenter):
    def predict_batch(self, images: Sequence[RGB], boxes_xyxy: Sequence[Float]) -> list[Segments]:
        return [Segments(s.masks[:1], s.scores[:1]) for s in super().predict_batch(images, boxes_xyxy)]


def test_an_image_whose_masks_are_missing_is_failed_and_not_half_labelled(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 2)
    run = autolabel.run(prompt="scratch. dent.", **{**models, "segmenter": ShortSegmenter()})
    assert [(f.path, f.stage) for f in run.failures()] == [("001.png", "segment")]
    assert run.manifest.labels == {"scratch": 1}


def test_images_of_equal_content_keep_their_own_annotations(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 1)
    (workspace / "images" / "copy.png").write_bytes((workspace / "images" / "000.png").read_bytes())
    run = autolabel.run(prompt="scratch. dent.", **models)
    first, second = list(run)
    assert first.image.id == second.image.id
    assert first.annotations[0].id != second.annotations[0].id


def test_the_last_run_is_the_default(workspace: Path, models: Models) -> None:
    with pytest.raises(StoreError, match="no run here yet"):
        autolabel.Run.open()
    write_pictures(workspace / "images", 1)
    run = autolabel.run(prompt="scratch. dent.", **models)
    assert autolabel.Run.open().path.resolve() == run.path.resolve()
    assert run.path.parent.name == "runs"
    assert run.name.startswith("scratch-dent-")


def test_a_folder_in_use_is_left_alone(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 1)
    with RunFolder(workspace / "run"), pytest.raises(StoreError, match="in use by another autolabel process"):
        autolabel.run(prompt="scratch. dent.", path="run", **models)


def test_progress_counts_what_has_to_be_done(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 5)
    states: list[Progress] = []
    autolabel.run(prompt="scratch. dent.", batch_size=2, on_progress=states.append, **models)
    assert [(s.done, s.total) for s in states] == [(0, 5), (2, 5), (4, 5), (5, 5)]
    write_pictures(workspace / "images", 6)
    states.clear()
    autolabel.run(prompt="scratch. dent.", batch_size=2, on_progress=states.append, **models)
    assert [(s.done, s.total, s.already) for s in states] == [(0, 1, 5), (1, 1, 5)]


def test_large_images_make_smaller_batches(workspace: Path, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autolabel.engine.portions.PORTION_PIXELS", 2 * 64 * 48)
    write_pictures(workspace / "images", 25)
    run = autolabel.run(prompt="scratch. dent.", **models)
    assert models.calls()["detector"] == [2] * 12 + [1]
    assert len(run) == 25


def test_a_damaged_stage_file_is_made_again(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 3)
    run = autolabel.run(prompt="scratch. dent.", **models)
    expected = labels(run)
    next(run.path.rglob("detect-*.parquet")).unlink()
    with pytest.raises(StoreError, match="is missing"):
        labels(autolabel.Run.open(run.path))
    assert labels(autolabel.run(prompt="scratch. dent.", **models)) == expected


@pytest.mark.slow
def test_thirty_kills_leave_the_run_as_if_undisturbed(workspace: Path) -> None:
    images = write_pictures(workspace / "images", 360)
    (images / "broken.png").write_bytes(b"not an image")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.killed_run", str(images)]
    subprocess.run([*command, "calm"], env=environment, check=True, cwd=workspace)
    shards = workspace / "stormy" / "shards"
    dice = random.Random(7)
    kills, sizes, finished = 0, list[int](), False
    while not finished:
        process = subprocess.Popen([*command, "stormy"], env=environment, cwd=workspace)
        if kills < 30:
            _wait_for_work(process, shards)
            time.sleep(dice.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
        finished = process.wait() == 0
        kills += process.returncode == -signal.SIGKILL
        sizes.append(len(list(shards.glob("[0-9]*"))))
        assert finished or process.returncode == -signal.SIGKILL
    assert kills >= 20
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 10
    calm, stormy = autolabel.Run(workspace / "calm"), autolabel.Run(workspace / "stormy")
    assert coco_bytes(calm, workspace / "a") == coco_bytes(stormy, workspace / "b")
    assert [f.path for f in stormy.failures()] == ["broken.png"]
    assert stormy.manifest.counts == calm.manifest.counts
    assert stormy.manifest.labels == calm.manifest.labels


def _wait_for_work(process: subprocess.Popen[bytes], shards: Path) -> None:
    """Wait for the first sign of work: start-up varies with the machine, so no kill would come at a random moment."""

    def seen() -> set[str]:
        return {entry.name for entry in shards.iterdir()} if shards.is_dir() else set()

    before = seen()
    while process.poll() is None and seen() <= before:
        time.sleep(0.001)
