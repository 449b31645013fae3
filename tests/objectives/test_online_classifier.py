import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_objectives import LABELS

from ecgjax.objectives.online_classifier import OnlineClassifier


def make(**changes):
    return OnlineClassifier(labels=LABELS, **{"modality": "ecg", "label": "lbbb", **changes})


@pytest.fixture(scope="module")
def setting():
    draw = np.random.default_rng(0)
    params = {"kernel": jnp.asarray(draw.normal(size=(4, 2)), jnp.float32), "bias": jnp.array([0.3, -0.2])}
    truth = np.array([0, 1, 1, np.nan, 0, 1, np.nan, 0])
    label = np.stack([draw.normal(size=8), truth], 1)
    return params, jnp.asarray(draw.normal(size=(8, 4)), jnp.float32), jnp.asarray(label, jnp.float32)


def by_hand(params, embedding, label, weights):
    logits = np.asarray(embedding, np.float64) @ np.asarray(params["kernel"]) + np.asarray(params["bias"])
    total = weight = right = known = hit = said = true = 0
    for row, truth in zip(logits, np.asarray(label)[:, 1], strict=True):
        if np.isnan(truth):
            continue
        t = int(truth)
        total += weights[t] * (np.log(np.exp(row).sum()) - row[t])
        weight += weights[t]
        guess = int(row[1] > row[0])
        known, right = known + 1, right + (guess == t)
        hit, said, true = hit + (guess * t), said + guess, true + t
    return total / weight, right / known, 2 * hit / (said + true)


@pytest.mark.parametrize("weights", [(0.55, 10.0), (1.0, 1.0)])
def test_weighted_cross_entropy_accuracy_and_f1_leave_missing_labels_out(setting, weights):
    value, scores = jax.jit(make(class_weights=weights).loss)(*setting)
    want, accuracy, f1 = by_hand(*setting, weights)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    np.testing.assert_allclose(scores["online_accuracy"], accuracy, rtol=1e-6)
    np.testing.assert_allclose(scores["online_f1"], f1, rtol=1e-6)


def test_the_gradient_ends_at_the_classifier(setting):
    def value(params, embedding):
        return make().loss(params, embedding, setting[2])[0]

    params, embedding = jax.grad(value, (0, 1))(*setting[:2])
    assert np.all(params["bias"] != 0)
    assert not np.any(embedding)


def test_a_batch_without_a_label_gives_zero_and_a_finite_gradient(setting):
    params, embedding, label = setting
    (value, scores), gradient = jax.value_and_grad(make().loss, has_aux=True)(
        params, embedding, jnp.full_like(label, jnp.nan)
    )
    assert value == 0
    assert set(map(float, scores.values())) == {0.0}
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_inits_have_their_spread():
    wanted = {"kaiming": (2 / 512) ** 0.5, "normal": 0.001, "xavier": 0.02 * (2 / 514) ** 0.5}
    for init, deviation in wanted.items():
        params = make(init=init).draw(jax.random.key(0), width=512)
        assert params["kernel"].shape == (512, 2)
        assert not np.any(params["bias"])
        np.testing.assert_allclose(np.std(params["kernel"]), deviation, rtol=0.1)  # Of 1024 values: 2 %.
    kernel = np.asarray(make(init="orthogonal").draw(jax.random.key(0), width=512)["kernel"])
    np.testing.assert_allclose(kernel.T @ kernel, 0.02**2 * np.eye(2), atol=1e-9)
