import csv
import dataclasses
import io
import math

import numpy as np
import planted
import pytest

from ecgjax.evaluators.base import Results
from ecgjax.metrics.classification import auroc
from ecgjax.response.comparators.measures import SingleMeasure
from ecgjax.response.crossvalidation.contenders import Scores, margin
from ecgjax.response.crossvalidation.predictions import predictions_csv
from ecgjax.response.crossvalidation.run import CrossValidation

SETTINGS = CrossValidation(repeats=4, folds=5, inner=3, draws=400, permutations=400, reference="signal")


@pytest.fixture(scope="module")
def world():
    patients, truth = planted.cohort()
    patients.columns["gappy"] = np.where(np.arange(len(truth)) % 10, patients.columns["signal"], np.nan)
    return patients, truth


@pytest.fixture(scope="module")
def results(world):
    patients, truth = world
    return SETTINGS.run(patients, truth, [SingleMeasure(patients, c) for c in ("signal", "noise0", "gappy")])


def row(results, name, metric):
    (found,) = (row for row in results.rows if (row.input, row.metric) == (name, metric))
    return found


def test_the_planted_auroc_lies_in_its_interval_and_noise_covers_a_half(results):
    for metric in ("auroc", "auroc_fold_mean"):
        signal, noise = row(results, "signal", metric), row(results, "noise0", metric)
        assert signal.low < 0.8 < signal.high
        assert signal.low > 0.6
        assert noise.low < 0.5 < noise.high
    assert results.scalars["signal|permutation_p"] == 1 / 401
    assert results.scalars["noise0|permutation_p"] > 0.05


def test_patients_not_evaluable_are_counted_and_left_out(results):
    found = row(results, "gappy", "accuracy@youden")
    assert (found.n, found.note) == (108, "12 of 120 patients not evaluable")
    assert results.scalars["gappy|not_evaluable"] == 12
    missing = np.arange(120) % 10 == 0
    for field in ("score", "probability", "decision"):
        np.testing.assert_array_equal(np.isnan(results.arrays[f"gappy|{field}"]), np.tile(missing, (4, 1)))
    difference = row(results, "signal - gappy", "auroc_difference")
    assert (difference.n, difference.value, difference.low, difference.high) == (108, 0, 0, 0)


def test_results_come_back_from_disk_and_the_table_holds_every_prediction(tmp_path, results):
    results.write(tmp_path, step=3, checkpoint="", objective="crossvalidation")
    back = Results.read(tmp_path, "crossvalidation", 3)
    table = list(csv.DictReader(io.StringIO(predictions_csv(back))))
    assert len(table) == 3 * 4 * 120
    assert list(table[0]) == [
        *("contender", "patient", "repeat", "fold", "y", "score", "probability", "threshold", "decision")
    ]
    for line in table[::97]:
        patient, repeat = list(back.arrays["subject"]).index(line["patient"]), int(line["repeat"])
        assert int(line["fold"]) == back.arrays["fold"][repeat, patient]
        assert int(line["y"]) == back.arrays["y"][patient]
        for field in ("score", "probability", "threshold", "decision"):
            value = results.arrays[f"{line['contender']}|{field}"][repeat, patient]
            assert (
                line[field] == ""
                if math.isnan(value)
                else float(line[field]) == pytest.approx(value, rel=1e-8)
            )
    assert {line["decision"] for line in table if line["contender"] == "gappy"} == {"", "0", "1"}


def test_values_are_means_over_repeats_of_the_pooled_metric(world, results):
    _, truth = world
    decision = results.arrays["noise0|decision"]
    found = row(results, "noise0", "sensitivity@youden")
    assert found.value == pytest.approx(decision[:, truth == 1].mean())
    probability = results.arrays["noise0|probability"]
    assert row(results, "noise0", "brier").value == pytest.approx(np.mean((probability - truth) ** 2))
    assert row(results, "noise0", "accuracy@0.5").value == pytest.approx(
        np.mean((probability >= 0.5) == (truth == 1))
    )


def test_means_of_folds_stand_beside_what_is_pooled(world, results):
    """Folds of 24 patients with 12 of either outcome: accuracy and sensitivity are alike, PPV is not."""
    _, truth = world
    decision, fold = results.arrays["noise0|decision"], results.arrays["fold"]
    each = []
    for repeat in range(4):
        for k in range(5):
            rows = fold[repeat] == k
            if decision[repeat, rows].any():
                each.append((repeat, truth[rows][decision[repeat, rows] == 1].mean()))
    want = np.mean([np.mean([ppv for at, ppv in each if at == repeat]) for repeat in range(4)])
    assert row(results, "noise0", "ppv_fold_mean@youden").value == pytest.approx(want)
    assert row(results, "noise0", "ppv@youden").value != pytest.approx(want, abs=1e-4)
    for metric in ("accuracy", "sensitivity"):
        pooled, mean = (row(results, "noise0", f"{metric}{how}@youden").value for how in ("", "_fold_mean"))
        assert mean == pytest.approx(pooled)
    names = {each.metric for each in results.rows if each.input == "noise0"}
    assert {"auprc_fold_mean", "specificity_fold_mean@0.5", "npv_fold_mean@0.5"} <= names


def test_differences_are_paired_and_signed(results):
    difference = row(results, "signal - noise0", "auroc_difference")
    signal, noise = (row(results, name, "auroc") for name in ("signal", "noise0"))
    assert difference.value == pytest.approx(signal.value - noise.value)
    assert 0 < difference.low < difference.value < difference.high
    assert results.scalars["signal - noise0|mcnemar_p"] < 0.05
    only = results.scalars["signal - noise0|mcnemar_only_first_right"]
    assert only > results.scalars["signal - noise0|mcnemar_only_second_right"]


@dataclasses.dataclass(frozen=True, eq=False)
class Spy:
    """Learns the prevalence only, and notes what it was shown."""

    seen: list
    name: str = "spy"

    def fit_predict(self, train, truth, test, *, inner, seed):
        self.seen.append((train, truth, test, inner, seed))
        probability = np.full(len(test), truth.mean())
        return Scores(margin(probability, truth), probability, np.full(len(train), np.nan))


def test_a_contender_is_shown_the_truth_of_its_training_patients_only(world):
    patients, truth = world
    spy = Spy([])
    results = dataclasses.replace(SETTINGS, reference=None).run(patients, truth, [spy])
    assert len(spy.seen) == 20
    assert len({seed for *_, seed in spy.seen}) == 20
    for train, seen, test, inner, _ in spy.seen:
        assert sorted([*train, *test]) == list(range(120))
        np.testing.assert_array_equal(seen, truth[train])
        assert np.bincount(inner).tolist() == [32, 32, 32]
    assert not [
        each for each in results.rows if each.metric.endswith("@youden")
    ]  # No inner probability, no threshold.


def test_a_fit_that_learnt_nothing_scores_a_half_and_not_less():
    patients, truth = planted.cohort(n=73)  # Folds of unequal prevalence.
    results = dataclasses.replace(SETTINGS, reference=None).run(patients, truth, [Spy([])])
    assert row(results, "spy", "auroc").value == 0.5
    raw = [auroc(truth, repeat) for repeat in results.arrays["spy|probability"]]
    assert max(raw) < 0.48


def test_a_learning_curve_trains_on_less(world):
    patients, truth = world
    spy = Spy([])
    settings = dataclasses.replace(
        SETTINGS, repeats=2, curve=(0.5, 0.25), curve_of=("spy",), curve_repeats=1, reference=None
    )
    results = settings.run(patients, truth, [spy])
    assert len(spy.seen) == settings.fits(1)
    sizes = [len(train) for train, *_ in spy.seen]
    assert sizes == [96] * 10 + [24] * 5 + [48] * 5
    assert row(results, "spy", "auroc@25_percent").note == "trained on 0.25 of each training set, 1 repeats"
    for train, _, test, *_ in spy.seen:
        assert not set(train) & set(test)


def test_a_curve_goes_without_fractions_that_leave_too_few():
    """The cohort of the paper, were 20 of its 71 patients no responders: 16 are trained on, a quarter of them is 4."""
    truth = (np.arange(71) >= 20).astype(float)
    settings = dataclasses.replace(SETTINGS, inner=5, curve=(0.25, 0.5))
    with pytest.raises(ValueError, match=r"only 4 patients without \(of 20, 5 folds, fraction 0\.25\)"):
        settings.fold(truth)
    assert settings.possible(truth).curve == (0.5,)
    settings.possible(truth).fold(truth)
    assert dataclasses.replace(settings, inner=4).possible(truth).curve == (0.25, 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repeats": 0}, "repeats is 0"),
        ({"inner": 1}, "inner is 1"),
        ({"curve": (1.0,)}, "curve holds 1.0"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **changes)


def test_wrong_contenders_are_refused(world):
    patients, truth = world
    spy = Spy([])
    with pytest.raises(ValueError, match="reference names 'signal', which takes no part; choose from spy"):
        SETTINGS.run(patients, truth, [spy])
    plain = dataclasses.replace(SETTINGS, reference=None)
    with pytest.raises(ValueError, match="two contenders are called 'spy'"):
        plain.run(patients, truth, [spy, spy])
    with pytest.raises(ValueError, match=r"contender name 'a\|b' is no file name"):
        plain.run(patients, truth, [Spy([], "a|b")])
    with pytest.raises(ValueError, match="no column 'qrs'; choose from gappy, noise0"):
        SingleMeasure(patients, "qrs")
