import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.losses.supervised import (
    batch_accuracy,
    batch_auroc,
    batch_pearson,
    cross_entropy,
    masked_bce,
    masked_mse,
)

NAN = float("nan")


def test_squared_error_over_known_targets_by_hand():
    prediction = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    target = jnp.array([[0.0, NAN], [1.0, NAN]])
    np.testing.assert_allclose(masked_mse(prediction, target), (1 + 4) / 2)


def test_cross_entropy_over_known_targets_by_hand():
    logits, target = jnp.array([[2.0, -1.0, 9.0]]), jnp.array([[1.0, 0.0, NAN]])
    want = (np.log1p(np.exp(-2)) + np.log1p(np.exp(-1))) / 2
    np.testing.assert_allclose(masked_bce(logits, target), want, rtol=1e-6)


def test_cross_entropy_is_finite_at_large_logits():
    logits = jnp.array([[1e4, -1e4]])
    np.testing.assert_allclose(masked_bce(logits, jnp.array([[1.0, 0.0]])), 0)
    np.testing.assert_allclose(masked_bce(logits, jnp.array([[0.0, 1.0]])), 1e4)


@pytest.mark.parametrize("loss", [masked_mse, masked_bce])
def test_missing_targets_give_no_gradient_and_no_nan(loss):
    gradient = jax.grad(loss)(jnp.array([[1.0, 2.0]]), jnp.array([[1.5, NAN]]))
    assert float(gradient[0, 1]) == 0
    assert float(gradient[0, 0]) != 0
    np.testing.assert_array_equal(jax.grad(loss)(jnp.ones((2, 2)), jnp.full((2, 2), NAN)), 0)
    assert float(loss(jnp.ones((2, 2)), jnp.full((2, 2), NAN))) == 0


def test_counted_missing_targets_are_zeros_met_exactly():
    prediction = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    target = jnp.array([[0.0, NAN], [1.0, NAN]])
    np.testing.assert_allclose(masked_mse(prediction, target, missing="counted"), (1 + 4) / 4)
    gradient = jax.grad(lambda p: masked_mse(p, target, missing="counted"))(prediction)
    np.testing.assert_allclose(gradient, [[0.5, 0], [1.0, 0]])


LOGITS = np.array([[0.5, -1.0, 2.0], [0.0, 0.3, -0.2], [1.0, 1.0, -3.0]])
WEIGHTS = (0.5, 2.0, 1.0)


def numpy_cross_entropy(target, smoothing, divisor):
    """torch's formula: the weight of a class multiplies its share, smoothed beforehand."""
    log_probability = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
    smoothed = target * (1 - smoothing) + smoothing / 3
    return -np.sum(np.array(WEIGHTS) * smoothed * log_probability) / divisor


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_weighted_smoothed_cross_entropy_of_classes(smoothing):
    classes = jnp.array([2, 0, 1])
    want = numpy_cross_entropy(np.eye(3)[[2, 0, 1]], smoothing, 1.0 + 0.5 + 2.0)
    got = cross_entropy(jnp.asarray(LOGITS), classes, class_weights=WEIGHTS, smoothing=smoothing)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_cross_entropy_of_probabilities_is_divided_by_the_rows():
    target = np.array([[0.2, 0.8, 0.0], [1.0, 0.0, 0.0], [0.1, 0.4, 0.5]])
    got = cross_entropy(jnp.asarray(LOGITS), jnp.asarray(target), class_weights=WEIGHTS, smoothing=0.1)
    np.testing.assert_allclose(got, numpy_cross_entropy(target, 0.1, 3), rtol=1e-6)


@pytest.mark.parametrize("soft", [False, True])
def test_rows_without_a_class_are_left_out_of_the_cross_entropy(soft):
    classes = jnp.array([2, -1, 1])
    target = jnp.where((classes >= 0)[:, None], jax.nn.one_hot(classes, 3), NAN) if soft else classes
    logits = jnp.asarray(LOGITS, jnp.float32)
    known = jnp.array([0, 2])
    value, gradient = jax.value_and_grad(cross_entropy)(logits, target)
    np.testing.assert_allclose(value, cross_entropy(logits[known], target[known]), rtol=1e-6)
    assert np.all(np.asarray(gradient[1]) == 0)
    assert np.all(np.isfinite(gradient))
    nobody = jnp.full(3, -1) if not soft else jnp.full((3, 3), NAN)
    assert float(cross_entropy(logits, nobody)) == 0


def test_accuracy_of_a_batch_leaves_missing_labels_out():
    np.testing.assert_allclose(batch_accuracy(jnp.asarray(LOGITS), jnp.array([2, 0, -1])), 0.5)


def test_auroc_of_a_batch_by_hand():
    # Positives .8 .5, negatives .5 .1: pairs won 1, 1, .5, 1; the last row has no label.
    score, target = jnp.array([0.8, 0.5, 0.5, 0.1, 9.0]), jnp.array([1, 1, 0, 0, -1])
    np.testing.assert_allclose(batch_auroc(score, target), 3.5 / 4)
    assert float(batch_auroc(score, jnp.ones(5, int))) == 0.5


def test_correlation_of_a_batch_by_numpy():
    generator = np.random.default_rng(0)
    prediction, target = generator.normal(size=(2, 20, 3))
    target[4, 1] = NAN
    want = [np.corrcoef(prediction[:, 0], target[:, 0])[0, 1]]
    kept = np.arange(20) != 4
    want.append(np.corrcoef(prediction[kept, 1], target[kept, 1])[0, 1])
    prediction[:, 2] = 1.0
    got = batch_pearson(jnp.asarray(prediction), jnp.asarray(target))
    np.testing.assert_allclose(got, np.sum(want) / 3, rtol=1e-5)


def focal_by_hand(gamma, classes):
    """Lin et al., 2017, equation 5 with alpha, over the weights of the true classes as without gamma."""
    probability = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    true = probability[np.arange(3), classes]
    weight = np.array(WEIGHTS)[classes]
    return np.sum(-weight * (1 - true) ** gamma * np.log(true)) / weight.sum()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_by_hand(gamma):
    classes = np.array([2, 0, 1])
    got = cross_entropy(jnp.asarray(LOGITS), jnp.asarray(classes), class_weights=WEIGHTS, focal=gamma)
    np.testing.assert_allclose(got, focal_by_hand(gamma, classes), rtol=1e-5)
    soft = cross_entropy(jnp.asarray(LOGITS), jax.nn.one_hot(classes, 3), class_weights=WEIGHTS, focal=gamma)
    np.testing.assert_allclose(soft * 3 / np.array(WEIGHTS)[classes].sum(), got, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_a_sure_row_has_a_gradient_without_nan(gamma):
    logits = jnp.array([[200.0, -200.0], [0.0, 1.0]])
    gradient = jax.grad(lambda x: cross_entropy(x, jnp.array([0, 0]), focal=gamma))(logits)
    np.testing.assert_array_equal(gradient[0], 0)
    assert np.isfinite(gradient).all()
    assert np.all(gradient[1] != 0)
    wrong = jax.grad(lambda x: cross_entropy(x, jnp.array([1, -1]), focal=gamma))(logits)
    np.testing.assert_allclose(wrong[0], [1, -1], atol=1e-6)
