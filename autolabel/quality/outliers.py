"""Regions that look like no other: cleanlab's out-of-distribution score on the stored embeddings."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from autolabel.quality.ragged import Flags, Ints, Reals

FEWEST = 50
_REFERENCE = 5_000
_NEIGHBOURS = 10
_BATCH = 4_000
_MOST_SHARE = 0.02


def find_outliers(embeddings: Reals) -> tuple[Reals, Flags] | None:
    """Quality ``(N,)`` and flags of embeddings ``(N, D)``; None when there are too few to compare with.

    Flagged is what lies further from its neighbours than the far fence of a box plot, and never more than 2 %.
    """
    if len(embeddings) < FEWEST:
        return None
    from cleanlab.outlier import OutOfDistribution

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chosen = np.sort(np.random.default_rng(0).permutation(len(embeddings))[:_REFERENCE])
        reference = embeddings[chosen].astype(np.float32)
        model = OutOfDistribution({"k": min(_NEIGHBOURS, len(reference) - 1)})
        quality = np.zeros(len(embeddings), np.float32)
        quality[chosen] = model.fit_score(features=reference, verbose=False)
        others = np.setdiff1d(np.arange(len(embeddings)), chosen)
        if len(others):
            quality[others] = _scored(model, embeddings, others, reference)
    # cleanlab's score falls exponentially with the distance to the neighbours: the fence is one of distances.
    distance = -np.log(np.clip(quality, 1e-12, 1))
    low, high = np.quantile(distance, [0.25, 0.75])
    fence = max(high + 3 * (high - low), float(np.quantile(distance, 1 - _MOST_SHARE)))
    return np.clip(quality, 0, 1).astype(np.float32), distance > fence


def _scored(model: Any, embeddings: Reals, rows: Ints, reference: Reals) -> Reals:
    """Score rows ``(P,)`` as cleanlab's fitted ``model`` does, which takes sixteen times as long for it.

    It asks twice, and sorts all distances. The cosine distance of unit vectors is half the squared Euclidean one, of
    which scikit-learn keeps only the smallest as it goes.
    """
    from sklearn.neighbors import NearestNeighbors

    cosine = model.params["knn"].metric == "cosine"  # cleanlab takes another for up to three numbers
    count, scale = model.params["k"], model.params["scaling_factor"]
    nearest = NearestNeighbors(n_neighbors=count, metric="sqeuclidean", algorithm="brute").fit(_unit(reference, 0))
    quality = np.zeros(len(rows), np.float32)
    for first in range(0, len(rows), _BATCH):
        features = embeddings[rows[first : first + _BATCH]].astype(np.float32)
        if cosine:
            squared, _ = nearest.kneighbors(_unit(features, 1))
            quality[first : first + _BATCH] = np.exp(-squared.mean(1) / 2 / scale)
        else:
            quality[first : first + _BATCH] = model.score(features=features)
    return quality


def _unit(vectors: Reals, side: int) -> Reals:
    """Scale vectors ``(N, D)`` to length one, ``(N, D + 2)``; empty ones get a direction that no other ``side`` has."""
    lengths = np.linalg.norm(vectors, axis=1)
    result = np.zeros((len(vectors), vectors.shape[1] + 2), np.float32)
    result[:, :-2] = vectors / np.maximum(lengths, 1e-12)[:, None]
    result[lengths == 0, side - 2] = 1.0
    return result
