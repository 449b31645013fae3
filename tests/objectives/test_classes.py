import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from ecgjax.objectives.classes import class_shares, class_summary, class_weights, true_classes

NAN = float("nan")


def column(name, prevalence, **more):
    return {"name": name, "kind": "binary", "prevalence": prevalence, **more}


BEATS = (column("N", 0.9), column("S", 0.02), column("V", 0.08))


def test_the_class_of_a_row_by_hand():
    one_hot = jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, NAN, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(true_classes(one_hot), [1, -1, -1, 2])
    np.testing.assert_array_equal(true_classes(jnp.array([[1.0], [0.0], [NAN]])), [1, 0, -1])


def test_weights_are_inverse_to_what_is_trained_on_and_one_on_average():
    weights = np.array(class_weights(BEATS, "inverse", "w"))
    np.testing.assert_allclose(weights * [0.9, 0.02, 0.08], 1 / 3)
    root = np.array(class_weights(BEATS, "sqrt_inverse", "w"))
    np.testing.assert_allclose(root / root[0], np.sqrt([1, 45, 11.25]))
    np.testing.assert_allclose(np.sum(root * [0.9, 0.02, 0.08]), 1)
    thinned = class_weights((column("N", 0.9, kept=0.1), *BEATS[1:]), "inverse", "w")
    np.testing.assert_allclose(np.array(thinned) * np.array([0.09, 0.02, 0.08]) / 0.19, 1 / 3)
    # Classes without a column leave shares that sum to less than one.
    np.testing.assert_allclose(class_weights(BEATS[:2], "inverse", "w"), [0.92 / 1.8, 0.92 / 0.04])


def test_one_condition_weighs_against_its_absence():
    np.testing.assert_allclose(class_weights([column("V", 0.2)], "inverse", "w"), [0.625, 2.5])
    half = class_weights([column("V", 0.2, kept=0.5)], "inverse", "w")
    np.testing.assert_allclose(half, [0.9 / 1.6, 0.9 / 0.2])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((*BEATS, column("Q", 0.0)), r"^w is 'inverse', but no train example is 'Q'; give a weight a class"),
        ([column("V", 1.0)], "no train example is 'not V'"),
        ((*BEATS, column("Q", None)), r"no train example has the labels \['Q'\]"),
    ],
)
def test_a_class_without_examples_has_no_weight(labels, message):
    with pytest.raises(ValueError, match=message):
        class_weights(labels, "inverse", "w")


def test_scores_of_the_whole_follow_from_means_over_batches():
    draw = np.random.default_rng(0)
    truth = np.sort(draw.choice(4, size=60, p=(0.6, 0.2, 0.2, 0.0)))  # Sorted: no batch has every class.
    decided = np.where(draw.random(60) < 0.7, truth, draw.integers(4, size=60))
    truth[::7] = -1
    names = ("N", "S", "V", "F")
    parts = [
        jax.device_get(class_shares(jax.nn.one_hot(d, 4), jnp.asarray(t), names))
        for t, d in zip(truth.reshape(6, 10), decided.reshape(6, 10), strict=True)
    ]
    means = {name: np.mean([part[name] for part in parts]) for name in parts[0]}
    found = class_summary({"loss": 2.0, **means}, names)
    known = truth >= 0
    f1 = sklearn.metrics.f1_score(truth[known], decided[known], average=None, labels=range(4))
    recall = sklearn.metrics.recall_score(
        truth[known], decided[known], average=None, labels=range(4), zero_division=np.nan
    )
    assert found.keys() == {"loss", "macro_f1", "balanced_accuracy", *(f"sensitivity_{n}" for n in names)}
    assert found["loss"] == 2
    np.testing.assert_allclose(found["macro_f1"], f1[:3].mean(), rtol=1e-5)
    np.testing.assert_allclose(found["balanced_accuracy"], recall[:3].mean(), rtol=1e-5)
    np.testing.assert_allclose([found[f"sensitivity_{n}"] for n in names], recall, rtol=1e-5)
    empty = class_summary(dict.fromkeys(means, 0.0), names)
    assert np.isnan(empty["macro_f1"])
