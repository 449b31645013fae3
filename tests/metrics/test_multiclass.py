import numpy as np
import pytest
import sklearn.metrics as theirs

from ecgjax.metrics import multiclass as ours
from ecgjax.metrics.bootstrap import subject_counts

CLASSES = 4


def decisions(seed, n=300, classes=CLASSES):
    """Classes as unequal as beats, decided rightly two times in three."""
    draw = np.random.default_rng(seed)
    truth = draw.choice(classes, size=n, p=(0.8, 0.1, 0.06, 0.04))
    guess = draw.integers(classes, size=n)
    subject = draw.choice(["ann", "bob", "cy", "di", "eve"], size=n)
    return truth, np.where(draw.random(n) < 0.67, truth, guess), subject


@pytest.mark.parametrize("seed", [0, 1])
def test_every_score_is_that_of_scikit_learn(seed):
    truth, decision, _ = decisions(seed)
    counts = ours.confusion(truth, decision, classes=CLASSES)
    np.testing.assert_array_equal(counts, theirs.confusion_matrix(truth, decision))
    precision, recall, f1, support = theirs.precision_recall_fscore_support(truth, decision)
    np.testing.assert_allclose(ours.positive_predictivity(counts), precision, rtol=1e-12)
    np.testing.assert_allclose(ours.sensitivity(counts), recall, rtol=1e-12)
    np.testing.assert_allclose(ours.f1(counts), f1, rtol=1e-12)
    np.testing.assert_array_equal(counts.sum(1), support)
    np.testing.assert_allclose(
        ours.macro_f1(counts), theirs.f1_score(truth, decision, average="macro"), rtol=1e-12
    )
    np.testing.assert_allclose(ours.accuracy(counts), theirs.accuracy_score(truth, decision), rtol=1e-12)
    balanced = theirs.balanced_accuracy_score(truth, decision)
    np.testing.assert_allclose(ours.balanced_accuracy(counts), balanced, rtol=1e-12)


def test_a_class_that_is_absent_or_never_decided_for_by_hand():
    counts = np.array([[8, 0, 2], [4, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(ours.sensitivity(counts), [0.8, 0, np.nan])
    np.testing.assert_array_equal(ours.positive_predictivity(counts), [8 / 12, np.nan, 0])
    np.testing.assert_allclose(ours.f1(counts), [16 / 22, 0, 0])
    np.testing.assert_allclose(ours.macro_f1(counts), 8 / 22)  # Two classes: the third has no truth.
    np.testing.assert_allclose(ours.balanced_accuracy(counts), 0.4)
    assert np.isnan(ours.f1(np.zeros((2, 2), int))).all()
    assert np.isnan(ours.accuracy(np.zeros((2, 2), int)))


def test_intervals_are_quantiles_over_subjects_drawn_with_all_their_records():
    truth, decision, subject = decisions(2)
    found = ours.score_classes(truth, decision, subject, classes=CLASSES, draws=200, seed=3)
    names = np.unique(subject)
    drawn = []
    for counts in subject_counts(len(names), draws=200, seed=3):  # Every subject here has every class.
        rows = np.concatenate(
            [np.flatnonzero(subject == s) for s, c in zip(names, counts, strict=True) for _ in range(int(c))]
        )
        drawn.append(theirs.f1_score(truth[rows], decision[rows], average=None))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    np.testing.assert_allclose([i.low for i in found.by_class["f1"]], low, rtol=1e-9)
    np.testing.assert_allclose([i.high for i in found.by_class["f1"]], high, rtol=1e-9)
    macro = found.overall["macro_f1"]
    np.testing.assert_allclose([macro.low, macro.high], np.quantile(np.mean(drawn, 1), [0.025, 0.975]))
    assert (macro.n, macro.subjects) == (300, 5)
    assert [i.n for i in found.by_class["f1"]] == np.bincount(truth).tolist()


def test_a_class_of_one_subject_is_in_every_draw():
    subject = np.repeat([f"s{i}" for i in range(8)], 10)
    truth = np.where((subject == "s3") & (np.arange(80) % 2 == 0), 1, 0)
    found = ours.score_classes(truth, truth, subject, classes=2, draws=500)
    rare = found.by_class["sensitivity"][1]
    assert (rare.value, rare.low, rare.high, rare.n, rare.subjects) == (1, 1, 1, 5, 1)
    constant = ours.score_classes(truth, 0 * truth, subject, classes=2, draws=500)
    assert constant.overall["macro_f1"].high < 0.5
    assert np.isnan(constant.by_class["positive_predictivity"][1].value)


def test_another_class_number_than_there_are_is_refused():
    with pytest.raises(ValueError, match="truth holds class -1 of 2"):
        ours.confusion(np.array([0, -1]), np.array([0, 0]), classes=2)
    with pytest.raises(ValueError, match="decision holds class 2 of 2"):
        ours.confusion(np.array([0, 1]), np.array([0, 2]), classes=2)
