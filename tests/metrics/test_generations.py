import numpy as np
import pytest
import sklearn.metrics

from ecgjax.metrics import regression
from ecgjax.metrics.generations import by_generation


@pytest.fixture
def scored():
    generator = np.random.default_rng(0)
    truth = (generator.random(400) < 0.1).astype(float)
    return truth, np.clip(0.2 * truth + generator.random(400) * 0.8, 0, 1)


def test_newest_release_is_scikit_learn_over_both_one_hot_columns(scored):
    truth, probability = scored
    one_hot = np.stack([1 - truth, truth], 1)
    both = np.stack([1 - probability, probability], 1)
    want = {
        "auroc": sklearn.metrics.roc_auc_score(one_hot, both, average="macro"),
        "auprc": sklearn.metrics.average_precision_score(one_hot, both, average="macro"),
        "f1": sklearn.metrics.f1_score(truth, both.argmax(1)),
        "accuracy": sklearn.metrics.accuracy_score(truth, both.argmax(1)),
    }
    got = {name: metric(truth, probability) for name, metric in by_generation("head", "binary").items()}
    assert got == pytest.approx(want)


def test_first_release_scores_the_positive_class(scored):
    truth, probability = scored
    want = {
        "auroc": sklearn.metrics.roc_auc_score(truth, probability),
        "auprc": sklearn.metrics.average_precision_score(truth, probability),
        "f1": sklearn.metrics.f1_score(truth, probability >= 0.5),
        "accuracy": sklearn.metrics.recall_score(truth, probability >= 0.5, average="weighted"),
    }
    got = {name: metric(truth, probability) for name, metric in by_generation("paper", "binary").items()}
    assert got == pytest.approx(want)


def test_the_releases_differ_in_auprc_alone_and_the_newest_is_inflated(scored):
    paper, head = (by_generation(g, "binary") for g in ("paper", "head"))
    values = {name: (paper[name](*scored), head[name](*scored)) for name in paper}
    assert [name for name, (a, b) in values.items() if a != pytest.approx(b)] == ["auprc"]
    assert values["auprc"][1] > values["auprc"][0] + 0.2


def test_missing_truth_is_left_out_of_every_metric(scored):
    truth, probability = scored
    for kind in ("binary", "regression"):
        for metric in by_generation("head", kind).values():
            padded = metric(np.append(truth, np.nan), np.append(probability, 0.3))
            assert padded == pytest.approx(metric(truth, probability))


def test_several_targets_are_averaged_and_missing_ones_left_out_or_counted():
    truth = np.array([[1.0, 10.0], [2.0, np.nan], [3.0, 30.0]])
    prediction = np.array([[2.0, 10.0], [2.0, 99.0], [3.0, 36.0]])
    mean = regression.mean_over_targets
    assert mean(regression.mae, truth, prediction) == pytest.approx((1 / 3 + 3) / 2)
    assert mean(regression.mae, truth, prediction, missing="counted") == pytest.approx((1 / 3 + 2) / 2)


def test_an_unknown_generation_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown generation 'old'; choose from paper, head"):
        by_generation("old", "binary")
