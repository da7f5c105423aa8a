"""Which images people should see first, and under which name a run's models travel; the same for every tool."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from autolabel.types import AnnotatedImage, Annotation, LabelIssue

if TYPE_CHECKING:
    from autolabel.connect import Order
    from autolabel.dataset import Run

VERSION_PREFIX = "autolabel-"


def model_version(run: Run) -> str:
    """Name of the models behind a run's annotations.

    Thresholds are not part of it: Label Studio shows the predictions of one version only, so a version of their own for
    the few that a threshold changes would hide all the others.
    """
    keys = run.manifest.keys
    text = "\n".join((run.manifest.run_id, keys.detect, keys.segment, keys.classify))
    return f"{VERSION_PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def priority(item: AnnotatedImage, doubts: Iterable[LabelIssue], order: Order) -> float:
    """How soon a person should look at an image, in [0, 1], 1 first.

    ``noisiest``: 1 minus the worst quality of its label issues. ``uncertain``: 1 minus its least sure region, by the
    classifier's probability of the label where there is one, else the detector's score.
    """
    if order == "noisiest":
        return round(1.0 - min((doubt.quality for doubt in doubts), default=1.0), 6)
    if order == "uncertain":
        return round(1.0 - min(map(certainty, item.annotations), default=1.0), 6)
    return 0.0


def certainty(annotation: Annotation) -> float:
    """How sure the models are of an annotation's label, in [0, 1]."""
    probs = annotation.class_probs
    sure = annotation.score if probs is None or annotation.label_id >= len(probs) else probs[annotation.label_id]
    return float(min(max(sure, 0.0), 1.0))


def flagged(doubts: Iterable[LabelIssue], annotation_id: str | None) -> list[LabelIssue]:
    """Doubts that a person should look at about one annotation, or about the whole image; the worst first."""
    found = (doubt for doubt in doubts if doubt.flagged and doubt.annotation_id == annotation_id)
    return sorted(found, key=lambda doubt: doubt.quality)
