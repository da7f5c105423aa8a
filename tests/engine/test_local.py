"""The engine of this process: the answers of the sequential one, in order, with the stages at work together."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autolabel.engine import Work
from autolabel.engine.local import LocalEngine
from autolabel.engine.sequential import SequentialEngine
from autolabel.errors import ModelError
from autolabel.labeling import Known
from tests.conftest import Models, write_pictures
from tests.engine.helpers import assert_same, setup_of, works_of
from tests.fakes import BoxSegmenter, ColourClassifier, SquareDetector

PATIENCE_S = 30


def _of_an_engine(thread: threading.Thread) -> bool:
    """Tell an engine's threads from the models' helpers, which are the process's own and stay for the next run."""
    return thread.name.startswith("autolabel-") and not thread.name.startswith("autolabel-helper")


def engine_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if _of_an_engine(thread)]


def wait_for_no_threads() -> None:
    for thread in threading.enumerate():
        if _of_an_engine(thread):
            thread.join(PATIENCE_S)
    assert engine_threads() == []


def test_nothing_to_do_loads_nothing() -> None:
    setup, models = setup_of(Models())
    engine = LocalEngine(models, setup.plan)
    assert list(engine.label([])) == []
    assert engine.facts().models == {}


@pytest.mark.parametrize("size", [1, 3, 16, 64])
def test_as_the_sequential_engine_says(tmp_path: Path, size: int) -> None:
    folder = write_pictures(tmp_path / "images", 23)
    (folder / "007.png").write_bytes(b"not an image")
    (folder / "008.png").unlink()
    (folder / "008.png").mkdir()
    setup, models = setup_of(Models())
    works = works_of(folder, size)
    expected = list(SequentialEngine(models, setup.plan).label(works))
    answers = list(LocalEngine(models, setup.plan).label(works))
    assert len(answers) == len(works)
    for one, other in zip(answers, expected, strict=True):
        assert_same(one, other)
    wait_for_no_threads()


def test_portions_by_pixels_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_pictures(tmp_path / "images", 12)
    for number, side in enumerate((40, 300, 7, 120)):
        Image.new("RGB", (side, side), (255, 0, 0)).save(folder / f"9{number}.png")
    setup, models = setup_of(Models())
    works = works_of(folder, 16)
    (expected,) = SequentialEngine(models, setup.plan).label(works)
    for pixels in (1, 64 * 48, 5 * 64 * 48):
        monkeypatch.setattr("autolabel.engine.portions.PORTION_PIXELS", pixels)
        (answer,) = LocalEngine(models, setup.plan).label(works)
        assert_same(answer, expected)
        (answer,) = SequentialEngine(models, setup.plan).label(works)
        assert_same(answer, expected)


def test_known_stages_are_not_asked_again(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "images", 10)
    fakes = Models()
    setup, models = setup_of(fakes)
    (whole,) = LocalEngine(models, setup.plan).label(works_of(folder, 10))
    calls = fakes.calls()
    known = Known(whole.batch.detected, whole.batch.segmented)
    work = Work(whole.rows, works_of(folder, 10)[0].sources, 5, known)
    (again,) = LocalEngine(models, setup.plan).label([work])
    assert fakes.calls() == {**calls, "classifier": calls["classifier"] * 2}
    assert set(again.batch.notes) == {"classify", "resolve"}
    assert again.shard == 5
    assert again.batch.resolved.ids == whole.batch.resolved.ids
    np.testing.assert_array_equal(again.batch.classified.probs, whole.batch.classified.probs)


def test_one_image_that_a_model_fails_on_costs_its_own_row(tmp_path: Path) -> None:
    class Fragile(BoxSegmenter):
        def predict_batch(self, images, boxes_xyxy):
            if any(image[0, 0, 0] == 9 for image in images):
                raise ValueError("cannot segment this")
            return super().predict_batch(images, boxes_xyxy)

    folder = write_pictures(tmp_path / "images", 6)
    pixels = np.asarray(Image.open(folder / "002.png")).copy()
    pixels[0, 0] = 9
    Image.fromarray(pixels).save(folder / "002.png")
    setup, models = setup_of({**Models(), "segmenter": Fragile()})
    works = works_of(folder, 6)
    (answer,) = LocalEngine(models, setup.plan).label(works)
    assert [(failure.path, failure.stage) for failure in answer.batch.failures] == [("002.png", "segment")]
    (expected,) = SequentialEngine(models, setup.plan).label(works)
    assert_same(answer, expected)


def test_the_stages_work_at_the_same_time(tmp_path: Path) -> None:
    """Each stage holds its first portion until the stage before is at a later one: in turn they would wait for ever."""
    asked = {"detect": 0, "segment": 0}
    changed = threading.Condition()

    def count(stage: str) -> None:
        with changed:
            asked[stage] += 1
            changed.notify_all()

    def wait_for(stage: str, calls: int) -> None:
        with changed:
            assert changed.wait_for(lambda: asked[stage] >= calls, PATIENCE_S), f"{stage} did not go on meanwhile"

    class Detector(SquareDetector):
        def predict_batch(self, images, phrases, min_score):
            count("detect")
            return super().predict_batch(images, phrases, min_score)

    class Segmenter(BoxSegmenter):
        def predict_batch(self, images, boxes_xyxy):
            count("segment")
            wait_for("detect", 2)
            return super().predict_batch(images, boxes_xyxy)

    class Classifier(ColourClassifier):
        def predict_batch(self, images, boxes_xyxy, masks, classes):
            wait_for("detect", 3)
            wait_for("segment", 2)
            return super().predict_batch(images, boxes_xyxy, masks, classes)

    folder = write_pictures(tmp_path / "images", 16)
    setup, models = setup_of({"detector": Detector(), "segmenter": Segmenter(), "classifier": Classifier()})
    (answer,) = LocalEngine(models, setup.plan).label(works_of(folder, 16))
    assert answer.batch.failures == ()


def test_images_are_read_ahead_of_the_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = threading.Semaphore(0)
    whole = Work.read

    def counted(self: Work, place: int, admit=None):
        image = whole(self, place, admit)
        read.release()
        return image

    class Detector(SquareDetector):
        def predict_batch(self, images, phrases, min_score):
            if not self.calls:  # all eight: these four and the next
                assert all(read.acquire(timeout=PATIENCE_S) for _ in range(8))
            return super().predict_batch(images, phrases, min_score)

    monkeypatch.setattr(Work, "read", counted)
    folder = write_pictures(tmp_path / "images", 8)
    setup, models = setup_of({**Models(), "detector": Detector()})
    (answer,) = LocalEngine(models, setup.plan).label(works_of(folder, 8))
    assert answer.batch.failures == ()


def test_an_error_comes_after_the_answers_before_it(tmp_path: Path) -> None:
    class Detector(SquareDetector):
        def predict_batch(self, images, phrases, min_score):
            if len(self.calls) == 3:
                raise ModelError("no detector any more")
            return super().predict_batch(images, phrases, min_score)

    folder = write_pictures(tmp_path / "images", 20)
    setup, models = setup_of({**Models(), "detector": Detector()})
    answers = LocalEngine(models, setup.plan).label(works_of(folder, 4))
    assert [len(next(answers).rows) for _ in range(3)] == [4, 4, 4]
    with pytest.raises(ModelError, match="no detector any more"):
        next(answers)
    wait_for_no_threads()


def test_works_that_cannot_be_listed_are_an_error(tmp_path: Path) -> None:
    def works():
        yield works_of(write_pictures(tmp_path / "images", 2), 2)[0]
        raise OSError("the disk is gone")

    setup, models = setup_of(Models())
    answers = LocalEngine(models, setup.plan).label(works())
    assert len(next(answers).rows) == 2
    with pytest.raises(OSError, match="the disk is gone"):
        next(answers)


def test_closing_stops_a_stage_in_the_middle_of_its_work(tmp_path: Path) -> None:
    busy = threading.Event()

    class Detector(SquareDetector):
        def predict_batch(self, images, phrases, min_score):
            if self.calls:
                busy.set()
                while True:
                    time.sleep(0.001)
            return super().predict_batch(images, phrases, min_score)

    folder = write_pictures(tmp_path / "images", 40)
    setup, models = setup_of({**Models(), "detector": Detector()})
    answers = LocalEngine(models, setup.plan).label(works_of(folder, 4))
    next(answers)
    assert busy.wait(PATIENCE_S)
    answers.close()
    wait_for_no_threads()


def test_memory_is_let_go_when_a_portion_is_done(tmp_path: Path) -> None:
    """While the detector has the last portion, the others are done: nobody may hold their pixels any longer."""
    alive: list[weakref.ref[np.ndarray]] = []

    class Detector(SquareDetector):
        left = 0

        def predict_batch(self, images, phrases, min_score):
            alive.extend(weakref.ref(image) for image in images)
            deadline = time.monotonic() + PATIENCE_S
            while len(self.calls) == 5:
                gc.collect()
                self.left = sum(ref() is not None for ref in alive)
                if self.left == len(images) or time.monotonic() > deadline:
                    break
            return super().predict_batch(images, phrases, min_score)

    folder = write_pictures(tmp_path / "images", 24)
    detector = Detector()
    setup, models = setup_of({**Models(), "detector": detector})
    list(LocalEngine(models, setup.plan).label(works_of(folder, 4)))
    assert len(alive) == 24
    assert detector.left == 4
