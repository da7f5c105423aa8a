"""Regions that look like no other: cleanlab's out-of-distribution score on the stored embeddings."""

from __future__ import annotations

import warnings

import numpy as np

from autolabel.quality.ragged import Flags, Reals

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
        chosen = np.random.default_rng(0).permutation(len(embeddings))[:_REFERENCE]
        reference = embeddings[np.sort(chosen)].astype(np.float32)
        model = OutOfDistribution({"k": min(_NEIGHBOURS, len(reference) - 1)})
        inside = model.fit_score(features=reference, verbose=False)
        quality = np.zeros(len(embeddings), np.float32)
        others = np.setdiff1d(np.arange(len(embeddings)), chosen)
        quality[np.sort(chosen)] = inside
        for first in range(0, len(others), _BATCH):
            rows = others[first : first + _BATCH]
            quality[rows] = model.score(features=embeddings[rows].astype(np.float32))
    # cleanlab's score falls exponentially with the distance to the neighbours: the fence is one of distances.
    distance = -np.log(np.clip(quality, 1e-12, 1))
    low, high = np.quantile(distance, [0.25, 0.75])
    fence = max(high + 3 * (high - low), float(np.quantile(distance, 1 - _MOST_SHARE)))
    return np.clip(quality, 0, 1).astype(np.float32), distance > fence
