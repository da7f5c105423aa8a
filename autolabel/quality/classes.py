"""Which class an evidence box shows: a probe on what is known of it, fitted to the labels of other images."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from autolabel.quality.material import Evidence
from autolabel.quality.ragged import Ints, Reals

MOST_ROWS = 20_000
FEWEST_OF_A_CLASS = 5
"""A class with fewer labels cannot teach a probe; the models' own opinions stand for it."""


def class_judge(evidence: Evidence, label_of: Ints, folds: Ints, classes: int) -> Reals | None:
    """Class probabilities ``(M, K)`` of evidence boxes, each fold's from a probe on the other folds' labels.

    ``label_of`` ``(M,)`` is the label each box lies on, -1 for none. None where the evidence holds no distribution.
    """
    if not evidence.opinions:
        return None
    x = class_features(evidence)
    raw = pooled_opinion(evidence, classes)
    result = raw.copy()
    for fold in np.unique(folds):
        mine = folds == fold
        taught = np.flatnonzero(~mine & (label_of >= 0))
        probe = fit_probe(x[taught], label_of[taught])
        if probe is not None:
            seen, predict = probe
            result[mine] = blended(predict(x[mine]), raw[mine], seen)
    return result


def class_features(evidence: Evidence) -> Reals:
    """Log opinions and embeddings ``(M, F)``."""
    parts = [np.log(np.clip(values.astype(np.float64), 1e-3, 1.0)) for _, values in evidence.opinions]
    if evidence.embeddings is not None:
        parts.append(evidence.embeddings.astype(np.float64) * 4.0)
    return np.column_stack(parts)


def pooled_opinion(evidence: Evidence, classes: int) -> Reals:
    """Geometric mean of the opinions over the classes, normalised ``(M, K)``; negatives are left out."""
    total = np.zeros((len(evidence), classes))
    for _, values in evidence.opinions:
        p = np.clip(values[:, :classes].astype(np.float64), 1e-3, 1.0)
        total += np.log(p / p.sum(1, keepdims=True))
    p = np.exp(total / max(len(evidence.opinions), 1))
    return np.asarray(p / p.sum(1, keepdims=True), np.float32)


def fit_probe(x: Reals, y: Ints) -> tuple[Ints, Callable[[Reals], Reals]] | None:
    """Fit a multinomial logistic regression to classes with enough rows; None where fewer than two have them."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    counts = np.bincount(y) if len(y) else np.zeros(0, np.int64)
    seen = np.flatnonzero(counts >= FEWEST_OF_A_CLASS)
    if len(seen) < 2:
        return None
    rows = np.flatnonzero(np.isin(y, seen))
    if len(rows) > MOST_ROWS:
        rows = np.random.default_rng(0).choice(rows, MOST_ROWS, replace=False)
    scaler = StandardScaler().fit(x[rows])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=0.02, max_iter=100, tol=1e-3).fit(scaler.transform(x[rows]), y[rows])
    return model.classes_, lambda values: model.predict_proba(scaler.transform(values))


def blended(known: Reals, raw: Reals, seen: Ints) -> Reals:
    """Spread the probe's probabilities over the classes it knows, and leave the others their raw share."""
    result = raw.copy()
    share = raw[:, seen].sum(1, keepdims=True)
    result[:, seen] = known * share
    return np.asarray(result / np.maximum(result.sum(1, keepdims=True), 1e-9), np.float32)
