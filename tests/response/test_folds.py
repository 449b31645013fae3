import numpy as np
import pytest

from ecgjax.response.crossvalidation import folds
from ecgjax.response.crossvalidation.patients import by_patient, refuse_duplicates


def truths(negatives, positives, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat([0.0, 1.0], [negatives, positives]))


def test_every_fold_has_its_share_of_each_class():
    truth = truths(40, 31)
    for fold in folds.repeated_folds(truth, repeats=3, folds=5, seed=0):
        sizes = np.bincount(fold)
        positives = np.bincount(fold, truth)
        assert set(sizes) <= {14, 15}
        assert set(positives) <= {6, 7}
        assert set(sizes - positives) == {8}


def test_repeats_differ_and_seeds_repeat():
    truth = truths(40, 31)
    first = folds.repeated_folds(truth, repeats=3, folds=5, seed=7)
    np.testing.assert_array_equal(first, folds.repeated_folds(truth, repeats=3, folds=5, seed=7))
    # More repeats begin with the same ones.
    np.testing.assert_array_equal(first, folds.repeated_folds(truth, repeats=5, folds=5, seed=7)[:3])
    assert len({row.tobytes() for row in first}) == 3
    assert (first != folds.repeated_folds(truth, repeats=3, folds=5, seed=8)).any()


def test_another_key_of_the_hashes_changes_no_fold():
    truth = truths(10, 10)
    generator = np.random.default_rng(0)
    found = []
    for _ in range(2):
        names = np.array([f"{v:016x}" for v in generator.integers(2**60, size=20)])
        rows = np.arange(40) % 20
        patients, y = by_patient(names[rows], truth[rows], columns={"x": np.arange(40.0)}, features={})
        np.testing.assert_array_equal(patients.subject, names)
        np.testing.assert_array_equal(y, truth)
        np.testing.assert_array_equal(
            patients.columns["x"], np.arange(20.0) + 10
        )  # The median of two recordings.
        np.testing.assert_array_equal(patients.records(3), [3, 23])
        found.append(folds.repeated_folds(y, repeats=2, folds=4, seed=0))
    np.testing.assert_array_equal(*found)


def test_a_class_smaller_than_the_folds_is_refused_with_its_count():
    with pytest.raises(
        ValueError, match="4 patients with the outcome and 30 without are too few for 5 folds"
    ):
        folds.stratified(truths(30, 4), folds=5, seed=0)
    with pytest.raises(
        ValueError, match=r"only 2 patients without \(of 4, 2 folds, fraction 1\), too few for 3 inner"
    ):
        folds.check_nested(truths(4, 30), folds=2, inner=3)
    with pytest.raises(ValueError, match=r"fraction 0\.25"):
        folds.check_nested(truths(10, 30), folds=5, inner=3, fractions=(1.0, 0.25))
    folds.check_nested(truths(5, 30), folds=5, inner=4)
    with pytest.raises(ValueError, match="folds is 1"):
        folds.stratified(truths(30, 4), folds=1, seed=0)


def test_the_smallest_training_set_is_judged_as_it_occurs():
    for negatives in range(5, 12):
        truth = truths(negatives, 13)
        smallest = min(
            np.sum(truth[fold != k] == 0)
            for fold in [folds.stratified(truth, folds=5, seed=0)]
            for k in range(5)
        )
        folds.check_nested(truth, folds=5, inner=int(smallest))
        with pytest.raises(ValueError, match=f"only {smallest} patients without"):
            folds.check_nested(truth, folds=5, inner=int(smallest) + 1)


def test_a_patient_with_two_truths_is_refused():
    with pytest.raises(ValueError, match="patient of recordings 0, 2 has two truths"):
        by_patient(np.array(["a", "b", "a"]), np.array([1.0, 0.0, 0.0]), columns={}, features={})


def test_unknown_truths_leave_the_patient_out_unless_another_recording_knows():
    subject = np.array(["a", "b", "c", "b"])
    patients, truth = by_patient(
        subject, np.array([1.0, np.nan, np.nan, 0.0]), columns={"x": np.arange(4.0)}, features={}
    )
    assert list(patients.subject) == ["a", "b"]
    np.testing.assert_array_equal(truth, [1, 0])
    np.testing.assert_array_equal(patients.patient, [0, 1, -1, 1])
    np.testing.assert_array_equal(patients.columns["x"], [0, 2])


def test_a_table_s_own_folds_hold_each_patient_once_and_both_classes():
    truth, patient = np.array([0.0, 1, 0, 1]), np.array([0, 1, 2, 3, 3, -1])
    split = np.array(["a", "a", "b", "b", "b", "c"])
    np.testing.assert_array_equal(folds.given_folds(patient, split, truth), [[0, 0, 1, 1]])
    with pytest.raises(
        ValueError, match=r"recordings 3, 4 is in two folds \(b, a\); a patient belongs to one"
    ):
        folds.given_folds(patient, np.array(["a", "a", "b", "b", "a", "c"]), truth)
    with pytest.raises(ValueError, match=r"fold a holds one class only \(2 patients\)"):
        folds.given_folds(patient, np.array(["a", "b", "a", "b", "b", "c"]), truth)
    with pytest.raises(ValueError, match="names 1 fold;"):
        folds.given_folds(patient, np.full(6, "a"), truth)


def test_one_recording_under_two_patients_is_refused_by_position():
    values = np.random.default_rng(0).normal(size=(6, 3, 10))
    subject = np.array(list("abcdea"))
    values[5] = values[0]  # Twice the same recording of one patient is harmless.
    refuse_duplicates(subject, values, what="ECGs")
    values[4] = values[1]
    with pytest.raises(ValueError, match="ECGs of recordings 1 and 4 are identical under two patients"):
        refuse_duplicates(subject, values, what="ECGs")
    with pytest.raises(ValueError, match="features 'ecg/embedding' of recordings 1 and 4 are identical"):
        by_patient(subject, np.zeros(6), columns={}, features={"ecg/embedding": values[:, 0]})
    measures = {f"ecg_{k}": values[:, 0, k] for k in range(5)}
    with pytest.raises(ValueError, match="ECG measures of recordings 1 and 4 are identical"):
        by_patient(subject, np.zeros(6), columns=measures, features={})


def test_plain_rows_prove_no_duplicate():
    refuse_duplicates(
        np.array(["a", "b"]), np.array([[1.0, np.nan, 0.0], [1.0, np.nan, 0.0]]), what="measures"
    )


def test_smaller_fractions_lie_within_larger_and_keep_the_classes():
    truth = truths(40, 20)
    quarter, half = (folds.thinned(truth, fraction=f, seed=[1, 2]) for f in (0.25, 0.5))
    assert set(quarter) <= set(half)
    assert (np.sum(truth[half] == 0), np.sum(truth[half] == 1)) == (20, 10)
    assert (np.sum(truth[quarter] == 0), np.sum(truth[quarter] == 1)) == (10, 5)
