"""Cross-fitted probabilities."""

from __future__ import annotations

import numpy as np

from autolabel.quality.calibrate import ClassPlatt, Curve, cross_fit, folds_of, reliability, sigmoid


def test_an_image_is_in_one_fold_and_folds_are_filled():
    images = np.repeat(np.arange(500), 3)
    folds = folds_of(images)
    assert (folds.reshape(-1, 3) == folds[::3, None]).all()
    assert np.bincount(folds, minlength=5).min() > 150


def test_probabilities_mean_what_they_say():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 2))
    truth = sigmoid(1.5 * x[:, 0] - 1)
    y = rng.random(5000) < truth
    p = sigmoid(cross_fit(x, y, folds_of(np.arange(5000))))
    assert np.abs(p - truth).mean() < 0.02
    assert reliability(p, y).error < 0.03


def test_a_class_of_its_own_gets_a_curve_of_its_own():
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 2, 4000)
    x = rng.normal(size=(4000, 1))
    y = rng.random(4000) < sigmoid(x[:, 0] + np.where(classes == 1, 2.0, -2.0))
    curve = Curve.fit(x, y, classes, 2)
    middle = sigmoid(curve.log_odds(np.zeros((2, 1)), np.array([0, 1])))
    assert middle[0] < 0.25
    assert middle[1] > 0.75


def test_a_class_without_rows_keeps_the_pooled_curve():
    platt = ClassPlatt.fit(np.array([1.0, -1.0]), np.array([True, False]), np.array([0, 0]), 3)
    np.testing.assert_allclose(platt.apply(np.array([0.7]), np.array([2])), [0.7])


def test_the_order_of_rows_and_rows_of_no_class_change_no_curve():
    rng = np.random.default_rng(3)
    z, classes = rng.normal(size=300), rng.integers(-1, 4, 300) * 2
    y = rng.random(300) < sigmoid(z + classes)
    order, known = rng.permutation(300), classes >= 0
    fits = [ClassPlatt.fit(z[rows], y[rows], classes[rows], 9) for rows in (np.arange(300), order, known)]
    for other in fits[1:]:
        np.testing.assert_allclose((other.offset, other.slope), (fits[0].offset, fits[0].slope), atol=1e-9)


def test_noise_that_is_fitted_says_nothing_about_itself():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(200, 20)), rng.random(200) < 0.5
    p = sigmoid(cross_fit(x, y, folds_of(np.arange(200))))
    assert abs(p[y].mean() - p[~y].mean()) < 0.1


def test_one_outcome_only_stays_finite():
    z = cross_fit(np.zeros((20, 2)), np.ones(20, np.bool_), folds_of(np.arange(20)))
    assert np.isfinite(z).all()
