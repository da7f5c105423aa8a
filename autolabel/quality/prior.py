"""What is known of label errors before a run has told anything: comparisons fitted to generated pictures.

A run of fifty images cannot teach what its errors look like. `prior.json` holds logistic regressions that were fitted
on pictures with exact labels, by ``python -m benchmarks.noise_prior``, on what evidence says in terms of any detector:
a score counts by its distance from the threshold that divides labels from rejects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np

from autolabel.quality.calibrate import Logistic, Reliability, logit, sigmoid
from autolabel.quality.classes import pooled_opinion
from autolabel.quality.detection import KINDS, BoxScores, Overlooked
from autolabel.quality.from_run import CLASSIFIER, RunEvidence
from autolabel.quality.lessons import candidates
from autolabel.quality.material import Evidence, Labels, Pictures
from autolabel.quality.opinions import Opinions
from autolabel.quality.ragged import Ints, Reals, best_place, overlapping
from autolabel.quality.support import support_of
from autolabel.types import ModelInfo

Lesson = Literal["own", "own, second look", "others"]
"""Whose labels are judged, and by what: a run's own, without and with a second look; labels from elsewhere."""
LOST, ANY = "overlooked", "any"
FILE = "prior.json"
_YES = 0.5


@dataclass(frozen=True, slots=True)
class Views:
    """Features of labels ``(N, F)``, and of candidates ``(C, G)`` for a lost object, at evidence ``rows``."""

    labels: Reals
    rows: Ints
    free: Reals
    opinions: Opinions


def relative(evidence: Evidence, pivots: Reals, classes: int) -> Opinions:
    """Read scores by their distance from a threshold: one of ``pivots`` for each source of the evidence."""
    odds = logit(evidence.score) - logit(pivots)[evidence.source]
    certain = np.full(len(evidence), 0.9 if classes > 1 else 1.0, np.float32)
    judged = pooled_opinion(evidence, classes) if evidence.opinions else None
    return Opinions(evidence, sigmoid(odds).astype(np.float32), certain, judged, classes, None)


def usual_pivots(evidence: Evidence, labels: int) -> Reals:
    """Scores over which each source has as many boxes as there are labels, at most `_YES`."""
    pivots = []
    for number in range(len(evidence.names)):
        mine = np.sort(evidence.score[evidence.source == number])[::-1]
        pivots.append(min(_YES, float(mine[min(labels, len(mine)) - 1])) if len(mine) and labels else _YES)
    return np.array(pivots)


def views_of(
    labels: Labels, opinions: Opinions, pictures: Pictures, own: RunEvidence | None = None, place: Ints | None = None
) -> Views:
    """Gather features; ``own`` are the proposals that made the labels, ``place`` ``(N,)`` each label's row there."""
    told = support_of(labels, opinions, pictures).features
    rows, free = candidates(labels, opinions, pictures)
    if own is None or place is None:
        return Views(told, rows, free, opinions)
    said = _said(own)
    known = np.where(place >= 0, place, len(said) - 1)
    evidence, images = opinions.evidence, len(pictures)
    proposal = _nearest(evidence, own.evidence, images)
    beside = np.where(proposal >= 0, proposal, len(said) - 1)[rows]
    return Views(np.column_stack([told, said[known]]), rows, np.column_stack([free, said[beside]]), opinions)


def score_by_prior(lesson: Lesson, labels: Labels, views: Views, pictures: Pictures) -> tuple[BoxScores, Overlooked]:
    """Judge labels and candidates by what was learnt elsewhere.

    One regression says whether a label is wrong at all, one for each kind which error it is.
    """
    known = load()[lesson]
    wrong = sigmoid(known[ANY].log_odds(views.labels))
    kinds = {kind: sigmoid(known[kind].log_odds(views.labels)) for kind in KINDS}
    total = np.maximum(np.sum(list(kinds.values()), axis=0), 1e-9)
    error = {kind: wrong * values / total for kind, values in kinds.items()}
    lost = sigmoid(known[LOST].log_odds(views.free))
    support = support_of(labels, views.opinions, pictures)
    return BoxScores(error, {}, support), Overlooked(views.rows, lost, 0.0)


@cache
def curves() -> dict[str, dict[str, Reliability]]:
    """Read how well each lesson's probabilities held on pictures that were not fitted to."""
    values = _read()["checked"]
    return {
        lesson: {
            kind: Reliability(tuple(one["predicted"]), tuple(one["observed"]), tuple(one["rows"]))
            for kind, one in kinds.items()
        }
        for lesson, kinds in values.items()
    }


def strangers(models: Mapping[str, ModelInfo]) -> tuple[str, ...]:
    """Name the tasks of a run whose models have other weights than those that the comparisons were fitted with."""
    known = _read()["models"]
    weights = {"detector": None} | {task: model.weights_sha256 for task, model in models.items()}
    return tuple(task for task, digest in weights.items() if digest != known.get(task))


@cache
def load() -> dict[str, dict[str, Logistic]]:
    """Read the fitted regressions, by lesson and kind."""
    return {
        lesson: {
            kind: Logistic(*(np.array(one[name], np.float64) for name in ("mean", "scale", "weights")))
            for kind, one in kinds.items()
        }
        for lesson, kinds in _read()["lessons"].items()
    }


@cache
def _read() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(files("autolabel.quality").joinpath(FILE).read_text("utf-8"))
    return values


def _said(own: RunEvidence) -> Reals:
    """Ask classifier and segmenter about each proposal ``(M + 1, F)``; the last row is for what is no proposal."""
    evidence = own.evidence
    named = dict(evidence.opinions)
    columns: list[Reals] = [np.ones(len(evidence))]
    probs = named.get(CLASSIFIER)
    if probs is None:
        columns += [np.zeros(len(evidence))] * 4
    else:
        ranked = np.sort(probs.astype(np.float64), axis=1)[:, ::-1]
        second = ranked[:, 1] if ranked.shape[1] > 1 else np.full(len(evidence), 0.005)
        agrees = probs.argmax(1) == evidence.label
        columns += [logit(ranked[:, 0]), logit(second), logit(own.negative), agrees]
    scores = np.zeros(len(evidence)) if evidence.mask_score is None else np.nan_to_num(evidence.mask_score)
    columns.append(scores.astype(np.float64))
    said = np.column_stack([np.asarray(column, np.float64) for column in columns])
    return np.concatenate([said, np.zeros((1, said.shape[1]))])


def _nearest(evidence: Evidence, others: Evidence, images: int) -> Ints:
    """Row of the other box that lies best on each evidence box ``(M,)``; -1 below an IoU of 0.5."""
    a, b, iou = overlapping(
        evidence.boxes_xyxy, evidence.starts(images), others.boxes_xyxy, others.starts(images), floor=0.5
    )
    place = best_place(a, iou, len(evidence))
    return np.where(place >= 0, b[place], -1) if len(b) else np.full(len(evidence), -1, np.int64)
