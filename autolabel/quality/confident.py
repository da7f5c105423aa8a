"""Confident learning (cleanlab) on labels and class probabilities that did not make them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from autolabel.errors import UsageError
from autolabel.quality.ragged import Flags, Ints, Reals

FEWEST = 20
"""Below this many judged labels, joint counts mean nothing; the opinions alone decide."""
DISAGREEMENT = 0.5
_LARGE = 20_000_000


@dataclass(frozen=True, slots=True)
class Verdicts:
    """For N labels: the probability of the given class (quality), whether to look, and the likeliest class.

    ``method`` says how the flags were found. ``circular`` says that the probabilities made the labels, so that nothing
    can be said: no flag is set.
    """

    quality: Reals
    flagged: Flags
    suggested: Ints
    method: str
    circular: bool = False


def confident_learning(labels: Ints, probabilities: Reals, *, flags: int | None = None) -> Verdicts:
    """Judge labels ``(N,)`` by class probabilities ``(N, K)``; ``flags`` asks for that many, the worst, instead.

    Raises UsageError where shapes or ranges do not fit.
    """
    count, classes = _checked(labels, probabilities)
    suggested = probabilities.argmax(1).astype(np.int64) if count else np.zeros(0, np.int64)
    own = _own(labels, probabilities)
    none = np.zeros(count, np.bool_)
    if classes < 2:
        return Verdicts(np.ones(count, np.float32), none, suggested, "one class: there is nothing to confuse it with")
    if count and (suggested == labels).all() and count >= FEWEST:
        return Verdicts(own, none, suggested, "probabilities agree with every label", circular=True)
    if flags is not None:
        flagged = none.copy()
        flagged[_ranked(labels, probabilities)[:flags]] = True
        return Verdicts(own, flagged, suggested, f"the {flags} worst by cleanlab's normalised margin")
    if count < FEWEST:
        flagged = (suggested != labels) & (own < DISAGREEMENT / 2)
        return Verdicts(
            own, flagged, suggested, f"{count} labels are too few for confident learning: the opinion alone"
        )
    return Verdicts(own, _cleanlab(labels, probabilities), suggested, "confident learning (cleanlab)")


def _cleanlab(labels: Ints, probabilities: Reals) -> Flags:
    """Take cleanlab's flags, over the classes that some label has; its counts are undefined for the others."""
    seen = np.unique(labels)
    if len(seen) < 2:
        return np.asarray((probabilities.argmax(1) != labels) & (_own(labels, probabilities) < DISAGREEMENT / 2))
    place = np.zeros(probabilities.shape[1], np.int64)
    place[seen] = np.arange(len(seen))
    # What the other classes hold stays apart: a box that looks like an unused class is no proof of the given one.
    narrow = np.asarray(probabilities[:, seen], np.float64)
    narrow /= np.maximum(narrow.sum(1, keepdims=True), 1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if narrow.size > _LARGE:
            return _in_batches(place[labels], narrow)
        from cleanlab.filter import find_label_issues

        return np.asarray(find_label_issues(place[labels], narrow, n_jobs=1), np.bool_)


def _own(labels: Ints, probabilities: Reals) -> Reals:
    """Probability of each given label ``(N,)``."""
    return np.asarray(probabilities[np.arange(len(labels)), labels], np.float32)


def _in_batches(labels: Ints, probabilities: Reals) -> Flags:
    from cleanlab.experimental.label_issues_batched import find_label_issues_batched

    rows = find_label_issues_batched(labels, probabilities, batch_size=50_000, n_jobs=1, verbose=False)
    flagged = np.zeros(len(labels), np.bool_)
    flagged[rows] = True
    return flagged


def _ranked(labels: Ints, probabilities: Reals) -> Ints:
    from cleanlab.rank import get_label_quality_scores

    scores = get_label_quality_scores(labels, np.asarray(probabilities, np.float64), method="normalized_margin")
    return np.argsort(scores, kind="stable").astype(np.int64)


def _checked(labels: Ints, probabilities: Reals) -> tuple[int, int]:
    if probabilities.ndim != 2 or len(labels) != len(probabilities):
        raise UsageError(f"probabilities must be (N, K) for N labels, got {probabilities.shape} for {len(labels)}")
    if not np.isfinite(probabilities).all() or (probabilities < 0).any():
        raise UsageError("probabilities must be finite and at least 0")
    sums = probabilities.sum(1)
    if len(sums) and not np.allclose(sums, 1, atol=0.01):
        worst = float(sums[np.abs(sums - 1).argmax()])
        raise UsageError(f"each row of probabilities must sum to 1, got {worst:.3f}; normalise over the classes")
    if len(labels) and (labels.min() < 0 or labels.max() >= probabilities.shape[1]):
        raise UsageError(f"labels must be in [0, {probabilities.shape[1] - 1}], got {labels.min()} to {labels.max()}")
    return len(labels), int(probabilities.shape[1])
