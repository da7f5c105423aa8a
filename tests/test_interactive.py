from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import autolabel
from autolabel.config import Recipe
from autolabel.images import image_id
from autolabel.interactive import Labeler, Recent
from autolabel.labeling import ReadImage, from_bytes
from autolabel.loading import Models, models_for
from autolabel.protocols import Prompt
from autolabel.shards import ImageRow
from autolabel.types import Box, Failure, Mask, Segments
from tests.conftest import Models as Fakes
from tests.conftest import write_pictures
from tests.fakes import BoxSegmenter, picture
from tests.serve.helpers import of_run

RECIPE = Recipe(prompt="scratch. dent.")


def loaded(fakes: dict[str, object], recipe: Recipe = RECIPE) -> Models:
    return models_for(recipe, given=fakes)


def read(path: Path) -> ReadImage:
    return from_bytes(path.read_bytes(), ImageRow(path.name, str(path), ""))


def pixels(*squares, path: str = "a.png") -> ReadImage:
    image = picture(*squares)
    row = ImageRow(path, "", "", image_id(image.tobytes()), image.shape[1], image.shape[0])
    return ReadImage(row, image)


class PointSegmenter(BoxSegmenter):
    """Answers a prompt with a square of 8 px around the first point, or with its box; counts what it encodes."""

    points = True

    def __init__(self) -> None:
        super().__init__()
        self.embedded = 0

    def embed(self, image):
        self.embedded += 1
        return image.shape[:2]

    def segment_prompts(self, embedded, prompts):
        masks = []
        for prompt in prompts:
            box = prompt.box or Box(*np.add(prompt.positive[0] * 2, (-4, -4, 4, 4)).tolist())
            mask = np.zeros(embedded, np.bool_)
            mask[int(box.y_min) : int(box.y_max), int(box.x_min) : int(box.x_max)] = True
            masks.append(Mask.encode(mask))
        return Segments(tuple(masks), np.full(len(masks), 0.8, np.float32))


def test_nothing_in_nothing_out(models: Fakes) -> None:
    assert Labeler(RECIPE, loaded(models)).label([]) == []


def test_images_in_memory_get_what_a_run_gives_them(workspace: Path, models: Fakes) -> None:
    folder = write_pictures(workspace / "images")
    run = autolabel.run("images", recipe=RECIPE, **models)
    labeler = Labeler(RECIPE, loaded(Fakes()))
    answers = labeler.label([read(path) for path in sorted(folder.iterdir())])
    assert [answer.item for answer in answers] == list(run)
    assert any(item.annotations for item in run)
    assert labeler.keys == run.manifest.keys
    assert labeler.model_version == f"autolabel-{run.manifest.keys.resolve}"


def test_a_labeler_of_a_run_has_its_recipe_ids_and_floor(workspace: Path, models: Fakes) -> None:
    folder = write_pictures(workspace / "images")
    lower = Recipe(prompt="scratch. dent.", proposals={"floor": 0.03}, thresholds={"min_score": 0.5})
    run = autolabel.run("images", recipe=lower, **models)
    assert run.ontology == of_run(run).plan.ontology
    labeler = of_run(run)
    assert labeler.plan.floor == 0.03
    assert [answer.item for answer in labeler.label([read(path) for path in sorted(folder.iterdir())])] == list(run)


def test_a_broken_image_costs_the_others_nothing(models: Fakes) -> None:
    broken = from_bytes(b"no image", ImageRow("broken.png", "", ""))
    first, second, third = Labeler(RECIPE, loaded(models)).label(
        [pixels(("scratch", 2, 3, 10)), broken, pixels(("dent", 20, 10, 9), path="b.png")]
    )
    assert isinstance(second, Failure)
    assert second.stage == "decode"
    assert [a.label for answer in (first, third) for a in answer.item.annotations] == ["scratch", "dent"]


def test_what_was_labelled_a_short_while_ago_is_not_labelled_again(models: Fakes) -> None:
    labeler = Labeler(RECIPE, loaded(models))
    image, other = pixels(("scratch", 2, 3, 10)), pixels(("dent", 2, 3, 10), path="b.png")
    assert labeler.label([image]) + labeler.label([other]) == labeler.label([image, other])
    assert models.calls()["detector"] == [1, 1]


def test_images_of_a_request_are_one_batch_of_the_recipes_size(models: Fakes) -> None:
    recipe = Recipe(prompt="scratch. dent.", batch_size=2)
    images = [pixels(("scratch", 2 + place, 3, 10), path=f"{place}.png") for place in range(5)]
    Labeler(recipe, loaded(models, recipe)).label(images)
    assert models.calls()["detector"] == [2, 2, 1]


def test_two_threads_never_use_the_models_at_once(models: Fakes) -> None:
    inside, worst = [], []
    detector = models["detector"]
    one = detector.predict_batch

    def watched(*args):
        inside.append(1)
        worst.append(len(inside))
        try:
            return one(*args)
        finally:
            inside.pop()

    detector.predict_batch = watched
    labeler = Labeler(RECIPE, loaded(models))
    images = [[pixels(("scratch", 2 + place, 3, 10), path=f"{place}.png")] for place in range(12)]
    threads = [threading.Thread(target=labeler.label, args=(batch,)) for batch in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst == [1] * 12


def test_a_click_is_answered_by_the_segmenter_and_the_image_is_encoded_once(models: Fakes) -> None:
    models["segmenter"] = PointSegmenter()
    labeler = Labeler(RECIPE, loaded(models))
    opened = labeler.open(pixels(("scratch", 2, 3, 10)))
    first = labeler.segment_prompt(opened, Prompt(positive=((30.0, 20.0),)))
    second = labeler.segment_prompt(opened, Prompt(box=Box(1, 2, 11, 9)))
    assert first.box == Box(26, 16, 34, 24)
    assert (first.mask.area, second.mask.area) == (64, 70)
    assert first.score == pytest.approx(0.8)
    assert models["segmenter"].embedded == 1
    assert models.calls()["detector"] == []


def test_without_point_training_a_click_takes_the_proposal_of_its_label(models: Fakes) -> None:
    labeler = Labeler(RECIPE, loaded(models))
    opened = labeler.open(pixels(("scratch", 4, 4, 20), ("dent", 16, 16, 20)))
    click = Prompt(positive=((20.0, 20.0),))
    assert labeler.segment_prompt(opened, click, "dent").box == Box(16, 16, 36, 36)
    on_both = labeler.segment_prompt(opened, Prompt(positive=((10.0, 10.0),)), "dent")
    assert on_both.box == Box(4, 4, 24, 24)


def test_a_negative_point_rules_a_proposal_out(models: Fakes) -> None:
    labeler = Labeler(RECIPE, loaded(models))
    opened = labeler.open(pixels(("scratch", 4, 4, 20)))
    point = (6.0, 6.0)
    kept = labeler.segment_prompt(opened, Prompt(positive=(point,)))
    other = labeler.segment_prompt(opened, Prompt(positive=(point,), negative=((22.0, 22.0),)))
    assert kept.box == Box(4, 4, 24, 24)
    assert other.box != kept.box
    assert not other.mask.decode()[22, 22]
    assert other.mask.decode()[6, 6]


def test_without_point_training_a_click_on_nothing_tries_windows_around_it(models: Fakes) -> None:
    labeler = Labeler(RECIPE, loaded(models))
    opened = labeler.open(pixels())
    found = labeler.segment_prompt(opened, Prompt(positive=((63.0, 47.0),)))
    assert found.mask.decode()[47, 63]
    assert labeler.segment_prompt(opened, Prompt(negative=((5.0, 5.0),))) is None


def test_without_a_segmenter_a_box_stays_a_box_and_a_click_takes_a_proposals(models: Fakes) -> None:
    recipe = Recipe(prompt="scratch. dent.", segmenter="none")
    del models["segmenter"]
    labeler = Labeler(recipe, loaded(models, recipe))
    opened = labeler.open(pixels(("scratch", 4, 4, 20)))
    assert labeler.segment_prompt(opened, Prompt(box=Box(1, 1, 9, 9))).box == Box(1, 1, 9, 9)
    found = labeler.segment_prompt(opened, Prompt(positive=((6.0, 6.0),)))
    assert (found.box, found.mask) == (Box(4, 4, 24, 24), None)
    assert labeler.segment_prompt(opened, Prompt(positive=((60.0, 40.0),))) is None


def test_an_image_that_cannot_be_read_cannot_be_opened(models: Fakes) -> None:
    broken = from_bytes(b"", ImageRow("broken.png", "", ""))
    assert isinstance(Labeler(RECIPE, loaded(models)).open(broken), Failure)


def test_recent_lets_go_of_what_was_not_used_for_longest() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert (recent.get("a"), recent.get("b"), recent.get("c")) == (1, None, 3)
