import numpy as np
import pytest

from ecgjax.data.cohorts.synthetic import draw_parameters
from ecgjax.data.cohorts.synthetic.ceiling import _auroc, _r2, attainable
from ecgjax.data.cohorts.synthetic.cohort import TARGETS
from ecgjax.data.cohorts.synthetic.ecg_parameters import PARAMETERS

QUICK = {"subjects": 3000, "held_out": 1000, "bootstraps": 60}


@pytest.fixture(scope="module")
def sweep():
    return {strength: attainable(seed=0, strength=strength, **QUICK) for strength in (0.0, 1.0)}


def test_rows_have_the_results_format_with_the_value_inside_its_interval(sweep):
    rows = sweep[1.0]
    assert [row["target"] for row in rows] == [target.name for target in TARGETS]
    for row, target in zip(rows, TARGETS, strict=True):
        keys = ["target", "kind", "control", "input", "metric", "value", "low", "high", "n", "subjects"]
        assert list(row) == keys
        assert (row["kind"], row["control"], row["input"]) == (target.kind, target.control, "attainable")
        assert row["metric"] == {"regression": "r2", "binary": "auroc"}[target.kind]
        assert row["low"] <= row["value"] <= row["high"]
        assert row["n"] == row["subjects"] == 1000


def test_the_bound_rises_with_the_strength_of_the_coupling(sweep):
    for zero, one in zip(*sweep.values(), strict=True):
        if not one["control"]:
            assert zero["value"] < one["value"], one["target"]


def test_ecg_diagnoses_are_perfect_and_nothing_else_is(sweep):
    for row in sweep[1.0]:
        assert (row["value"] > 0.999) == row["control"], row["target"]


def test_the_bound_exceeds_what_one_parameter_gives_in_closed_form(sweep):
    """R2 from one Gaussian parameter is its squared correlation; all of them together know more."""
    heart, e = draw_parameters(20_000, seed=0)
    single = np.corrcoef(e[:, PARAMETERS.index("log_rv_terminal")], heart.rvedv_ml)[0, 1] ** 2
    row = next(row for row in sweep[1.0] if row["target"] == "RVEDV")
    assert 0.1 < single < row["low"]


def test_auroc_counts_ordered_pairs():
    truth, score = np.array([1.0, 0, 1, 0, 0]), np.array([0.9, 0.9, 0.4, 0.5, 0.1])
    # Pairs (positive, negative): .9 against .9 .5 .1 gives .5 + 1 + 1; .4 gives 0 + 0 + 1. 3.5 of 6.
    assert _auroc(truth, score) == pytest.approx(3.5 / 6)
    assert np.isnan(_auroc(np.ones(5), score))


def test_r2_is_the_share_of_variance():
    truth = np.array([1.0, 2, 3, 4])
    assert _r2(truth, truth) == 1
    assert _r2(truth, np.full(4, 2.5)) == 0
    assert _r2(truth, truth + 0.5) == pytest.approx(1 - 0.25 / 1.25)


def test_holding_out_more_than_half_is_refused():
    with pytest.raises(ValueError, match="600 of 1000 subjects held out"):
        attainable(seed=0, subjects=1000, held_out=600)
