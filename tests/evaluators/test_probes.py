import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from ecgjax.evaluators import probes


@pytest.fixture(scope="module")
def features():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 6)) @ generator.normal(size=(6, 6))
    label = x @ generator.normal(size=(6, 3)) + generator.normal(size=(200, 3)) + 5
    label[generator.random(200) < 0.2, 1] = np.nan  # Its own pattern of missing labels.
    return x, label


def test_ridge_equals_scikit_learn_at_every_strength_and_missing_pattern(features):
    x, label = features
    for strength in (1e-3, 0.1, 10.0):
        got = probes.ridge(x[:150], label[:150], x[150:], label[150:], x[150:], strengths=[strength])
        for column, readout in enumerate(got):
            rows = ~np.isnan(label[:150, column])
            want = Ridge(alpha=strength * rows.sum()).fit(x[:150][rows], label[:150, column][rows])
            np.testing.assert_allclose(readout.test, want.predict(x[150:]), rtol=1e-8)


def test_ridge_takes_the_strength_with_the_least_validation_error(features):
    x, label = features
    chosen = probes.ridge(x[:40], label[:40], x[40:90], label[40:90], x[90:])
    for column, readout in enumerate(chosen):
        known = ~np.isnan(label[40:90, column])
        errors = {}
        for strength in probes.RIDGE_STRENGTHS:
            (alone,) = probes.ridge(
                x[:40], label[:40, [column]], x[40:90], label[40:90, [column]], x[40:90], strengths=[strength]
            )
            errors[strength] = np.mean((alone.test - label[40:90, column])[known] ** 2)
        assert readout.strength == min(errors, key=errors.get)


def test_logistic_equals_scikit_learn(features):
    x, label = features
    label = np.where(np.isnan(label), np.nan, label > 5)[:, 1]
    rows = ~np.isnan(label[:150])
    for strength in (1e-2, 1.0):
        got = probes.logistic(x[:150], label[:150], x[150:], label[150:], x[150:], strengths=[strength])
        model = LogisticRegression(C=1 / (strength * rows.sum()), tol=1e-8, max_iter=1000)
        want = model.fit(x[:150][rows], label[:150][rows]).predict_proba(x[150:])[:, 1]
        np.testing.assert_allclose(got.test, want, atol=1e-4)  # Both stop at a small gradient.


def test_logistic_takes_the_strength_with_the_least_validation_loss(features):
    x, _ = features
    noise = np.random.default_rng(1).integers(2, size=200).astype(float)
    got = probes.logistic(x[:60], noise[:60], x[60:], noise[60:], x[60:])
    assert got.strength == max(probes.LOGISTIC_STRENGTHS)  # Nothing to learn: the strongest penalty wins.


def test_constant_features_are_harmless():
    x = np.ones((10, 2)) * 1e6
    standardised = probes.Standardiser.of(x)(x + 1)
    np.testing.assert_array_equal(standardised, 0)
