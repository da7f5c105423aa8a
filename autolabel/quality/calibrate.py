"""Probabilities that mean what they say: ridge logistic regression and per-class Platt scaling, cross-fitted.

Nothing is judged by a curve that was fitted on it: images are divided into folds, and a fold's values come from a fit
on the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from autolabel.quality.ragged import Flags, Ints, Reals

FOLDS = 5
MOST_ROWS = 6_000
"""A fit of some twenty weights is no better for more rows than these."""
_STEPS = 12
_CLOSE = 1e-2
"""A step this small is the last: Newton's next one would be about its square."""
_CLASS_RIDGE = 100.0
"""Weight of the pooled curve against a class's own: a class needs about this many rows to leave it."""


def folds_of(images: Ints, count: int = FOLDS) -> Ints:
    """Fold of each row ``(N,)`` by its image, so that rows of one image stay together; the same on every call."""
    mixed = (images.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(40)) % np.uint64(count)).astype(np.int64)


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold linear algebra to one thread: matrices of twenty columns take up to four times as long on several."""
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def sigmoid(values: Reals) -> Reals:
    """Logistic function."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)))


def logit(probabilities: Reals, clip: float = 0.005) -> Reals:
    """Log odds of probabilities, kept within ``clip`` of 0 and 1."""
    p = np.clip(np.asarray(probabilities, np.float64), clip, 1 - clip)
    return np.asarray(np.log(p / (1 - p)))


@dataclass(frozen=True, slots=True)
class Logistic:
    """Ridge logistic regression: standardised features, weights, and the log odds of the fit's classes."""

    mean: Reals
    scale: Reals
    weights: Reals

    @classmethod
    def fit(cls, x: Reals, y: Flags, *, ridge: float = 1.0, sample_weight: Reals | None = None) -> Logistic:
        """Fit ``(N, F)`` features to ``(N,)`` outcomes by Newton's method; one outcome alone gives its prior."""
        if len(x) > MOST_ROWS:
            rows = np.random.default_rng(0).choice(len(x), MOST_ROWS, replace=False)
            x, y = x[rows], y[rows]
            sample_weight = None if sample_weight is None else sample_weight[rows]
        count, features = x.shape
        # A row for each feature: sums over labels then run along memory.
        design = np.empty((features + 1, count))
        design[0], scaled = 1.0, design[1:]
        scaled[:] = x.T
        mean = scaled.mean(1) if count else np.zeros(features)
        scaled -= mean[:, None]
        scale = np.sqrt(np.einsum("fn,fn->f", scaled, scaled) / max(count, 1))
        scale = np.where(scale > 1e-6, scale, 1.0)
        scaled /= scale[:, None]
        weight = np.ones(count) if sample_weight is None else sample_weight
        # The intercept's small penalty keeps it finite where all outcomes are alike.
        penalty = np.full(features + 1, ridge)
        penalty[0] = 0.05
        beta = np.zeros(features + 1)
        # The gradient says where the steps end, the curvature only how soon: single precision is enough for it.
        coarse = design.astype(np.float32)
        weighted = np.empty_like(coarse)
        for _ in range(_STEPS):
            p = sigmoid(beta @ design)
            curvature = np.maximum(p * (1 - p), 1e-5) * weight
            gradient = design @ (weight * (y - p)) - penalty * beta
            np.multiply(coarse, curvature.astype(np.float32), out=weighted)
            step = np.linalg.solve(weighted @ coarse.T + np.diag(penalty), gradient)
            beta += np.clip(step, -4, 4)
            if np.abs(step).max() < _CLOSE:
                break
        return cls(mean, scale, beta)

    def log_odds(self, x: Reals) -> Reals:
        """Log odds ``(N,)`` of the outcome for ``(N, F)`` features."""
        slope = self.weights[1:] / self.scale
        return np.asarray(np.asarray(x, np.float64) @ slope + (self.weights[0] - self.mean @ slope))


@dataclass(frozen=True, slots=True)
class ClassPlatt:
    """Platt scaling for each class, drawn towards the pooled curve: log odds become ``offset + slope · log odds``."""

    offset: Reals
    slope: Reals

    @classmethod
    def fit(cls, log_odds: Reals, y: Flags, classes: Ints, count: int, ridge: float = _CLASS_RIDGE) -> ClassPlatt:
        """Fit ``(N,)`` log odds to outcomes, a Newton step for all classes at once; class -1 belongs to none."""
        offset, slope = np.zeros(count), np.ones(count)
        known = np.flatnonzero(classes >= 0)
        # Rows of a class lie together, so that sums are of spans; small integers are sorted by radix.
        known = known[np.argsort(classes[known].astype(np.min_scalar_type(count)), kind="stable")]
        z, outcome, k = np.clip(log_odds[known], -8, 8), y[known].astype(np.float64), classes[known]
        add = _Adder(k, count)
        for _ in range(6):
            p = sigmoid(np.repeat(offset[add.groups], add.rows) + np.repeat(slope[add.groups], add.rows) * z)
            c, residual = np.maximum(p * (1 - p), 1e-5), outcome - p
            cz = c * z
            g0 = add(residual) - ridge / 4 * offset
            g1 = add(residual * z) - ridge * (slope - 1)
            h00, h01, h11 = add(c) + ridge / 4, add(cz), add(cz * z) + ridge
            determinant = h00 * h11 - h01 * h01
            offset += np.clip((h11 * g0 - h01 * g1) / determinant, -2, 2)
            slope += np.clip((h00 * g1 - h01 * g0) / determinant, -0.5, 0.5)
            np.clip(slope, 0.1, 3.0, out=slope)
        return cls(offset, slope)

    def apply(self, log_odds: Reals, classes: Ints) -> Reals:
        """Return scaled log odds ``(N,)``."""
        k = np.maximum(classes, 0)
        own = self.offset[k] + self.slope[k] * np.clip(log_odds, -8, 8)
        return np.where(classes >= 0, own, log_odds)


class _Adder:
    """Sums ``(count,)`` by group over rows in the order of their groups: ``groups`` occur, each with ``rows``."""

    def __init__(self, rows_groups: Ints, count: int) -> None:
        bounds = np.searchsorted(rows_groups, np.arange(count + 1))
        self.groups = np.flatnonzero(np.diff(bounds))
        self.rows = np.diff(bounds)[self.groups]
        self._starts, self._count = bounds[self.groups], count

    def __call__(self, values: Reals) -> Reals:
        sums = np.zeros(self._count)
        if len(self.groups):
            sums[self.groups] = np.add.reduceat(values, self._starts)
        return sums


@dataclass(frozen=True, slots=True)
class Curve:
    """A pooled logistic regression with each class's Platt scaling over it."""

    pooled: Logistic
    platt: ClassPlatt | None

    @classmethod
    def fit(cls, x: Reals, y: Flags, classes: Ints | None = None, count: int = 0, repeats: int = 1) -> Curve:
        """Fit features ``(N, F)`` to outcomes; ``classes`` ``(N,)`` of ``count``.

        Rows that are there ``repeats`` times over, with small changes, say little more than once.
        """
        pooled = Logistic.fit(x, y, ridge=float(repeats))
        platt = None
        if classes is not None:
            platt = ClassPlatt.fit(pooled.log_odds(x), y, classes, count, _CLASS_RIDGE * repeats)
        return cls(pooled, platt)

    def log_odds(self, x: Reals, classes: Ints | None = None) -> Reals:
        """Log odds ``(N,)``."""
        z = self.pooled.log_odds(x)
        return z if self.platt is None or classes is None else self.platt.apply(z, classes)


def cross_fit(
    x: Reals,
    y: Flags,
    folds: Ints,
    *,
    classes: Ints | None = None,
    count: int = 0,
    train: Flags | None = None,
) -> Reals:
    """Log odds ``(N,)`` of the outcome, each row's from a fit on the other folds; ``train``: which rows may teach."""
    result = np.zeros(len(x))
    teach = np.ones(len(x), np.bool_) if train is None else train
    with one_thread():
        for fold in np.unique(folds):
            mine, others = folds == fold, (folds != fold) & teach
            if not others.any():
                others = teach
            curve = Curve.fit(x[others], y[others], None if classes is None else classes[others], count)
            result[mine] = curve.log_odds(x[mine], None if classes is None else classes[mine])
    return result


@dataclass(frozen=True, slots=True)
class Reliability:
    """Points of a reliability diagram: mean predicted probability, observed rate and number of rows of each bin."""

    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    rows: tuple[int, ...]

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of the points from the diagonal, weighted by rows."""
        weight = np.array(self.rows, np.float64)
        gap = np.abs(np.array(self.predicted) - np.array(self.observed))
        return float((gap * weight).sum() / weight.sum()) if len(weight) and weight.sum() else 0.0


def reliability(probabilities: Reals, outcomes: Flags, bins: int = 10) -> Reliability:
    """Compare ``(N,)`` probabilities with what came out, in bins of equal width; empty bins are left out."""
    place = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    rows = np.bincount(place, minlength=bins)
    kept = np.flatnonzero(rows)
    predicted = np.bincount(place, probabilities, bins)[kept] / rows[kept]
    observed = np.bincount(place, outcomes.astype(np.float64), bins)[kept] / rows[kept]
    return Reliability(tuple(predicted.tolist()), tuple(observed.tolist()), tuple(rows[kept].tolist()))
