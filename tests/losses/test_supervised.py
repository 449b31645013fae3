import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.losses.supervised import masked_bce, masked_mse

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
