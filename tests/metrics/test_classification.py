import numpy as np
import pytest
from sklearn import metrics

from ecgjax.metrics import classification


def test_auroc_counts_ties_half():
    # Positives .8 .5, negatives .5 .1: pairs won 1, 1, .5, 1.
    assert classification.auroc(np.array([1.0, 1, 0, 0]), np.array([0.8, 0.5, 0.5, 0.1])) == 3.5 / 4


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scikit_learn_on_tied_scores(seed):
    generator = np.random.default_rng(seed)
    truth = generator.integers(2, size=80).astype(float)
    score = np.round(generator.normal(size=80) + truth, 1)
    assert len(np.unique(score)) < 60
    decision = score >= 0.5
    want = {
        "auroc": metrics.roc_auc_score(truth, score),
        "auprc": metrics.average_precision_score(truth, score),
        "accuracy": metrics.accuracy_score(truth, decision),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, decision),
        "f1": metrics.f1_score(truth, decision),
    }
    for name, value in want.items():
        assert getattr(classification, name)(truth, score) == pytest.approx(value), name
        missing = np.append(truth, [np.nan, np.nan])
        padded = np.append(score, [np.nan, 7.0])
        assert getattr(classification, name)(missing, padded) == pytest.approx(value), name


def test_one_class_only_has_no_score():
    for name in ("auroc", "auprc", "balanced_accuracy", "f1"):
        for truth in (np.ones(3), np.zeros(3), np.full(3, np.nan)):
            assert np.isnan(getattr(classification, name)(truth, np.arange(3.0))), name


def test_truth_that_is_not_binary_is_refused():
    with pytest.raises(ValueError, match=r"binary truth holds 2\.0"):
        classification.auroc(np.array([0.0, 2.0]), np.array([0.1, 0.2]))
