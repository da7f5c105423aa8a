"""Thresholds from what people corrected: a detector that writes its scores into pixels makes them exact."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import autolabel
from autolabel.corrections import write_decisions
from autolabel.errors import UsageError
from autolabel.evaluate import evaluate
from autolabel.runner import resolve_run
from autolabel.tuning import FOLDS, LEAST_GAIN, Outcome, _best, _Judged, tune
from autolabel.types import RGB, Box, Correction, Detections, ModelInfo, Review
from tests.conftest import Call

COLUMNS = {"scratch": 0, "dent": 1}
SIDE = 8
Square = tuple[str, float, bool]
"""Class, the detector's score, and whether it is one."""


class ShadeDetector:
    """Finds a box for each square of a picture; its red or green is the score in percent."""

    info = ModelInfo("test:shade")

    def predict_batch(self, images: Sequence[RGB], phrases: Sequence[str], min_score: float) -> list[Detections]:
        return [self._one(image, phrases) for image in images]

    def _one(self, image: RGB, phrases: Sequence[str]) -> Detections:
        boxes, scores = [], []
        for x in range(0, image.shape[1], 2 * SIDE):
            shade = image[SIDE, x + SIDE // 2]
            for name, channel in COLUMNS.items():
                if name in phrases and 0 < shade[channel] <= 100:
                    boxes.append([x, 0, x + SIDE, 2 * SIDE])
                    row = [0.0] * len(phrases)
                    row[phrases.index(name)] = shade[channel] / 100
                    scores.append(row)
        if not boxes:
            return Detections.empty(len(phrases))
        return Detections(np.array(boxes, np.float32), np.array(scores, np.float32))


def label(workspace: Path, pictures: Sequence[Sequence[Square]]) -> autolabel.Run:
    """Paint the squares side by side, and label the pictures."""
    folder = workspace / "images"
    folder.mkdir()
    for number, squares in enumerate(pictures):
        pixels = np.full((2 * SIDE, 2 * SIDE * 8, 3), 255, np.uint8)
        for place, (name, score, _) in enumerate(squares):
            pixels[:, 2 * SIDE * place : 2 * SIDE * place + SIDE] = 0
            pixels[:, 2 * SIDE * place : 2 * SIDE * place + SIDE, COLUMNS[name]] = round(100 * score)
        pixels[-1, -1] = (*divmod(number, 250), 0)  # no two have the same content
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return autolabel.run(prompt="scratch. dent.", detector=ShadeDetector(), segmenter="none", classifier="none")


def objects(squares: Sequence[Square]) -> list[tuple[str, Box]]:
    """What a person would leave or draw."""
    return [
        (name, Box(2 * SIDE * place, 0, 2 * SIDE * place + SIDE, 2 * SIDE))
        for place, (name, _, real) in enumerate(squares)
        if real
    ]


def finish(run: autolabel.Run, pictures: Sequence[Sequence[Square]], state: str = "complete") -> autolabel.Run:
    """Have a person correct all pictures."""
    images = {image.path: image for image in run.images()}
    decisions: list[Correction | Review] = []
    for number, squares in enumerate(pictures):
        image = images[f"{number:03d}.png"]
        decisions.append(Review(state, image.path, image.id, "ann", "2026-01-01"))
        for place, (name, box) in enumerate(objects(squares)):
            uid = f"{number}-{place}"
            decisions.append(
                Correction("added", image.path, image.id, uid, label=name, box=box, by="ann", at="2026-01-01")
            )
    write_decisions(run.path, "tool", decisions)
    return autolabel.Run.open(run.path)


def truth_file(run: autolabel.Run, pictures: Sequence[Sequence[Square]], path: Path) -> Path:
    """Write the same as ground truth in COCO format."""
    records = []
    for number, squares in enumerate(pictures):
        for name, box in objects(squares):
            bbox = [box.x_min, box.y_min, box.width, box.height]
            records.append(
                {"id": len(records) + 1, "image_id": number, "category_id": COLUMNS[name], "bbox": bbox}
                | {"area": box.area, "iscrowd": 0}
            )
    images = [{"id": i, "file_name": f"{i:03d}.png", "width": 128, "height": 16} for i in range(len(pictures))]
    categories = [{"id": place, "name": name} for name, place in COLUMNS.items()]
    path.write_text(json.dumps({"images": images, "annotations": records, "categories": categories}))
    return path


def two_kinds(count: int = 40, seed: int = 3) -> list[list[Square]]:
    """Scratches whose false alarms pass 0.35, dents that are right and stay below it."""
    rng = np.random.default_rng(seed)
    pictures: list[list[Square]] = []
    for _ in range(count):
        squares: list[Square] = [("scratch", float(rng.uniform(0.56, 0.95)), True)]
        squares += [("scratch", float(rng.uniform(0.36, 0.50)), False)] * int(rng.integers(0, 3))
        squares += [("dent", float(rng.uniform(0.22, 0.34)), True)] * int(rng.integers(1, 3))
        squares += [("dent", float(rng.uniform(0.11, 0.15)), False)] * int(rng.integers(0, 2))
        pictures.append(squares)
    return pictures


def test_thresholds_move_to_where_right_and_wrong_part(workspace: Path) -> None:
    pictures = two_kinds()
    found = tune(finish(label(workspace, pictures), pictures))
    scratch, dent = found.classes
    assert (found.images, found.against) == (40, "corrections")
    assert scratch.suggested is not None
    assert dent.suggested is not None
    assert 0.50 < scratch.suggested <= 0.56
    assert 0.15 < dent.suggested <= 0.22
    assert scratch.now.precision is not None
    assert scratch.now.precision < 0.7
    assert dent.now == Outcome(0, 0, sum(name == "dent" and real for p in pictures for name, _, real in p))
    assert (found.expected.precision, found.expected.recall) == (1.0, 1.0)


def test_people_and_a_file_say_the_same(workspace: Path) -> None:
    pictures = two_kinds()
    run = label(workspace, pictures)
    by_file = tune(run, truth_file(run, pictures, workspace / "truth.json"))
    by_people = tune(finish(run, pictures))
    assert by_file.classes == by_people.classes


def test_figures_are_those_of_resolving_and_evaluating(workspace: Path) -> None:
    rng = np.random.default_rng(11)
    pictures: list[list[Square]] = [
        [("scratch", float(np.clip(rng.normal(0.7 if real else 0.45, 0.1), 0.05, 1.0)), bool(real))]
        for real in rng.random(90) < 0.6
    ]
    run = label(workspace, pictures)
    truth = truth_file(run, pictures, workspace / "truth.json")
    found = tune(run, truth)
    (scratch, _) = found.classes

    def counted(against: autolabel.Run) -> Outcome:
        row = evaluate(against, truth).classes[0]
        return Outcome(row.true_positives, row.false_positives, row.misses)

    assert scratch.now == counted(run)
    assert scratch.suggested is not None
    settled = resolve_run(run, {"classes": found.recipe(run)["classes"]})
    tuned = counted(settled)
    assert tuned.f(1) >= scratch.now.f(1)
    assert tune(settled, truth).classes[0].now == tuned


def test_scores_that_say_nothing_change_nothing(workspace: Path) -> None:
    rng = np.random.default_rng(0)
    pictures: list[list[Square]] = [
        [("scratch", float(rng.uniform(0.35, 0.95)), bool(rng.random() < 0.7)) for _ in range(2)] for _ in range(60)
    ]
    found = tune(finish(label(workspace, pictures), pictures))
    assert found.changed == {}
    assert "no other threshold does better" in found.classes[0].reason
    assert found.expected == found.now


def test_few_objects_keep_their_threshold_and_few_images_are_an_error(workspace: Path) -> None:
    pictures: list[list[Square]] = [[("scratch", 0.3, True)] for _ in range(6)]
    run = label(workspace, pictures)
    with pytest.raises(UsageError, match=r"at least 5 images that people have finished, and there are 0.*pull"):
        tune(run)
    with pytest.raises(UsageError, match="there are 0"):
        tune(finish(run, pictures, state="skipped"))
    found = tune(finish(run, pictures))
    assert [row.suggested for row in found.classes] == [None, None]
    assert found.classes[0].reason == "6 objects are too few to tell, 10 are needed"
    with pytest.raises(UsageError, match=r"beta must be in \[0.1, 10\], got 0"):
        tune(run, beta=0.0)


def test_images_that_changed_since_or_are_gone_do_not_count(workspace: Path) -> None:
    pictures = two_kinds(12)
    run = finish(label(workspace, pictures), pictures)
    assert tune(run).images == 12
    Image.new("RGB", (128, 16), "white").save(workspace / "images" / "003.png")
    (workspace / "images" / "004.png").write_bytes(b"no picture")
    again = autolabel.run(prompt="scratch. dent.", detector=ShadeDetector(), segmenter="none", classifier="none")
    assert tune(again).images == 10


def test_beta_moves_towards_recall(workspace: Path) -> None:
    rng = np.random.default_rng(5)
    pictures: list[list[Square]] = [
        [("scratch", float(np.clip(rng.normal(0.6 if real else 0.35, 0.12), 0.11, 0.98)), bool(real))]
        for real in rng.random(300) < 0.5
    ]
    run = finish(label(workspace, pictures), pictures)
    careful, plain, thorough = (tune(run, beta=beta).classes[0] for beta in (0.3, 1.0, 3.0))
    scores = [row.suggested or row.min_score for row in (careful, plain, thorough)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[2] + 0.1
    assert thorough.expected.recall is not None
    assert plain.expected.recall is not None
    assert thorough.expected.recall > plain.expected.recall


def test_tables_count_what_thresholds_leave() -> None:
    rng = np.random.default_rng(1)
    scores = rng.integers(10, 100, 400).astype(np.float32) / np.float32(100)
    mine = _Judged(
        rng.integers(0, FOLDS, 400), scores, rng.random(400) < 0.5, np.full(FOLDS, 60, np.int64)
    )  # scores lie on the grid, where a rounding would show
    grid = np.arange(10, 100, dtype=np.float32) / np.float32(100)
    hits, false = mine.table(grid)
    for place, threshold in enumerate(grid.tolist()):
        outcome = mine.outcome(threshold)
        assert (outcome.true_positives, outcome.false_positives) == (hits[:, place].sum(), false[:, place].sum())


def test_of_thresholds_that_are_as_good_the_middle_one_is_taken() -> None:
    hits = np.array([8, 8, 8, 8, 8, 2])
    false = np.array([9, 1, 0, 0, 0, 0])
    assert _best(hits, false, 8, 1.0) == 3
    assert LEAST_GAIN < 0.05


def test_the_command_writes_a_recipe_that_resolve_and_run_take(
    command: Call,
    workspace: Path,
) -> None:
    pictures = two_kinds()
    finish(label(workspace, pictures), pictures)
    code, out, _ = command("tune", "--out", "tuned.toml", "--json")
    said = json.loads(out)
    assert code == 0
    assert said["recipe"] == "tuned.toml"
    assert [row["suggested"] is not None for row in said["classes"]] == [True, True]
    assert said["expected"]["f"] > said["now"]["f"]
    text = (workspace / "tuned.toml").read_text()
    assert "images" not in text
    assert command("tune", "--out", "recipes/tuned.toml", "--quiet")[0] == 0
    assert (workspace / "recipes" / "tuned.toml").read_text() == text
    assert "autolabel tune" in command("corrections")[1]
    code, out, _ = command("resolve", "--recipe", "tuned.toml", "--json")
    assert (code, json.loads(out)["labels"]) == (0, {"scratch": 40, "dent": said["now"]["misses"]})
    code, out, _ = command("tune")
    assert "no other threshold does better" in out
    assert "--out" not in out
    code, _, err = command("tune", "--out", "tuned.toml")
    assert code == 2
    assert "tuned.toml is there already" in err
    assert (workspace / "tuned.toml").read_text() == text


def test_the_command_says_what_is_missing(command: Call, workspace: Path) -> None:
    label(workspace, two_kinds(6))
    code, _, err = command("tune")
    assert code == 2
    assert "autolabel pull" in err
