import dataclasses

import numpy as np
import pytest

from ecgjax.data.cohorts.base import Target
from ecgjax.evaluators.base import Results
from ecgjax.evaluators.classes import Classes, true_classes
from ecgjax.metrics import multiclass

NAMES = ("N", "S", "V")
NAN = float("nan")


def beats(world, *, cohort="mitbih"):
    """The world's examples in three exclusive classes by the first latent; every tenth is of none."""

    def examples(split):
        label = np.eye(3, dtype=np.float32)[classes(world, split)]
        label[::10] = 0
        return dataclasses.replace(world.table[split], label=label)

    targets = tuple(Target(name, "binary") for name in NAMES)
    return dataclasses.replace(world.splits(), targets=targets, examples=examples, cohort=cohort)


def classes(world, split):
    return np.digitize(world.latent[split][:, 0], (0.5, 1.5))


def shifted(batch):
    """Right where the class is not decided by a narrow margin."""
    found = np.digitize(np.nan_to_num(batch["latent"][:, 0]) + 0.3, (0.5, 1.5))
    return {"prediction": 0.1 + 0.7 * np.eye(3, dtype=np.float32)[found]}


def test_rows_scalars_and_arrays_say_one_thing(world):
    results = Classes(draws=50).run(shifted, beats(world))
    truth = classes(world, "test")
    decided = np.digitize(world.latent["test"][:, 0] + 0.3, (0.5, 1.5))
    known = np.arange(len(truth)) % 10 != 0
    counts = multiclass.confusion(truth[known], decided[known], classes=3)
    np.testing.assert_array_equal(results.arrays["test|confusion"], counts)
    np.testing.assert_array_equal(results.arrays["test|truth"], np.where(known, truth, -1))
    assert results.arrays["classes"].tolist() == list(NAMES)
    assert results.scalars["test|without_class"] == 13
    found = {(r.input, r.target, r.metric): r for r in results.rows}
    for name, value in zip(NAMES, multiclass.sensitivity(counts), strict=True):
        row = found["prediction", name, "sensitivity"]
        assert row.value == results.scalars[f"test|{name}|sensitivity"] == value
        assert row.low <= row.value <= row.high
        assert row.n == counts[NAMES.index(name)].sum()
    majority = np.mean(truth[known] == 0)
    assert found["majority", "all classes", "accuracy"].value == pytest.approx(majority)
    assert found["majority", "all classes", "macro_f1"].value == pytest.approx(
        2 * majority / (1 + majority) / 3
    )
    assert found["prediction", "all classes", "macro_f1"].subjects == 65
    assert all(row.note == "" for row in results.rows if row.input == "prediction")
    assert {row.note for row in results.rows if np.isnan(row.value)} == {
        "no record of this class, or no decision for it"
    }
    lines = results.text.splitlines()
    assert lines[0] == "mitbih, test split"
    assert f"taken for {' '.join(NAMES)}" in lines[1]
    assert lines[2].endswith("  " + " ".join(str(n) for n in counts[0]))
    assert f"majority class {majority:.3f}" in results.text


def test_a_leaky_cohort_says_so_in_every_row_the_text_and_the_settings(world, tmp_path):
    results = Classes(draws=2).run(shifted, beats(world, cohort="mitbih-leaky"))
    assert all("leaky" in row.note for row in results.rows)
    assert results.text.splitlines()[0].startswith("mitbih-leaky, test split (leaky: ")
    results.write(tmp_path, step=1, checkpoint="abc", objective="finetune")
    back = Results.read(tmp_path, "classes", 1)
    assert back.settings["leaky"] is True
    assert back.text == results.text
    assert Classes(draws=2).run(shifted, beats(world)).settings["leaky"] is False


def test_classes_of_a_record_by_hand():
    label = np.array([[0, 1, 0], [0, 0, 0], [1, NAN, 0], [0, 0, 1]], np.float32)
    np.testing.assert_array_equal(true_classes(label, "test"), [1, -1, -1, 2])
    np.testing.assert_array_equal(true_classes(np.array([[1], [0], [NAN]], np.float32), "test"), [1, 0, -1])
    with pytest.raises(ValueError, match="1 records of split val have two of the targets"):
        true_classes(np.array([[1, 1, 0], [0, 1, 0]], np.float32), "val")


def test_what_are_no_classes_is_refused(world):
    with pytest.raises(ValueError, match=r"targets: \['LVEF', 'LVM'\] are no classes"):
        Classes().run(shifted, world.splits())
    with pytest.raises(ValueError, match="predicts 3 values an example, targets names 2 label columns"):
        Classes(targets=("N", "S")).run(shifted, beats(world))
    with pytest.raises(ValueError, match="draws is 0"):
        Classes(draws=0)

    def none(split):
        made = beats(world).examples(split)
        return dataclasses.replace(made, label=0 * made.label)

    with pytest.raises(ValueError, match="no record of split val has one of the classes N, S, V"):
        Classes().run(shifted, dataclasses.replace(beats(world), examples=none))
