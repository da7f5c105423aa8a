"""Pushing a run to a CVAT that answers as the recorded one does, through the unmodified SDK."""

from __future__ import annotations

import pytest

import autolabel
from autolabel.errors import AutolabelError, UsageError
from autolabel.issues import write_issues
from autolabel.types import LabelIssue
from autolabel_connectors.receipts import open_receipts
from tests.cvat.sync import Bench, bench, expected_ids  # noqa: F401


@pytest.mark.parametrize("shape", ["auto", "box", "mask", "polygon"])
def test_a_push_makes_project_tasks_and_regions_and_the_same_again_changes_nothing(bench: Bench, make_run, shape):
    run = make_run(6)
    report = bench.push(run, shape=shape)
    assert report.counts["create project"] == 1
    assert report.counts["create region"] == sum(len(item.annotations) for item in run)
    held = [bench.attributes(s)["annotation_id"] for s in bench.server.human.shapes(bench.tasks[0])]
    assert sorted(held) == expected_ids(list(run))
    for item in run:
        for annotation in item.annotations:
            shape_held = bench.shape_of(annotation.id)
            assert bench.labels()[shape_held["label_id"]] == annotation.label
            assert shape_held["source"] == "auto"
            assert float(bench.attributes(shape_held)["score"]) == pytest.approx(annotation.score, abs=1e-4)
    before = bench.essence()
    assert bench.writes(lambda: bench.push(run, shape=shape)) == 0
    assert bench.push(run, shape=shape).changes == ()
    assert bench.essence() == before
