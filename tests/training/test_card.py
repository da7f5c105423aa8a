"""The model card says what was measured, and the measuring writes truths that pycocotools reads."""

from __future__ import annotations

import json
from pathlib import Path

from pycocotools import mask as coco_mask

from tests.training.labelled import saved
from training.card import BEGIN, CARD, END, figures
from training.evaluate import METRICS
from training.evaluate_run import write_images, write_truth
from training.generator import PUBLISHED, generate
from training.make_pictures import Case, choose, draw, sheet
from training.natural import Labelled
from training.seeds import VALIDATION


def small(folder: Path, seed: int) -> Labelled:
    return saved(folder, generate(seed, (320, 240), defects=2, edition=PUBLISHED))


def test_the_card_says_what_was_measured() -> None:
    text = CARD.read_text(encoding="utf-8")
    section = text[text.index(BEGIN) + len(BEGIN) + 1 : text.index(END)]
    metrics = json.loads(METRICS.read_text(encoding="utf-8"))
    assert section == figures(metrics)
    assert metrics["edition"] == PUBLISHED.name
    assert metrics["split"] == "test"
    assert metrics["pictures"] >= 500


def test_truths_hold_exact_boxes_and_masks_under_the_names_given(tmp_path: Path) -> None:
    pictures = [small(tmp_path, VALIDATION[400 + i]) for i in range(3)]
    names = [f"class {k}" for k in range(len(PUBLISHED.classes))]
    truth = json.loads(write_truth(pictures, names, tmp_path / "truth.json").read_text())
    assert [category["name"] for category in truth["categories"]] == names
    assert len(truth["annotations"]) == sum(len(p.labels) for p in pictures) > 0
    for annotation in truth["annotations"]:
        assert coco_mask.toBbox(annotation["segmentation"]).tolist() == annotation["bbox"]
        assert int(coco_mask.area(annotation["segmentation"])) == annotation["area"]
    linked = write_images(pictures[:2], tmp_path / "images")
    assert sorted(path.name for path in linked.iterdir()) == sorted(p.path.name for p in pictures[:2])


def test_good_cases_have_no_mistake_and_bad_ones_the_most(tmp_path: Path) -> None:
    path = small(tmp_path, VALIDATION[404]).path
    truth = {"bbox": [10, 10, 50, 40], "category_id": 0}
    right, wrong = ({**truth, "score": 0.9}, True), ({**truth, "score": 0.4}, False)
    cases = [
        Case(path.with_name("a.png"), [truth, truth], [right, right], 0),
        Case(path.with_name("b.png"), [truth, truth], [right, right], 0),
        Case(path.with_name("c.png"), [truth], [right], 0),
        Case(path.with_name("d.png"), [truth], [wrong, wrong], 1),
    ]
    surfaces = {"a.png": "wood", "b.png": "wood", "c.png": "cast", "d.png": "cast"}
    good, bad = choose(cases, surfaces, count=1)
    assert [case.path.name for case in good] == ["a.png"]
    assert [(case.path.name, case.mistakes) for case in bad] == [("d.png", 3)]
    tile = draw(Case(path, [truth], [right, wrong], 0), PUBLISHED.classes)
    assert sheet([tile] * 4).shape[0] > 2 * tile.shape[0]
