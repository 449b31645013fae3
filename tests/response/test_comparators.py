import dataclasses

import numpy as np
import planted
import pytest
import scipy.special
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ecgjax.response.comparators import classical, inputs, logistic
from ecgjax.response.comparators.classical import MODELS, Classical
from ecgjax.response.comparators.measures import SingleMeasure
from ecgjax.response.comparators.probe import EmbeddingProbe
from ecgjax.response.crossvalidation.contenders import Contender
from ecgjax.response.crossvalidation.folds import stratified
from ecgjax.response.crossvalidation.maps import out_of_fold_maps
from ecgjax.response.crossvalidation.predictions import predict_out_of_fold


@pytest.fixture(scope="module")
def world():
    patients, truth = planted.cohort(n=100, auc=0.85, noise=3, seed=3)
    patients.columns["gappy"] = np.where(np.arange(100) % 7, patients.columns["noise0"], np.nan)
    embedding = np.random.default_rng(0).normal(size=(100, 300))
    embedding[:, :20] += 0.5 * truth[:, None]
    return dataclasses.replace(patients, features={"ecg": embedding}), truth


def contenders(patients):
    columns = ("signal", "noise0", "noise1", "gappy")
    yield from (Classical(patients, columns, model) for model in MODELS)
    yield SingleMeasure(patients, "signal")
    yield EmbeddingProbe(patients, "ecg", "probe")


@pytest.fixture(scope="module")
def split(world):
    _, truth = world
    fold = stratified(truth, folds=4, seed=0)
    train, test = np.flatnonzero(fold != 0), np.flatnonzero(fold == 0)
    return train, truth[train], test, stratified(truth[train], folds=3, seed=1)


@pytest.mark.parametrize("strength", [1.0, 0.01])
@pytest.mark.parametrize("width", [5, 120])  # Fewer and more features than patients.
def test_the_path_equals_scikit_learn(strength, width):
    generator = np.random.default_rng(width)
    x = generator.normal(size=(60, width)) @ np.diag(np.linspace(0.1, 3, width)) + 2
    positive = generator.random(60) < scipy.special.expit(x[:, 0] - 2)
    path = logistic.fit_path(x, positive, strengths=(10.0, strength))
    want = LogisticRegression(C=1 / (60 * strength), tol=1e-9, max_iter=5000).fit(x, positive)
    np.testing.assert_allclose(path[1, :-1], want.coef_[0], atol=2e-4)
    np.testing.assert_allclose(logistic.margins(path, x)[1], want.decision_function(x), atol=2e-3)


def test_the_strength_is_the_one_with_the_least_inner_loss(world, split):
    patients, _ = world
    train, seen, test, inner = split
    x = inputs.chosen_columns(patients.columns, ("signal", "noise0", "noise1"))
    _, _, chosen = logistic.nested_margins(x[train], seen, x[test], inner, prepare=logistic.standardised)
    losses = {}
    for strength in logistic.STRENGTHS:
        held = np.empty(len(train))
        for k in range(3):
            fitted, asked = logistic.standardised(x[train][inner != k], x[train][inner == k])
            model = LogisticRegression(C=1 / (strength * len(fitted)), tol=1e-9, max_iter=2000)
            held[inner == k] = model.fit(fitted, seen[inner != k]).decision_function(asked)
        losses[strength] = np.mean(np.logaddexp(0, held) - held * seen)
    assert chosen == min(losses, key=losses.get)


def test_contenders_find_a_planted_signal_and_answer_alike_again(world, split):
    patients, truth = world
    train, seen, test, inner = split
    for contender in contenders(patients):
        assert isinstance(contender, Contender)
        first, second = (contender.fit_predict(train, seen, test, inner=inner, seed=5) for _ in range(2))
        np.testing.assert_array_equal(first.score, second.score)
        assert roc_auc_score(truth[test], first.score) > 0.65, contender.name
        assert roc_auc_score(seen, first.inner) > 0.65, contender.name
        assert np.all((first.probability > 0) & (first.probability < 1))
        assert roc_auc_score(truth[test], first.probability) == roc_auc_score(truth[test], first.score)


def test_no_test_patient_changes_the_answer_about_another(world, split):
    # Standardising or imputing by all patients, or by the test fold, would.
    patients, _ = world
    train, seen, test, inner = split
    for contender in contenders(patients):
        whole = contender.fit_predict(train, seen, test, inner=inner, seed=0)
        columns = {name: values.copy() for name, values in patients.columns.items()}
        for values in columns.values():
            values[test[1:]] = 1e3 * np.arange(1, len(test))
        features = {name: values.copy() for name, values in patients.features.items()}
        features["ecg"][test[1:]] *= 1e3
        changed = dataclasses.replace(
            contender, patients=dataclasses.replace(patients, columns=columns, features=features)
        )
        alone = changed.fit_predict(train, seen, test, inner=inner, seed=0)
        np.testing.assert_allclose(alone.score[0], whole.score[0], rtol=1e-9)
        np.testing.assert_allclose(alone.inner, whole.inner, rtol=1e-9)


def test_gaps_are_filled_by_training_patients_and_marked():
    train = np.array([[1.0, np.nan, 5.0, np.nan], [2.0, 4.0, 5.0, np.nan], [6.0, 8.0, 5.0, np.nan]])
    test = np.array([[np.nan, np.nan, 7.0, 3.0]])
    fitted, asked = inputs.filled(train, test)
    assert fitted.shape == (3, 5)  # One indicator: only the second column has gaps in training.
    np.testing.assert_allclose(fitted.mean(axis=0), 0, atol=1e-12)
    scale = np.std([1, 2, 6])
    assert asked[0, 0] == pytest.approx((2 - 3) / scale)  # The median of training.
    assert asked[0, 1] == 0  # The median, 6, is also the mean of 6, 4 and 8.
    assert asked[0, 2] == 0  # Constant in training.
    assert asked[0, 3] == 0  # Unknown in training.
    assert asked[0, 4] == pytest.approx((1 - 1 / 3) / np.std([1, 0, 0]))


@pytest.mark.parametrize(
    "column",
    [
        "lvef_post",
        "lvesv_post",
        "response",
        "followup_months",
        "died_before_followup",
        "LVEF_change",
        "split",
    ],
)
def test_columns_that_know_the_outcome_are_refused_by_name(world, column):
    patients, _ = world
    patients = dataclasses.replace(patients, columns={**patients.columns, column: patients.columns["signal"]})
    with pytest.raises(ValueError, match=f"column '{column}' is known only after implantation"):
        Classical(patients, ("signal", column), "logistic")
    with pytest.raises(ValueError, match=f"column '{column}' is known only after implantation"):
        SingleMeasure(patients, column)


def test_no_column_of_the_cohort_is_mistaken_for_an_outcome():
    clinical = (
        "age female nyha ischaemic sinus_rhythm atrial_fibrillation paced lvef_pre lvesv_pre qrs_ms lbbb"
    )
    peaks = [
        "r_peak_time_v5_ms",
        "r_peak_time_v6_ms",
        "notched_leads",
        "lbbb_strauss",
        "lbbb_aha",
        "lbbb_esc",
    ]
    measured = [f"ecg_{n}" for n in (*peaks, "qrs_ms", "qrs_area_uvs", "axis_deg", "pr_ms", "rate_bpm")]
    inputs.refuse_outcomes(clinical.split(" ") + measured)


def test_wrong_inputs_are_refused(world):
    patients, _ = world
    with pytest.raises(ValueError, match="no column 'qrs'; choose from gappy"):
        Classical(patients, ("qrs",), "logistic")
    with pytest.raises(ValueError, match="model 'lasso' is unknown; choose from logistic"):
        Classical(patients, ("signal",), "lasso")
    with pytest.raises(ValueError, match="no input column"):
        Classical(patients, (), "logistic")
    with pytest.raises(ValueError, match="no features 'cmr'; choose from ecg"):
        EmbeddingProbe(patients, "cmr", "probe")


def seen(extra, *, places=(2, 3), size=60):
    """Patients whose embedding is the mean of maps of two leads and three channels; `extra` where the truth is 1."""
    patients, truth = planted.cohort(n=size, noise=0, seed=5)
    activation = np.random.default_rng(1).normal(size=(size, 2, *places, 3))
    activation[truth == 1, 1, -1, 0, 2] += extra
    features = {"ecg": activation.mean((2, 3)).reshape(size, 6)}
    probe = EmbeddingProbe(dataclasses.replace(patients, features=features), "ecg", "probe", activation)
    return probe, truth, stratified(truth, folds=4, seed=0)


def test_maps_lie_where_the_outcome_was_planted_and_see_no_test_patient():
    probe, truth, fold = seen(6.0, places=(4, 5), size=120)
    maps = out_of_fold_maps(probe, truth, fold[None], inner=3, seed=0)
    with_outcome, without = maps[truth == 1].mean(0), maps[truth == 0].mean(0)
    assert np.unravel_index(with_outcome.argmax(), maps.shape[1:]) == (1, 3, 0)
    assert with_outcome[1, 3, 0] > 3 * without[1, 3, 0]
    dealt = np.where(fold == 0, 1 - truth, truth)  # What the test patients' outcomes are changes nothing.
    train, test = np.flatnonzero(fold != 0), np.flatnonzero(fold == 0)
    inner = stratified(truth[train], folds=3, seed=1)
    again = probe.explain(train, dealt[train], test, inner=inner)
    np.testing.assert_array_equal(probe.explain(train, truth[train], test, inner=inner), again)


def test_the_map_of_one_place_is_what_the_leads_add_to_the_log_odds():
    probe, truth, fold = seen(2.0, places=(1, 1))
    train, test = np.flatnonzero(fold != 0), np.flatnonzero(fold == 0)
    inner = stratified(truth[train], folds=3, seed=1)
    maps = probe.explain(train, truth[train], test, inner=inner)[:, :, 0, 0]
    scores = probe.fit_predict(train, truth[train], test, inner=inner, seed=0)
    whole = (maps > 0).all(axis=1)  # Elsewhere a lead that speaks against the outcome was cut off at 0.
    assert whole.sum() > 3
    added = scipy.special.logit(scores.probability)[whole] - maps[whole].sum(axis=1)
    np.testing.assert_allclose(added, added[0], atol=1e-6)  # The intercept.


def test_a_measure_may_be_told_to_count_downwards(world):
    patients, truth = world
    up, down = (
        predict_out_of_fold(
            SingleMeasure(patients, "signal", higher=higher),
            truth,
            stratified(truth, folds=4, seed=0)[None],
            inner=3,
            seed=0,
        )
        for higher in (True, False)
    )
    np.testing.assert_array_equal(up.score, -down.score)
    np.testing.assert_allclose(up.probability, down.probability)


def test_a_sigmoid_that_would_turn_ranks_round_is_flat():
    truth = np.repeat([0.0, 1.0], [6, 4])
    slope, level = classical._platt(-truth + 0.1 * np.arange(10), truth)
    assert (slope, level) == (0.0, pytest.approx(np.log(4 / 6)))
