"""What was learnt elsewhere is used for the models it was learnt from, and for others only where nothing else is."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from autolabel.loading import already_loaded
from autolabel.models.weights import weights_sha256
from autolabel.quality import NoiseOptions, find_noise, judge, prior
from autolabel.second_look import look_again
from autolabel.types import ModelInfo
from tests.fakes import SquareDetector

ELSEWHERE = "learnt on generated pictures"


@pytest.fixture
def known() -> dict[str, ModelInfo]:
    """The models that the comparisons were fitted with, under names of one's own."""
    return {task: ModelInfo(f"mine:{task}", digest) for task, digest in prior._read()["models"].items()}


def test_models_are_known_by_their_weights_and_not_by_their_names(known):
    assert set(known) == {"detector", "segmenter", "classifier"}
    assert prior.strangers(known) == ()
    assert prior.strangers({"detector": known["detector"]}) == ()
    renamed = {**known, "detector": ModelInfo("grounding-dino:starter", "0" * 64)}
    assert prior.strangers(renamed) == ("detector",)
    assert prior.strangers({**known, "classifier": ModelInfo("open-clip:starter")}) == ("classifier",)
    # A run that does not say what made it was made by nobody we know.
    assert prior.strangers({}) == ("detector",)


def test_the_prior_was_fitted_with_the_bundled_weights(known):
    """Other weights in the package need another fit: ``python -m benchmarks.noise_prior``."""
    pack = Path(str(files("autolabel.starter")))
    bundled = {task: weights_sha256(sorted((pack / task).glob("*.safetensors"))) for task in known}
    assert bundled == {task: model.weights_sha256 for task, model in known.items()}


@pytest.mark.parametrize("theirs", [True, False])
def test_a_large_run_of_another_detector_is_judged_by_itself(make_run, known, monkeypatch, theirs):
    monkeypatch.setattr(judge, "FEWEST_LABELS", 10)
    monkeypatch.setattr(judge, "FEWEST_IMAGES", 10)
    detector = SquareDetector()
    detector.info = ModelInfo("grounding-dino:starter", known["detector"].weights_sha256 if theirs else "0" * 64)
    run = make_run(20, detector=detector, segmenter="none", classifier="none")
    look_again(run, detector=already_loaded(detector))
    notes = find_noise(run, options=NoiseOptions(images=False)).notes
    assert any(ELSEWHERE in note for note in notes) == theirs


def test_a_small_run_of_another_detector_is_judged_by_the_prior_and_says_so(make_run):
    notes = find_noise(make_run(4), options=NoiseOptions(images=False)).notes
    (note,) = (note for note in notes if ELSEWHERE in note)
    assert "this run's detector, segmenter and classifier are others and may err otherwise" in note
