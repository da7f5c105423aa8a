from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

import autolabel
from autolabel.errors import StoreError
from autolabel.manifest import MANIFEST_NAME

MakeRun = Callable[..., autolabel.Run]


def test_a_folder_that_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"is not a run folder: it has no manifest.json"):
        autolabel.Run(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "is damaged"), ('{"format_version": 99}', "has format_version 99; this autolabel reads 1"), ("[]", "None")],
)
def test_a_damaged_manifest_says_so(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(text)
    with pytest.raises(StoreError, match=words):
        autolabel.Run(tmp_path)


def test_iterating_is_lazy_and_in_the_order_of_the_paths(make_run: MakeRun) -> None:
    run = make_run(20, batch_size=3)
    paths = [item.image.path for item in run]
    assert paths == sorted(paths)
    assert len(run) == 20
    assert len(run._cache) <= 8
    assert [image.path for image in run.images()] == paths


def test_an_unknown_path_is_a_key_error(make_run: MakeRun) -> None:
    with pytest.raises(KeyError):
        make_run(1)["nowhere.png"]


def test_a_run_without_annotations_has_an_empty_table(make_run: MakeRun) -> None:
    run = make_run(2, prompt="crack.")
    assert run.to_table().num_rows == 0
    assert "label" in run.to_pandas().columns
    assert run.to_coco()["annotations"] == []
    assert len(run.to_supervision(run["000.png"])) == 0


def test_the_table_has_a_row_for_each_annotation(make_run: MakeRun) -> None:
    run = make_run(6)
    frame = run.to_pandas()
    assert len(frame) == run.manifest.counts["annotations"]
    first = frame.iloc[0]
    annotation = run["000.png"].annotations[0]
    assert (first.path, first.label, first.id) == ("000.png", "scratch", annotation.id)
    assert first.mask_counts == annotation.mask.counts  # type: ignore[union-attr]
    assert list(first.class_probs) == pytest.approx(list(annotation.class_probs))  # type: ignore[arg-type]


def test_coco_loads_in_pycocotools(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(6)
    (tmp_path / "coco.json").write_text(json.dumps(run.to_coco()))
    coco = COCO(str(tmp_path / "coco.json"))
    assert len(coco.imgs) == 6
    assert coco.annToMask(next(iter(coco.anns.values()))).sum() == 100


def test_supervision_gets_boxes_masks_and_names(make_run: MakeRun) -> None:
    run = make_run(2)
    detections = run.to_supervision(run["001.png"])
    assert detections.xyxy.shape == (2, 4)
    assert detections.mask is not None
    assert detections.mask.shape == (2, 48, 64)
    assert set(detections.data["class_name"]) == {"scratch", "dent"}


def test_proposals_are_what_the_models_said_before_any_threshold(make_run: MakeRun) -> None:
    run = make_run(2, thresholds={"min_score": 0.99})
    assert run.manifest.counts["annotations"] == 0
    first, second = run.proposals()
    assert first.boxes_xyxy.tolist() == [[2, 3, 12, 13]]
    assert second.class_scores.shape == (2, 2)
    assert second.class_probs is not None
    assert second.class_probs.sum(axis=1) == pytest.approx([1, 1])
    assert second.embeddings is not None
    assert np.linalg.norm(second.embeddings, axis=1) == pytest.approx([1, 1])
    assert all(mask is not None for mask in second.masks)


def test_pixels_come_from_the_original_file_and_only_from_it(make_run: MakeRun, workspace: Path) -> None:
    run = make_run(2)
    image = run["000.png"].image
    assert run.read_image(image).shape == (48, 64, 3)
    assert run.local_path(image) == workspace / "images" / "000.png"
    (workspace / "images" / "000.png").write_bytes((workspace / "images" / "001.png").read_bytes())
    with pytest.raises(StoreError, match=r"000.png has changed since it was labelled"):
        run.read_image(image)


def test_the_manifest_says_what_the_run_was_made_of(make_run: MakeRun) -> None:
    run = make_run(1)
    manifest = run.manifest
    assert manifest.ontology.names == ("scratch", "dent")
    assert manifest.recipe == {"prompt": "scratch. dent."}
    assert manifest.resolved["thresholds"]["min_score"] == 0.35
    assert {task: info.spec for task, info in manifest.models.items()} == {
        "detector": "fake:squares",
        "segmenter": "fake:fill",
        "classifier": "fake:colour",
    }
    assert {"read", "detect", "segment", "classify", "resolve", "load"} == set(manifest.timings)
    assert "numpy" in manifest.versions
