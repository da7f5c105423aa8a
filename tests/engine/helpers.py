"""Works and models to try engines with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from autolabel.config import Recipe
from autolabel.engine import Done, Setup, Work
from autolabel.images import list_sources
from autolabel.labeling import Batch
from autolabel.loading import Models, models_for
from autolabel.runner import make_plan, new_run_id


def setup_of(given: Mapping[str, object] | None = None, **settings: object) -> tuple[Setup, Models]:
    """What an engine is made of, under a recipe for scratches and dents."""
    recipe = Recipe().merged({"prompt": "scratch. dent.", **settings})
    models = models_for(recipe, given=given)
    ontology = recipe.ontology()
    plan = make_plan(recipe, ontology, new_run_id(ontology), recipe.floor())
    return Setup(recipe, plan, False, {task: model.identity for task, model in models.parts().items()}), models


def works_of(folder: Path, size: int) -> list[Work]:
    """Works of ``size`` images each from a folder."""
    sources = list_sources([str(folder)])
    return [Work.new(sources[start : start + size]) for start in range(0, len(sources), size)]


def assert_same(one: Done, other: Done) -> None:
    """Compare all that was said, to the bit; only the time that it took may differ."""
    assert one.rows == other.rows
    assert one.shard == other.shard
    assert_same_batch(one.batch, other.batch)


def assert_same_batch(one: Batch, other: Batch) -> None:
    """Compare what stages said, to the bit."""
    for name in ("images", "boxes_xyxy", "class_scores"):
        _equal(getattr(one.detected, name), getattr(other.detected, name))
    assert one.segmented.masks == other.segmented.masks
    _equal(one.segmented.scores, other.segmented.scores)
    _equal(one.classified.probs, other.classified.probs)
    _equal(one.classified.embeddings, other.classified.embeddings)
    _equal(one.resolved.proposals, other.resolved.proposals)
    _equal(one.resolved.label_ids, other.resolved.label_ids)
    assert (one.resolved.ids, one.resolved.labels) == (other.resolved.ids, other.resolved.labels)
    assert list(one.notes) == list(other.notes)
    for stage, notes in one.notes.items():
        assert (notes.dropped, notes.failures, notes.labels) == (
            other.notes[stage].dropped,
            other.notes[stage].failures,
            other.notes[stage].labels,
        )


def _equal(one: np.ndarray | None, other: np.ndarray | None) -> None:
    assert (one is None) == (other is None)
    if one is not None:
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        np.testing.assert_array_equal(one, other)
