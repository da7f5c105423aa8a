"""A small run in FiftyOne, and what a reviewer's session does to it."""

from __future__ import annotations

from typing import Any

import autolabel
from autolabel.reviewing import ApplyReport, RefreshOptions, RefreshReport, Reviewer
from autolabel.types import Box, LabelIssue


def quiet(*_: object) -> None:
    """Show no progress."""


def refresh(reviewer: Reviewer, run: autolabel.Run, **options: Any) -> RefreshReport:
    """Bring the dataset up to date with the run as it is stored now."""
    return reviewer.refresh(autolabel.Run.open(run.path), RefreshOptions(**options), quiet)


def apply(reviewer: Reviewer, run: autolabel.Run, **options: Any) -> ApplyReport:
    """Bring what was decided in the dataset into the run."""
    return reviewer.apply(autolabel.Run.open(run.path), **{"by": "ann", "dry_run": False, "on_step": quiet, **options})


def labels_of(run: autolabel.Run, path: str) -> list[tuple[str, str]]:
    """Label and origin of an image's annotations, as stored now."""
    return [(a.label, a.origin) for a in autolabel.Run.open(run.path)[path].annotations]


def region(sample: Any, label: str | None) -> Any:
    """The one region of a class."""
    (found,) = [region for region in sample.annotations.detections if region.label == label]
    return found


def issues_of(run: autolabel.Run) -> list[LabelIssue]:
    """Issues of four kinds in the first three images, and one of a label that is not there."""
    first, second, third = list(run)[:3]
    bad = second.annotations[0]
    return [
        LabelIssue("label", second.image.path, second.image.id, 0.1, True, "looks like a dent", bad.id, "dent"),
        LabelIssue("label", first.image.path, first.image.id, 0.8, False, "fine", first.annotations[0].id),
        LabelIssue(
            "overlooked", third.image.path, third.image.id, 0.2, True, "missed", None, "dent", Box(1, 30, 9, 40)
        ),
        LabelIssue(
            "near-duplicate", first.image.path, first.image.id, 0.05, True, "alike", related=(third.image.path,)
        ),
        LabelIssue("label", first.image.path, first.image.id, 0.3, True, "gone", "no such annotation"),
    ]
