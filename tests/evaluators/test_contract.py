"""What every registered evaluator must satisfy."""

import dataclasses

import numpy as np
import pytest
from heart_world import World, separable, unrelated

from ecgjax.core.result_files import results_path
from ecgjax.evaluators import EVALUATORS
from ecgjax.evaluators.base import Results

# Baselines ask no checkpoint: test_linear_probe has them.
ASKING = [name for name in EVALUATORS if name != "baselines"]
SETTINGS = {"classes": {"targets": ("DCM",)}}


def make(name):
    return EVALUATORS[name](**SETTINGS.get(name, {}))


def asked(name, predict):
    """The predictions as an evaluator wants them: of exclusive classes there is one column for the condition."""
    if name != "classes":
        return predict

    def of_one_condition(batch):
        out = predict(batch)
        return {**out, "prediction": out["prediction"][:, 2:3]}

    return of_one_condition


def scores(name, results):
    """What is 1 at best, with its value at chance, by evaluator."""
    if name == "linear_probe":
        return [(row.value, 0.0 if row.metric == "r2" else 0.5) for row in results.rows]
    if name == "predictions":
        chance = {"r2": 0.0, "pearson": 0.0, "auroc": 0.5}  # That of AUPRC is the prevalence.
        return [(row.value, chance[row.metric]) for row in results.rows if row.metric in chance]
    if name == "classes":
        return [(results.scalars[f"{split}|balanced_accuracy"], 0.5) for split in ("val", "test")]
    if name == "retrieval":
        return [
            (results.scalars[f"{way}/recall@5"], results.scalars["chance/recall@5"])
            for way in ("ecg_to_cmr", "cmr_to_ecg")
        ]
    if name == "grad_cam":
        return [(results.scalars[f"{target}/told_apart"], 0.5) for target in ("DCM", "AF")]
    if name == "localisation":
        return [(results.scalars[f"{half}/partner_auc"], 0.5) for half in ("ecg", "cmr")]
    if name == "reconstruction":
        model, zero = (results.scalars[f"mse_hidden/{answer}"] for answer in ("model", "zero"))
        return [(1 - model / zero, 0.0)]
    raise AssertionError(f"say here what a perfect score of {name} is")


@pytest.fixture(scope="module")
def answers(world):
    return {
        (name, predict): make(name).run(asked(name, predict), world.splits())
        for name in ASKING
        for predict in (separable, unrelated)
    }


@pytest.mark.parametrize("name", ASKING)
def test_separable_predictions_score_perfectly(answers, name):
    for value, _ in scores(name, answers[name, separable]):
        assert value > 0.99


@pytest.mark.parametrize("name", ASKING)
def test_predictions_without_content_score_at_chance(answers, name):
    for value, chance in scores(name, answers[name, unrelated]):
        assert abs(value - chance) < 0.15


@pytest.mark.parametrize("name", ASKING)
@pytest.mark.parametrize("changed", [World(padding="nan"), World(batch_size=7)], ids=["nan", "batch of 7"])
def test_padding_and_batch_size_do_not_change_the_answer(answers, name, changed):
    # Batched sums differ in the last bit only.
    want, got = answers[name, separable], make(name).run(asked(name, separable), changed.splits())
    assert [dataclasses.replace(row, value=0.0, low=0.0, high=0.0) for row in got.rows] == [
        dataclasses.replace(row, value=0.0, low=0.0, high=0.0) for row in want.rows
    ]
    for a, b in zip(got.rows, want.rows, strict=True):
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=1e-9, nan_ok=True)
    assert got.scalars == pytest.approx(want.scalars, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", ASKING)
def test_results_survive_the_disc_and_have_no_pickle(answers, name, tmp_path):
    results = answers[name, unrelated]
    path = results.write(tmp_path, step=40, checkpoint="abc", objective="masked")
    assert path == results_path(tmp_path, results.evaluator, 40)
    back = Results.read(tmp_path, results.evaluator, 40)
    assert repr(list(back.rows)) == repr(list(results.rows))  # NaN is unlike itself.
    assert back.scalars == pytest.approx(results.scalars, abs=0, nan_ok=True)
    assert back.arrays.keys() == results.arrays.keys()
    for key, value in results.arrays.items():
        np.testing.assert_array_equal(back.arrays[key], value)
    assert not [p for p in path.parent.iterdir() if "partial" in p.name]


@pytest.mark.parametrize("name", ASKING)
def test_what_the_checkpoint_does_not_predict_is_named(world, name):
    def nothing(batch):
        return {"nothing": np.zeros((len(batch["mask"]), 4), np.float32)}

    with pytest.raises(ValueError, match=make(name).keys[0]):
        make(name).run(nothing, world.splits())


@pytest.mark.parametrize("name", ASKING)
def test_a_broken_prediction_is_refused(world, name):
    def broken(batch):
        out = {key: np.array(value, np.float32) for key, value in separable(batch).items()}
        for value in out.values():
            value[0] = np.nan
        return out

    with pytest.raises(ValueError, match="not finite"):
        make(name).run(asked(name, broken), world.splits())
