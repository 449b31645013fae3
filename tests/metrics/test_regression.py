import numpy as np
import pytest

from ecgjax.metrics import regression

TRUTH = np.array([1.0, 2.0, np.nan, 3.0, 6.0])
PREDICTION = np.array([2.0, 2.0, 99.0, 2.0, 6.0])


def test_values_by_hand_and_missing_truth_is_left_out():
    # Observed truth 1 2 3 6: mean 3, squares about it 4 + 1 + 0 + 9 = 14; errors 1 0 1 0.
    assert regression.r2(TRUTH, PREDICTION) == pytest.approx(1 - 2 / 14)
    assert regression.mae(TRUTH, PREDICTION) == pytest.approx(0.5)
    assert regression.rmse(TRUTH, PREDICTION) == pytest.approx(np.sqrt(0.5))
    # Products about the means (3, 3): 2 + 1 + 0 + 9 = 12; squares 14 and 1 + 1 + 1 + 9 = 12.
    assert regression.pearson(TRUTH, PREDICTION) == pytest.approx(12 / np.sqrt(14 * 12))


def test_agrees_with_scikit_learn():
    from sklearn import metrics

    generator = np.random.default_rng(0)
    truth = generator.normal(size=50)
    prediction = truth + generator.normal(size=50)
    assert regression.r2(truth, prediction) == pytest.approx(metrics.r2_score(truth, prediction))
    assert regression.pearson(truth, prediction) == pytest.approx(np.corrcoef(truth, prediction)[0, 1])


def test_mean_prediction_scores_zero_and_constant_truth_has_no_score():
    truth = np.array([1.0, 2.0, 3.0])
    assert regression.r2(truth, np.full(3, 2.0)) == 0
    assert np.isnan(regression.r2(np.ones(3), truth))
    assert np.isnan(regression.pearson(truth, np.ones(3)))
    for metric in (regression.r2, regression.pearson, regression.mae, regression.rmse):
        assert np.isnan(metric(np.full(3, np.nan), truth))


def test_a_prediction_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="1 of 3 predictions are not finite"):
        regression.r2(np.arange(3.0), np.array([0.0, np.nan, 1.0]))
