import dataclasses

import numpy as np
import pytest
from heart_world import TARGETS, World, phenotypes, separable

from ecgjax.data.cohorts.base import Target
from ecgjax.evaluators.predictions import Predictions
from ecgjax.metrics import classification, regression


def biased(batch):
    """Right up to a shift and noise that the first lead holds."""
    out = separable(batch)
    return {**out, "prediction": out["prediction"] + 5 * batch["ecg"][:, 0, :4]}


def truth_and_prediction(world, split):
    prediction = phenotypes(world.latent[split]) + 5 * world.ecg[split][:, 0, :4]
    return world.table[split].label, prediction


def test_rows_are_of_the_test_split_and_scalars_of_both(world):
    results = Predictions(draws=20).run(biased, world.splits())
    found = {(row.target, row.metric): row.value for row in results.rows}
    truth, prediction = truth_and_prediction(world, "test")
    assert found["LVEF", "pearson"] == pytest.approx(regression.pearson(truth[:, 0], prediction[:, 0]))
    assert found["DCM", "auprc"] == pytest.approx(classification.auprc(truth[:, 2], prediction[:, 2]))
    assert all(row.low <= row.value <= row.high for row in results.rows)
    truth, prediction = truth_and_prediction(world, "val")
    assert results.scalars["val|LVM|rmse"] == pytest.approx(regression.rmse(truth[:, 1], prediction[:, 1]))
    both = [regression.rmse(truth[:, m], prediction[:, m]) for m in (0, 1)]
    assert results.scalars["val|head|regression|rmse"] == pytest.approx(np.mean(both))
    assert results.scalars["val|head|binary|auprc"] > results.scalars["val|paper|binary|auprc"]


def test_missing_targets_are_counted_as_the_reference_does(world):
    plain, counted = (
        Predictions(missing=missing, draws=2).run(biased, world.splits()).scalars
        for missing in ("excluded", "counted")
    )
    assert counted["test|head|regression|mae"] < plain["test|head|regression|mae"]
    assert counted["test|LVEF|mae"] == plain["test|LVEF|mae"]


def test_chosen_targets_alone_are_scored_and_saved(world):
    def one(batch):
        out = separable(batch)
        return {**out, "prediction": out["prediction"][:, 2:3], "logits": np.zeros((len(batch["mask"]), 2))}

    results = Predictions(targets=("DCM",), draws=20).run(one, world.splits())
    assert {row.target for row in results.rows} == {"DCM"}
    assert results.arrays["test|logits"].shape == (130, 2)
    assert results.arrays["val|embedding"].shape == (60, 4)
    assert results.arrays["test|truth"].shape == results.arrays["test|prediction"].shape == (130, 1)
    with pytest.raises(ValueError, match=r"predicts \(1,\) values an example, targets names 4 label columns"):
        Predictions().run(one, world.splits())


def test_crops_are_averaged():
    def by_crop(batch):
        out = separable(batch)
        return {**out, "prediction": out["prediction"] + batch["crop"][:, None]}

    world = World(crops=3)
    arrays = Predictions(draws=2).run(by_crop, world.splits()).arrays
    np.testing.assert_allclose(arrays["test|prediction"], phenotypes(world.latent["test"]) + 1, atol=1e-4)


def test_one_hot_classes_have_one_accuracy(world):
    two = tuple(Target(name, "binary") for name in ("healthy", "ill"))
    ill = (world.latent["test"][:, 2] > 0.5).astype(np.float32)

    def examples(split):
        sick = (world.latent[split][:, 2] > 0.5).astype(np.float32)
        return dataclasses.replace(world.table[split], label=np.stack([1 - sick, sick], 1))

    def predict(batch):
        score = batch["latent"][:, 2:3]
        return {**separable(batch), "prediction": np.concatenate([0 * score + 0.7, score], 1)}

    splits = dataclasses.replace(world.splits(), targets=two, examples=examples)
    got = Predictions(draws=2).run(predict, splits).scalars["test|classes|accuracy"]
    assert got == pytest.approx(np.mean((world.latent["test"][:, 2] > 0.7) == (ill == 1)))
    assert len(TARGETS) == 4  # The world itself has conditions that may meet.
    assert "test|classes|accuracy" not in Predictions(draws=2).run(biased, world.splits()).scalars
