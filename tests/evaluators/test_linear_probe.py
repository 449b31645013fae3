import dataclasses
import sys
import time
import types

import numpy as np
import pytest
from heart_world import TARGETS, World, separable, unrelated

import ecgjax.signals
from ecgjax.data.cohorts.base import Target
from ecgjax.evaluators.base import Examples, Splits
from ecgjax.evaluators.linear_probe import Baselines, LinearProbe
from ecgjax.metrics.classification import auroc
from ecgjax.metrics.regression import r2


def test_rows_agree_with_the_saved_predictions(world):
    results = LinearProbe(draws=100).run(unrelated, world.splits())
    for row in results.rows:
        truth, prediction = (
            results.arrays[f"{row.input}|{row.target}|{which}"] for which in ("truth", "prediction")
        )
        metric = {"r2": r2, "auroc": auroc}[row.metric]
        assert row.value == pytest.approx(metric(truth, prediction))
        assert row.low < row.value < row.high
        assert row.n == np.sum(~np.isnan(truth)) < 130
        assert row.subjects <= 65
    assert [(row.target, row.control) for row in results.rows] == [(t.name, t.control) for t in TARGETS]
    np.testing.assert_array_equal(results.arrays["record"], world.table["test"].record)


def test_the_mean_baseline_is_at_chance_for_every_target(world):
    rows = LinearProbe(inputs=("mean",)).run(separable, world.splits()).rows
    for row in rows:
        if row.metric == "auroc":
            assert (row.value, row.low, row.high) == (0.5, 0.5, 0.5)
        else:
            assert -0.1 < row.value <= 0


def test_test_labels_do_not_reach_the_fit(world):
    table = dict(world.table)
    table["test"] = dataclasses.replace(table["test"], label=table["test"].label[::-1])
    changed = dataclasses.replace(world.splits(), examples=table.__getitem__)
    a, b = (LinearProbe(draws=5).run(separable, s) for s in (world.splits(), changed))
    for name in a.arrays:
        if name.endswith("|prediction"):
            np.testing.assert_array_equal(a.arrays[name], b.arrays[name])


def test_fewer_labels_are_whole_subjects_and_another_question(world):
    probe = LinearProbe(max_labels=60, seed=3)
    results = probe.run(separable, world.splits())
    used = np.isin(world.table["train"].record, results.arrays["train_record"])
    subject = world.table["train"].subject
    assert used.sum() == results.scalars["train_examples"] == 60
    assert not set(subject[used]) & set(subject[~used])
    assert probe.name == "linear_probe-60_labels-seed3"
    assert LinearProbe(label_fraction=0.01).name == "linear_probe-1_percent"
    other = LinearProbe(max_labels=60, seed=4).run(separable, world.splits())
    assert set(other.arrays["train_record"]) != set(results.arrays["train_record"])


def test_targets_that_cannot_be_probed_are_rows_with_a_reason(world):
    table = {name: dataclasses.replace(t, label=t.label.copy()) for name, t in world.table.items()}
    table["train"].label[:, 0] = np.nan
    table["train"].label[:, 2] = 0
    table["test"].label[:, 3] = 1
    splits = dataclasses.replace(world.splits(), examples=table.__getitem__)
    rows = {row.target: row for row in LinearProbe(draws=10).run(separable, splits).rows}
    assert rows["LVEF"].note == "0 labels in the train split"
    assert rows["DCM"].note.startswith("all ")
    assert rows["DCM"].note.endswith("train labels are 0")
    assert rows["AF"].note == "all 130 test labels are 1"
    assert all(np.isnan(rows[name].value) for name in ("LVEF", "DCM", "AF"))
    assert rows["LVM"].value > 0.99


def test_signal_baselines_use_the_ecg_in_mv_and_survive_what_could_not_be_measured(world, monkeypatch):
    seen = []

    def hand_features(signal_mv, rate_hz):
        seen.append((signal_mv, rate_hz))
        values = np.append(signal_mv[:, :3].ravel(), len(seen))
        values = np.where(np.arange(7) == len(seen) % 7, np.nan, values)
        return {f"feature {i}": float(value) for i, value in enumerate(values)}

    module = types.SimpleNamespace(hand_features=hand_features, spectral_features=None)
    monkeypatch.setitem(sys.modules, "ecgjax.signals.features", module)
    monkeypatch.setattr(ecgjax.signals, "features", module, raising=False)
    results = LinearProbe(inputs=("hand_features",), draws=10).run(unrelated, world.splits())
    assert len(seen) == 240 + 60 + 130
    np.testing.assert_array_equal(seen[0][0], 2 * world.ecg["train"][0] + np.float32(0.1))
    assert seen[0][1] == 100
    assert all(row.input == "hand_features" and abs(row.value) < 0.7 for row in results.rows)


def test_inputs_that_are_no_vectors_are_refused():
    world = World()
    with pytest.raises(ValueError, match=r"'ecg' has shape \[n, 2, 20\]"):
        LinearProbe(inputs=("ecg",)).run(lambda batch: {"ecg": batch["ecg"]}, world.splits())


@pytest.mark.parametrize(
    "wrong",
    [{"inputs": ()}, {"label_fraction": 0.0}, {"label_fraction": 1.5}, {"max_labels": 0}, {"draws": 0}],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LinearProbe(**wrong)


def test_a_probe_of_realistic_size_takes_seconds():
    sizes = {"train": 4000, "val": 500, "test": 1000}
    generator = np.random.default_rng(0)
    latent = {s: generator.normal(size=(n, 128)).astype(np.float32) for s, n in sizes.items()}
    weight = generator.normal(size=(128, 12)) / 11
    label = {
        s: (x @ weight + generator.normal(size=(len(x), 12))).astype(np.float32) for s, x in latent.items()
    }
    for values in label.values():
        values[:, 7:] = values[:, 7:] > 1
    names = {s: np.array([f"{i:016x}" for i in range(n)]) for s, n in sizes.items()}
    splits = Splits(
        targets=tuple(Target(f"t{m}", "regression" if m < 7 else "binary") for m in range(12)),
        rate_hz=100.0,
        batches=lambda s: [{"index": np.arange(sizes[s]), "mask": np.ones(sizes[s], bool), "x": latent[s]}],
        examples=lambda s: Examples(names[s], names[s], label[s]),
        signals_mv=lambda s: None,
        to_mv=lambda s: None,
    )
    start = time.process_time()
    results = LinearProbe().run(lambda batch: {"ecg/embedding": batch["x"]}, splits)
    seconds = time.process_time() - start
    print(f"{seconds:.2f} s")
    assert all(row.value > (0.4 if row.metric == "r2" else 0.75) for row in results.rows)
    assert seconds < 20


def test_baselines_ask_no_checkpoint():
    assert Baselines().keys == ()
    assert Baselines(max_labels=300).name == "baselines-300_labels"
    with pytest.raises(ValueError, match="need a checkpoint"):
        Baselines(inputs=("ecg/embedding",))


def test_another_hash_key_labels_the_same_examples():
    label = np.zeros((40, 1), np.float32)
    chosen = []
    for seed in (0, 1):
        names = np.random.default_rng(seed).permutation(20).astype("U16")
        subject = np.repeat(names, 2)
        chosen.append(LinearProbe(max_labels=12)._labelled(Examples(subject, subject, label)))
    np.testing.assert_array_equal(*chosen)
    assert len(chosen[0]) == 12
