"""Boxes from masks: which masks are trusted, and what everything that reads an annotation's box sees of it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import autolabel
from autolabel import runner
from autolabel.config import Recipe
from autolabel.connect import PushOptions
from autolabel.corrections import write_decisions
from autolabel.dataset import Run
from autolabel.errors import ConfigError
from autolabel.evaluate import evaluate
from autolabel.interactive import Labeler, recipe_of
from autolabel.loading import models_for
from autolabel.manifest import RunManifest
from autolabel.quality.from_run import evidence_of_run, labels_of_run, pictures_of
from autolabel.quality.own import own_proposal
from autolabel.stages.resolve import LEAST_MASK_SCORE, settled_boxes
from autolabel.types import RGB, Annotation, Box, Correction, Float, Mask, Segments
from autolabel_connectors.label_studio import compose
from autolabel_connectors.label_studio.label_config import check_label_config, label_config
from autolabel_connectors.shapes import draw
from tests.conftest import Models, write_pictures
from tests.fakes import BoxSegmenter
from tests.test_interactive import read

NONE = (np.nan,) * 4
EDGES = ("x_min", "y_min", "x_max", "y_max")


class InnerSegmenter(BoxSegmenter):
    """Fills the box but for a border of one pixel, as a mask fills a detector's loose box."""

    def predict_batch(self, images: Sequence[RGB], boxes_xyxy: Sequence[Float]) -> list[Segments]:
        return super().predict_batch(images, [boxes + np.array([1, 1, -1, -1], np.float32) for boxes in boxes_xyxy])


@pytest.fixture
def tight_run(make_run: Callable[..., Run]) -> Callable[..., Run]:
    """Label a few pictures with masks that are tighter than the detector's boxes."""
    return lambda **settings: make_run(6, segmenter=InnerSegmenter(), **settings)


def inner(box: Box) -> Box:
    return Box(box.x_min + 1, box.y_min + 1, box.x_max - 1, box.y_max - 1)


def annotations(run: Run) -> list[Annotation]:
    return [annotation for item in run for annotation in item.annotations]


def settled(mask: tuple[float, ...], score: float = 0.9, box: tuple[float, ...] = (10, 10, 30, 20)) -> list[float]:
    arrays = (np.array([values], np.float32) for values in (box, mask))
    (found,) = settled_boxes(*arrays, np.array([score], np.float32)).tolist()
    return found


def test_nothing_settles_to_nothing() -> None:
    assert settled_boxes(np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32), np.zeros(0)).shape == (0, 4)


def test_a_good_mask_gives_the_box_also_where_it_goes_a_little_beyond() -> None:
    assert settled((12, 11, 28, 19)) == [12, 11, 28, 19]
    assert settled((8, 9, 31, 22)) == [8, 9, 31, 22]


@pytest.mark.parametrize(
    ("mask", "score"),
    [
        (NONE, 0.9),
        ((12, 11, 28, 19), LEAST_MASK_SCORE - 0.01),
        ((12, 11, 28, 19), np.nan),
        ((0, 0, 40, 40), 0.9),  # a leak: most of it outside
        ((10, 10, 30, 41), 0.9),
        ((15, 15, 18, 17), 0.9),  # a speck
        ((10, 10, 14, 20), 0.9),  # a piece
        ((40, 40, 60, 50), 0.9),  # somewhere else
    ],
)
def test_a_mask_that_cannot_be_trusted_leaves_the_detectors_box(mask: tuple[float, ...], score: float) -> None:
    assert settled(mask, score) == [10, 10, 30, 20]


def test_a_new_run_takes_boxes_from_masks_and_stores_the_detectors(tight_run: Callable[..., Run]) -> None:
    run = tight_run()
    found = annotations(run)
    assert found
    assert all(a.box == inner(a.proposed_box) and a.detector_box == a.proposed_box for a in found)
    assert run.manifest.resolved["thresholds"]["boxes"] == "mask"
    proposed = {tuple(box) for one in run.proposals() for box in one.boxes_xyxy.tolist()}
    assert {a.proposed_box.xyxy for a in found} <= proposed
    (stored,) = run.path.glob("shards/*/annotations-*.parquet")
    assert [Box(*row) for row in zip(*(pq.read_table(stored)[n].to_pylist() for n in EDGES), strict=True)] == [
        a.box for a in found
    ]


def test_going_over_calls_no_model_and_keeps_ids_and_labels(tight_run: Callable[..., Run]) -> None:
    run = tight_run()
    before = annotations(run)
    own = runner.resolve_run(run, {"thresholds": {"boxes": "detector"}})
    assert [a.box for a in annotations(own)] == [a.proposed_box for a in before]
    assert [replace(a, box=inner(a.box), detector_box=a.box) for a in annotations(own)] == before
    assert own.manifest.keys.resolve != run.manifest.keys.resolve
    assert own.manifest.keys.classify == run.manifest.keys.classify
    again = runner.resolve_run(own, {"thresholds": {"boxes": "mask"}})
    assert annotations(again) == before
    assert again.manifest.keys == run.manifest.keys


def test_a_run_keeps_its_boxes_until_it_is_told_otherwise(tight_run: Callable[..., Run]) -> None:
    run = tight_run(thresholds={"boxes": "detector"})
    assert all(a.detector_box is None for a in annotations(run))
    resumed = autolabel.run(prompt="scratch. dent.", **{**Models(), "segmenter": InnerSegmenter()})
    assert resumed.manifest.keys == run.manifest.keys
    settled = runner.resolve_run(resumed, {"thresholds": {"min_score": 0.41}})
    assert settled.manifest.resolved["thresholds"]["boxes"] == "detector"
    assert all(a.detector_box is None for a in annotations(settled))


def test_a_run_from_before_there_was_a_choice_stays_as_it_is(tight_run: Callable[..., Run]) -> None:
    run = tight_run(thresholds={"boxes": "detector"})
    manifest = run.manifest.model_dump(mode="json")
    del manifest["recipe"]["thresholds"]
    del manifest["resolved"]["thresholds"]["boxes"]
    RunManifest.model_validate(manifest).write(run.path)
    for path in run.path.glob("shards/*/segment-*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(["mask_box"]), path)
    files = {path: path.read_bytes() for path in run.path.rglob("*.parquet")}
    assert all(set(pq.read_schema(path).names).isdisjoint(EDGES) for path in files if "annotations" in path.name)
    old = Run.open(run.path)
    assert annotations(old) == annotations(run)
    models = {**Models(), "segmenter": InnerSegmenter()}
    resumed = autolabel.run(prompt="scratch. dent.", **models)
    assert {path: path.read_bytes() for path in run.path.rglob("*.parquet")} == files
    assert resumed.manifest.keys == run.manifest.keys
    write_pictures(Path("images"), 8)
    grown = autolabel.run(prompt="scratch. dent.", **models)
    assert len(grown) == 8
    assert all(a.detector_box is None for a in annotations(grown))
    moved = runner.resolve_run(grown, {"thresholds": {"boxes": "mask"}})
    assert all(a.box == inner(a.proposed_box) for a in annotations(moved))


def test_an_empty_mask_and_no_segmenter_leave_the_detectors_boxes(make_run: Callable[..., Run]) -> None:
    class Blank(BoxSegmenter):
        def predict_batch(self, images: Sequence[RGB], boxes_xyxy: Sequence[Float]) -> list[Segments]:
            return [
                Segments((Mask.encode(np.zeros(image.shape[:2], np.bool_)),) * len(boxes), np.ones(len(boxes)))
                for image, boxes in zip(images, boxes_xyxy, strict=True)
            ]

    blank, none = make_run(6, segmenter=Blank(), path="blank"), make_run(6, segmenter="none", path="none")
    assert [a.box for a in annotations(blank)] == [a.box for a in annotations(none)]
    assert all(a.detector_box is None for a in annotations(blank) + annotations(none))


def test_what_is_too_small_goes_by_the_box_that_is_shown(tight_run: Callable[..., Run]) -> None:
    run = tight_run()
    areas = sorted({a.box.area for a in annotations(run)})
    fewer = runner.resolve_run(run, {"thresholds": {"min_area_px": areas[0] + 1}})
    assert {a.box.area for a in annotations(fewer)} == set(areas[1:])
    assert fewer.manifest.rejects["too_small"] > 0


def test_exports_tables_and_eval_see_the_settled_box(tight_run: Callable[..., Run], tmp_path: Path) -> None:
    run = tight_run()
    found = annotations(run)
    coco = run.to_coco()
    assert [a["bbox"] for a in coco["annotations"]] == [
        [a.box.x_min, a.box.y_min, a.box.width, a.box.height] for a in found
    ]
    assert run.to_table().column("x_min").to_pylist() == [a.box.x_min for a in found]
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(coco))
    for ranked in ("annotations", "proposals"):
        assert evaluate(run, truth, ranked=ranked).box.ap == 1.0
    own = runner.resolve_run(run, {"thresholds": {"boxes": "detector"}})
    for ranked in ("annotations", "proposals"):
        assert evaluate(own, truth, ranked=ranked).box.ap < 1.0


def test_label_noise_is_judged_by_the_detectors_own_box(tight_run: Callable[..., Run]) -> None:
    run = tight_run()
    labels, pictures = labels_of_run(run), pictures_of(run)
    assert [Box(*row) for row in labels.boxes_xyxy.tolist()] == [a.proposed_box for a in annotations(run)]
    proposals = evidence_of_run(run, pictures, masks=False).evidence
    assert (own_proposal(labels, proposals, len(pictures)) >= 0).all()


def test_what_people_accepted_is_still_the_models_and_what_they_drew_is_theirs(tight_run: Callable[..., Run]) -> None:
    run = tight_run()
    item = next(item for item in run if len(item.annotations) == 2)
    kept, moved = item.annotations
    place = Box(30, 10, 50, 30)

    def decided(action: str, one: Annotation, box: Box) -> Correction:
        return Correction(action, item.image.path, item.image.id, one.id, one.label, box, before_box=one.box)

    write_decisions(run.path, "tool", [decided("accepted", kept, kept.box), decided("edited", moved, place)])
    by_id = {a.id: a for a in Run.open(run.path)[item.image.path].annotations}
    assert (by_id[kept.id].box, by_id[kept.id].proposed_box) == (kept.box, kept.proposed_box)
    assert (by_id[moved.id].box, by_id[moved.id].proposed_box) == (place, place)
    own = runner.resolve_run(Run.open(run.path), {"thresholds": {"boxes": "detector"}})
    assert {a.id: a.box for a in own[item.image.path].annotations} == {kept.id: kept.box, moved.id: place}


def test_a_labeler_shows_what_its_run_shows(tight_run: Callable[..., Run]) -> None:
    for boxes in ("mask", "detector"):
        run = tight_run(thresholds={"boxes": boxes}, path=boxes)
        recipe = recipe_of(run.manifest, {})
        given = {**Models(), "segmenter": InnerSegmenter()}
        labeler = Labeler(recipe, models_for(recipe, given=given), run=run.manifest)
        assert labeler.model_version == run.manifest.keys.model_version
        (labelled,) = labeler.label([read(Path("images/001.png"))])
        assert labelled.item.annotations == run["001.png"].annotations


def test_a_box_is_pushed_as_it_is_settled_and_a_receipt_says_so(tight_run: Callable[..., Run]) -> None:
    run = tight_run()
    config = label_config(run.labels)
    composer = compose.Composer(check_label_config(config, run.labels)[0], PushOptions(shape="box"), config, "v")
    for item in run:
        assert [mark.box for mark in composer.compose(item).marks] == [a.box for a in item.annotations]
        assert [draw(a, "box").box for a in item.annotations] == [a.box for a in item.annotations]
        # Masks and outlines are drawn in the box around their pixels, wherever the annotation's box is from.
        assert [draw(replace(a, box=a.proposed_box), "mask").box for a in item.annotations] == [
            a.box for a in item.annotations
        ]


def test_ids_hang_on_the_detectors_box(tight_run: Callable[..., Run]) -> None:
    run = tight_run()
    for item in run:
        for one in item.annotations:
            box = " ".join(f"{value:.2f}" for value in one.proposed_box.xyxy)
            assert one.id == str(uuid.uuid5(uuid.UUID(run.manifest.run_id), f"{item.image.id} {item.image.path} {box}"))


def test_the_choice_is_detector_or_mask() -> None:
    assert Recipe().box_source() == "mask"
    assert Recipe().box_source({"thresholds": {"min_score": 0.35}}) == "detector"
    assert Recipe(thresholds={"boxes": "mask"}).box_source({"thresholds": {"boxes": "detector"}}) == "mask"
    with pytest.raises(ConfigError, match=r"thresholds.boxes: Input should be 'detector' or 'mask', got 'sam'"):
        Recipe().merged({"thresholds": {"boxes": "sam"}})
