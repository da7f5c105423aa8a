"""The second look: boxes of other views land where they belong, cost once, and judge the run's own labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autolabel import second_look
from autolabel.dataset import Run
from autolabel.errors import ModelError
from autolabel.loading import Models, already_loaded
from autolabel.quality import NoiseOptions, find_noise, read_quality
from autolabel.quality.from_run import pictures_of
from autolabel.quality.second_look import looked_at, read_second_look
from autolabel.second_look import detector_of, estimate, look, look_again
from tests.fakes import SquareDetector, picture


def test_boxes_of_every_view_lie_on_the_image(make_run):
    """Mirrored and cut into four, the square is found where it is."""
    run = make_run(2)
    pixels = picture(("scratch", 4, 6, 10), ("dent", 40, 30, 12), size_wh=(64, 48))
    seen = look(SquareDetector(), pixels, run)
    for view in (0, 1):
        boxes = seen.boxes_xyxy[seen.view == view]
        names = seen.scores[seen.view == view].argmax(1)
        assert boxes[names == 0].tolist() == [[4, 6, 14, 16]]
        assert boxes[names == 1].tolist() == [[40, 30, 52, 42]]


def test_a_look_costs_once_and_goes_on_where_it_stopped(make_run, monkeypatch):
    run = make_run(7)
    monkeypatch.setattr(second_look, "_A_PART", 2)
    detector = SquareDetector()
    stop = RuntimeError("the power fails")

    def fail(done: int, of: int) -> None:
        if done == 5:
            raise stop

    with pytest.raises(RuntimeError):
        look_again(run, detector=already_loaded(detector), on_look=fail)
    assert len(looked_at(run)) == 5
    assert look_again(run, detector=already_loaded(detector)) == 0
    assert looked_at(run) == {image.id for image in run.images()}
    calls = len(detector.calls)
    assert calls == 5 + 2
    assert look_again(run, detector=already_loaded(detector)) == 0
    assert len(detector.calls) == calls
    assert estimate(run) == 0


def test_an_image_that_is_gone_is_counted(make_run, workspace):
    run = make_run(3)
    (workspace / "images" / "001.png").unlink()
    assert look_again(Run(run.path), detector=already_loaded(SquareDetector())) == 1
    assert len(looked_at(run)) == 2


def test_what_was_seen_is_evidence_about_the_images(make_run):
    run = make_run(6)
    pictures = pictures_of(run)
    assert len(read_second_look(run, pictures, 2)) == 0
    look_again(run, detector=already_loaded(SquareDetector()))
    evidence = read_second_look(run, pictures, 3)
    assert (np.diff(evidence.image) >= 0).all()
    assert evidence.opinions[0][1].shape == (len(evidence), 3)
    for place, item in enumerate(run):
        mine = evidence.boxes_xyxy[(evidence.image == place) & (evidence.source == 0)]
        assert sorted(mine.tolist()) == sorted(list(a.box.xyxy) for a in item.annotations)


def test_a_run_that_was_looked_at_is_judged_by_the_look(make_run):
    run = make_run(6)
    look_again(run, detector=already_loaded(SquareDetector()))
    result = find_noise(run, options=NoiseOptions(images=False))
    assert not any("no second look" in note for note in result.notes)
    assert {"swap", "location", "spurious"} <= set(read_quality(run.path).column_names)
    # The look agrees with every label.
    assert not {"swap", "location", "spurious", "overlooked"} & set(result.flagged)


def test_a_detector_that_is_not_at_hand_is_named(make_run):
    with pytest.raises(ModelError, match="fake:squares"):
        detector_of(make_run(2))


def test_a_detector_with_other_weights_is_refused(make_run, monkeypatch):
    """The same name with other weights is another detector."""
    run = make_run(2)
    trained_again = SquareDetector()
    trained_again.info = replace(trained_again.info, weights_sha256="f" * 64)
    for detector in (SquareDetector(), trained_again):
        models = Models(already_loaded(detector))
        monkeypatch.setattr(second_look, "models_for", lambda recipe, models=models: models)
        if detector is trained_again:
            with pytest.raises(ModelError, match="of no known hash, and those at hand are ffffffffffff"):
                detector_of(run)
        else:
            assert detector_of(run).model is detector
