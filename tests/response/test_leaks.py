import dataclasses

import numpy as np
import planted
import pytest

from ecgjax.response.comparators.classical import Classical
from ecgjax.response.crossvalidation.contenders import Scores
from ecgjax.response.crossvalidation.leaks import permuted_labels
from ecgjax.response.crossvalidation.patients import Patients
from ecgjax.response.crossvalidation.run import CrossValidation

RUN = {"permutations": 12, "folds": 5, "inner": 3, "seed": 0}


@pytest.fixture(scope="module")
def null():
    return planted.cohort(n=80, auc=0.5, noise=40, seed=11)


def chosen_on_all(patients: Patients, truth: np.ndarray) -> Classical:
    """The classical mistake: keep the columns that correlate with the outcome among ALL patients."""
    names = list(patients.columns)
    strength = [abs(np.corrcoef(patients.columns[name], truth)[0, 1]) for name in names]
    best = np.argsort(strength)[::-1][:5]
    return Classical(patients, tuple(names[i] for i in best), "logistic")


def test_an_honest_contender_predicts_nothing_of_permuted_labels(null):
    patients, truth = null
    honest = Classical(patients, tuple(patients.columns), "logistic")
    found = permuted_labels(lambda dealt: honest, truth, observed=0.9, **RUN)
    assert not found.leaks
    assert abs(found.auroc.mean() - 0.5) < 0.06
    assert found.p == 1 / 13
    assert dataclasses.replace(found, observed=0.0).p == 1.0


def test_choosing_columns_on_all_patients_is_caught(null):
    patients, truth = null
    found = permuted_labels(lambda dealt: chosen_on_all(patients, dealt), truth, observed=0.8, **RUN)
    assert found.leaks
    assert found.auroc.mean() > 0.6


def test_two_permutations_at_least(null):
    with pytest.raises(ValueError, match="permutations is 1"):
        permuted_labels(lambda dealt: None, null[1], observed=0.5, **{**RUN, "permutations": 1})


@dataclasses.dataclass(frozen=True, eq=False)
class Blind:
    name: str = "blind"

    def fit_predict(self, train, truth, test, *, inner, seed):
        return Scores(np.zeros(len(test)), np.full(len(test), 0.5), np.full(len(train), 0.5))


def test_a_run_reports_what_permuted_labels_gave(null):
    patients, truth = null
    said = []
    settings = CrossValidation(
        repeats=1, draws=50, permutations=50, label_permutations=3, permuted_of=("blind",)
    )
    results = settings.run(patients, truth, [Blind()], told=said.append)
    assert settings.fits(1) == 20
    assert results.scalars["blind|leak_alarm"] == 0
    assert results.scalars["blind|permuted_auroc_mean"] == 0.5
    assert results.scalars["blind|refitted_permutation_p"] == 1
    np.testing.assert_array_equal(results.arrays["blind|permuted_auroc"], [0.5] * 3)
    assert said[-1] == "permuted labels of blind: mean AUROC 0.500, nothing is predicted"
