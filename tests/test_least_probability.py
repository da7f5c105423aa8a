"""Who says from which probability on a label counts: the recipe, else the classifier, else nobody."""

from __future__ import annotations

from pathlib import Path

import autolabel
from autolabel.runner import resolve_run
from tests.conftest import Models, write_pictures


def test_a_classifier_may_ask_for_a_probability_unless_the_recipe_names_one(workspace: Path, models: Models) -> None:
    write_pictures(workspace / "images", 6)
    usual = autolabel.run(prompt="scratch. dent.", path="usual", **Models())
    models["classifier"].min_prob = 0.95  # type: ignore[attr-defined]  # the fake is never surer than 0.9
    run = autolabel.run(prompt="scratch. dent.", path="run", **models)
    assert run.manifest.resolved["thresholds"]["min_prob"] == 0.95
    assert (run.manifest.labels, run.manifest.rejects["low_prob"]) == ({}, sum(usual.manifest.labels.values()))
    stricter = resolve_run(run, {"thresholds": {"min_score": 0.43}})
    assert stricter.manifest.resolved["thresholds"]["min_prob"] == 0.95
    detectors = resolve_run(run, {"assign": "detector"})
    assert sum(detectors.manifest.labels.values()) == sum(usual.manifest.labels.values())
    assert resolve_run(detectors, {"assign": "classifier"}).manifest.labels == {}
    asked = resolve_run(run, {"thresholds": {"min_prob": 0.5}})
    assert [[a.label for a in item.annotations] for item in asked] == [
        [a.label for a in item.annotations] for item in usual
    ]
