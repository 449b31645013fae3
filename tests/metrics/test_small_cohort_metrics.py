"""Thresholds, calibration, repeated and paired metrics against scikit-learn, scipy and counts by hand."""

import itertools

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from sklearn import metrics as sk

from ecgjax.metrics import calibration, paired, repeated, thresholds
from ecgjax.metrics.draws import auprc_draws, auroc_draws


@pytest.fixture(scope="module")
def scored():
    generator = np.random.default_rng(0)
    truth = generator.permutation(np.repeat([0.0, 1.0], [23, 17]))
    probability = scipy.special.expit(truth * 1.2 - 0.3 + generator.normal(size=40))
    return truth, probability


def alone(draws, truth, values):
    """The metrics of the set itself: of one draw that takes every patient once."""
    drawn = draws(truth, values, np.ones((1, len(truth))))
    return {name: value[0] for name, value in drawn.items()} if isinstance(drawn, dict) else drawn[0]


def test_youden_is_the_best_of_all_thresholds(scored):
    truth, probability = scored
    found = thresholds.youden(truth, probability)
    best = max(
        sk.balanced_accuracy_score(truth, probability >= cut) for cut in [0, *np.unique(probability), 1.1]
    )
    assert sk.balanced_accuracy_score(truth, probability >= found) == pytest.approx(best)
    assert found not in probability  # Midway, so that a neighbour on either side decides alike.


def test_youden_of_equals_takes_the_middle_and_of_nothing_nothing():
    truth, score = np.array([0.0, 1, 0, 1, 0, 1]), np.arange(6.0)
    assert thresholds.youden(truth, score) == 2.5  # 0.5, 2.5 and 4.5 are equally good.
    assert np.isnan(thresholds.youden(truth, np.ones(6)))
    assert np.isnan(thresholds.youden(np.ones(6), score))
    assert thresholds.youden(np.array([0.0, 1, 1]), np.array([1.0, 2, np.nan])) == 1.5


def test_rates_count_what_they_say():
    truth, decision = np.array([1.0, 1, 1, 0, 0, 0, 0]), np.array([1.0, 1, 0, 1, 0, 0, 0])
    assert alone(thresholds.rate_draws, truth, decision) == pytest.approx(
        {
            "accuracy": 5 / 7,
            "balanced_accuracy": (2 / 3 + 3 / 4) / 2,
            "sensitivity": 2 / 3,
            "specificity": 3 / 4,
            "ppv": 2 / 3,
            "npv": 3 / 4,
        }
    )
    nobody = alone(thresholds.rate_draws, truth, np.zeros(7))
    assert np.isnan(nobody["ppv"])
    assert nobody["npv"] == 4 / 7


def test_rates_of_draws_are_those_of_the_drawn_patients(scored):
    truth, probability = scored
    decision = (probability >= 0.5).astype(float)
    counts = repeated.patient_draws(truth, draws=5, seed=0)
    drawn = thresholds.rate_draws(truth, decision, counts)
    for row, count in enumerate(counts.astype(int)):
        taken = np.repeat(np.arange(40), count)
        want = alone(thresholds.rate_draws, truth[taken], decision[taken])
        assert {name: values[row] for name, values in drawn.items()} == pytest.approx(want)
        assert want["ppv"] == pytest.approx(sk.precision_score(truth[taken], decision[taken]))


def test_brier_equals_scikit_learn(scored):
    assert alone(calibration.brier_draws, *scored) == pytest.approx(sk.brier_score_loss(*scored))


def test_recalibration_is_the_maximum_of_the_likelihood(scored):
    truth, probability = scored
    x = scipy.special.logit(probability)

    def loss(theta, slope=None):
        level, slope = theta[0], theta[1] if slope is None else slope
        return np.sum(np.logaddexp(0, slope * x + level) - truth * (slope * x + level))

    want = scipy.optimize.minimize(loss, [0.0, 1.0], options={"gtol": 1e-8}).x
    large = scipy.optimize.minimize(lambda theta: loss(theta, 1.0), [0.0], options={"gtol": 1e-8}).x
    found = alone(calibration.recalibration_draws, truth, probability)
    assert found["calibration_slope"] == pytest.approx(want[1], abs=1e-5)
    assert found["calibration_intercept"] == pytest.approx(want[0], abs=1e-5)
    assert found["calibration_in_the_large"] == pytest.approx(large[0], abs=1e-5)


def test_recalibration_recovers_what_was_done_to_calibrated_probabilities():
    generator = np.random.default_rng(1)
    x = generator.normal(size=40_000)
    truth = (generator.random(40_000) < scipy.special.expit(x)).astype(float)
    # Too extreme, and too high.
    found = alone(calibration.recalibration_draws, truth, scipy.special.expit(2 * x + 1))
    assert found["calibration_slope"] == pytest.approx(0.5, abs=0.03)
    assert found["calibration_intercept"] == pytest.approx(-0.5, abs=0.05)
    assert found["calibration_in_the_large"] < 0


def test_recalibration_without_a_maximum_is_nan():
    truth = np.array([0.0, 0, 1, 1])
    separated = alone(calibration.recalibration_draws, truth, np.array([0.1, 0.2, 0.8, 0.9]))
    assert np.isnan(separated["calibration_slope"])
    flat = alone(calibration.recalibration_draws, truth, np.full(4, 0.25))
    assert np.isnan(flat["calibration_slope"])
    assert flat["calibration_in_the_large"] == pytest.approx(np.log(3))


def test_recalibration_draws_are_those_of_the_drawn_patients(scored):
    truth, probability = scored
    counts = repeated.patient_draws(truth, draws=4, seed=1)
    drawn = calibration.recalibration_draws(truth, probability, counts)
    for row, count in enumerate(counts.astype(int)):
        taken = np.repeat(np.arange(40), count)
        want = alone(calibration.recalibration_draws, truth[taken], probability[taken])
        assert {name: values[row] for name, values in drawn.items()} == pytest.approx(want, abs=1e-6)


def test_values_are_means_over_repeats_and_draws_take_one(scored):
    truth, probability = scored
    scores = probability + np.random.default_rng(2).normal(size=(3, 40))
    counts = repeated.patient_draws(truth, draws=7, seed=0)
    index = np.arange(40)
    found = repeated.over_repeats(
        lambda repeat, drawn: {
            "auroc": auroc_draws(truth, scores[repeat], index, drawn),
            "auprc": auprc_draws(truth, scores[repeat], index, drawn),
        },
        counts,
        repeats=3,
    )
    np.testing.assert_array_equal(repeated.pooled(auroc_draws, truth, scores, counts), found["auroc"])
    for name, want in (("auroc", sk.roc_auc_score), ("auprc", sk.average_precision_score)):
        assert found[name][0] == pytest.approx(np.mean([want(truth, row) for row in scores]))
        for draw, weight in enumerate(counts):
            assert found[name][draw + 1] == pytest.approx(want(truth, scores[draw % 3], sample_weight=weight))


def test_the_fold_mean_leaves_out_folds_that_lack_a_class(scored):
    truth, probability = scored
    fold = np.arange(40) % 5
    fold[:6] = 5
    truth = np.append([0.0, 0, 0, 0, 0, 1], truth[6:])  # The last fold loses its positive in many draws.
    counts = repeated.patient_draws(truth, draws=20, seed=0)
    decision = (probability >= 0.8).astype(float)

    def metrics(rows, weights):
        auroc = auroc_draws(truth[rows], probability[rows], np.arange(len(rows)), weights)
        return {"auroc": auroc, "ppv": thresholds.rate_draws(truth[rows], decision[rows], weights)["ppv"]}

    found = repeated.fold_mean(metrics, truth, fold, counts)
    dropped = nobody = 0
    for draw, weight in enumerate(counts):
        each, ppv = [], []
        for k in range(6):
            rows = (fold == k) & (weight > 0)
            if len(np.unique(truth[rows])) < 2:
                continue
            each.append(sk.roc_auc_score(truth[rows], probability[rows], sample_weight=weight[rows]))
            if decision[rows].any():
                ppv.append(sk.precision_score(truth[rows], decision[rows], sample_weight=weight[rows]))
            else:
                nobody += 1
        dropped += 6 - len(each)
        assert found["auroc"][draw] == pytest.approx(np.mean(each))
        assert found["ppv"][draw] == pytest.approx(np.mean(ppv))
    assert dropped > 0
    assert nobody > 0


def test_mcnemar_is_the_binomial_test_of_the_discordant():
    first = np.array([True] * 9 + [False] * 2 + [True] * 5 + [False] * 4)
    second = np.array([False] * 9 + [True] * 2 + [True] * 5 + [False] * 4)
    found = paired.mcnemar(first, second)
    by_hand = 2 * sum(scipy.special.comb(11, k) for k in range(3)) / 2**11  # 2 of 11, both tails.
    assert (found.only_first, found.only_second) == (9, 2)
    assert found.p == pytest.approx(by_hand)
    assert paired.mcnemar(first, first).p == 1


def test_permutation_p_equals_the_enumeration_of_all_labellings():
    score = np.array([[0.1, 0.4, 0.35, 0.8, 0.9, 0.5, 0.2]])
    truth = np.array([0.0, 0, 1, 1, 1, 0, 0])
    observed = sk.roc_auc_score(truth, score[0])
    labellings = [np.isin(np.arange(7), chosen) for chosen in itertools.combinations(range(7), 3)]
    exact = np.mean([sk.roc_auc_score(each, score[0]) >= observed - 1e-12 for each in labellings])
    found = paired.permutation_p(truth, score, permutations=20_000, seed=0)
    assert found == pytest.approx(exact, abs=0.01)
    # Equal repeats add nothing.
    again = paired.permutation_p(truth, np.repeat(score, 3, axis=0), permutations=20_000, seed=0)
    assert again == pytest.approx(found)
