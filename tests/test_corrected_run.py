"""A run that people corrected: everything that reads runs sees their labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import autolabel
from autolabel.corrections import write_decisions
from autolabel.evaluate import evaluate
from autolabel.export import FORMATS, export_run
from autolabel.report import write_report
from autolabel.runner import resolve_run
from autolabel.types import Box, Correction, Review

ADDED = Box(50, 40, 60, 46)


@pytest.fixture
def corrected(make_run) -> autolabel.Run:
    """000.png: scratch deleted, burr added; 001.png: the dent became a scratch; 002.png is complete."""
    run = make_run(6)
    items = {item.image.path: item for item in run}

    def decide(action, path, annotation=None, **values) -> Correction:
        image = items[path].image
        before = {} if annotation is None else {"before_label": annotation.label, "before_box": annotation.box}
        uid = annotation.id if annotation else "added-1"
        return Correction(action, path, image.id, uid, by="ann", at="2026-01-01", **before, **values)

    scratch, dent = items["000.png"].annotations[0], items["001.png"].annotations[1]
    kept = items["002.png"].annotations[0]
    write_decisions(
        run.path,
        "tool",
        [
            decide("deleted", "000.png", scratch),
            decide("added", "000.png", label="burr", box=ADDED),
            decide("edited", "001.png", dent, label="scratch", box=dent.box, mask=dent.mask, iou=1.0),
            decide("accepted", "002.png", kept, label=kept.label, box=kept.box, mask=kept.mask, iou=1.0),
            Review("complete", "002.png", items["002.png"].image.id, "ann", "2026-01-01"),
        ],
    )
    return autolabel.Run.open(run.path)


def test_iterating_gives_what_people_left(corrected):
    assert [(a.label, a.origin, a.box) for a in corrected["000.png"].annotations] == [("burr", "human", ADDED)]
    assert [(a.label, a.origin) for a in corrected["001.png"].annotations] == [
        ("scratch", "human"),
        ("scratch", "model"),
    ]
    assert corrected.labels.names == ("scratch", "dent", "burr")
    assert [a.label for item in corrected.predicted() for a in item.annotations].count("burr") == 0
    assert (len(corrected.corrections()), len(corrected.reviews())) == (4, 1)


def test_new_thresholds_change_nothing_that_people_decided(corrected):
    strict = resolve_run(corrected, {"thresholds": {"min_score": 0.999}})
    assert [a.label for item in strict.predicted() for a in item.annotations] == []
    assert {item.image.path: [a.label for a in item.annotations] for item in strict if item.annotations} == {
        "000.png": ["burr"],
        "001.png": ["scratch"],
        "002.png": ["scratch"],
    }
    again = resolve_run(strict, {"thresholds": {"min_score": 0.35}})
    assert [a.label for a in again["000.png"].annotations] == ["burr"]


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_export_has_them(corrected, tmp_path: Path, fmt):
    export_run(corrected, fmt, tmp_path / "out")
    texts = {path.name: path.read_text("utf-8") for path in (tmp_path / "out").rglob("*") if path.is_file()}
    if fmt == "coco":
        coco = json.loads(texts["annotations.json"])
        assert [category["name"] for category in coco["categories"]] == ["scratch", "dent", "burr"]
        assert [a["category_id"] for a in coco["annotations"] if a["image_id"] == 1] == [3]
        assert {a["origin"] for a in coco["annotations"]} == {"human", "model"}
    elif fmt == "voc":
        assert "<name>burr</name>" in texts["000.xml"]
    else:
        assert texts["000.txt"].split()[0] == "2"


def test_the_report_and_the_evaluation_know_the_new_class(corrected, tmp_path: Path):
    html = write_report(corrected, tmp_path / "report.html").read_text("utf-8")
    assert "burr" in html
    export_run(corrected, "coco", tmp_path / "truth")
    result = evaluate(corrected, tmp_path / "truth" / "annotations.json")
    assert {row.name: row.recall for row in result.classes if row.truths} == {"scratch": 1.0, "dent": 1.0, "burr": 1.0}


def test_a_changed_file_is_labelled_anew_and_its_decisions_wait(corrected):
    decided = corrected.corrections()
    write_decisions(corrected.path, "tool", [replace(c, image_id="of other content") for c in decided])
    waiting = autolabel.Run.open(corrected.path)
    assert all(a.origin == "model" for item in waiting for a in item.annotations)
    assert len(waiting.corrections()) == len(decided)
