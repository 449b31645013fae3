import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.losses.noncontrastive import barlow_twins, byol, negative_cosine, simsiam, spread


def draw(count, b=6, k=4):
    return tuple(jax.random.normal(key, (b, k)) for key in jax.random.split(jax.random.key(0), count))


def test_negative_cosine_by_hand():
    h, z = jnp.array([[3.0, 4.0], [1.0, 0.0]]), jnp.array([[1.0, 0.0], [-2.0, 0.0]])
    np.testing.assert_allclose(negative_cosine(h, z), -(0.6 - 1) / 2, rtol=1e-6)


def test_no_gradient_flows_through_targets():
    arrays = draw(4)
    for loss in (byol, simsiam):
        gradients = jax.grad(loss, argnums=(0, 1, 2, 3))(*arrays)
        assert [bool(np.any(g)) for g in gradients] == [True, True, False, False], loss


def test_predictions_meet_the_target_of_the_other_view():
    h0, h1, z0, z1 = draw(4)

    def cosine(x, y):
        x, y = (np.asarray(a, np.float64) for a in (x, y))
        return np.mean((x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1))

    pair = cosine(h0, z1) + cosine(h1, z0)
    np.testing.assert_allclose(byol(h0, h1, z0, z1), -2 * pair, rtol=1e-5)
    np.testing.assert_allclose(simsiam(h0, h1, z0, z1), -pair / 2, rtol=1e-5)


def test_byol_is_the_squared_distance_of_unit_vectors_but_for_a_constant():
    h0, h1, z0, z1 = draw(4)
    distance = 0.0
    for x, y in ((h0, z1), (h1, z0)):
        x, y = (a / jnp.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
        distance += float(jnp.mean(jnp.sum(jnp.square(x - y), axis=1)))
    np.testing.assert_allclose(byol(h0, h1, z0, z1), distance - 4, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [None, 16])
def test_barlow_twins_equals_a_loop(batch_size):
    z0, z1 = draw(2)
    x, y = (np.asarray(z, np.float64) for z in (z0, z1))
    x, y = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in (x, y))
    total = 0.0
    for i in range(4):
        for j in range(4):
            c = sum(x[n, i] * y[n, j] for n in range(6)) / (batch_size or 6)
            total += (c - 1) ** 2 if i == j else 0.1 * c**2
    got = barlow_twins(z0, z1, off_diagonal=0.1, batch_size=batch_size)
    np.testing.assert_allclose(got, total, rtol=1e-5)


def test_barlow_twins_of_independent_equal_features_is_zero():
    z = jnp.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    np.testing.assert_allclose(barlow_twins(z, z), 0, atol=1e-8)


@pytest.mark.parametrize(
    "loss", [negative_cosine, barlow_twins, lambda a, b: byol(a, a, b, b)], ids=["cosine", "barlow", "byol"]
)
def test_zero_rows_and_collapse_keep_value_and_gradient_finite(loss):
    z0, z1 = draw(2)
    for x, y in ((z0.at[0].set(0), z1), (z0, z1.at[0].set(0)), (jnp.ones_like(z0), jnp.zeros_like(z1))):
        value, gradient = jax.value_and_grad(loss)(x, y)
        assert bool(jnp.isfinite(value))
        assert bool(jnp.isfinite(gradient).all())


def test_bfloat16_is_compared_in_float32():
    z0, z1 = draw(2)
    small = [z.astype(jnp.bfloat16) for z in (z0, z1)]
    for loss in (negative_cosine, barlow_twins):
        got = loss(*small)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, loss(*(z.astype(jnp.float32) for z in small)), rtol=1e-6)


def test_eight_devices_give_the_barlow_twins_of_one():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P("data"))
    step = jax.jit(jax.value_and_grad(barlow_twins))
    z0, z1 = draw(2, b=16)
    value, gradient = step(z0, z1)
    value8, gradient8 = step(jax.device_put(z0, sharding), jax.device_put(z1, sharding))
    np.testing.assert_allclose(value8, value, rtol=1e-6)
    np.testing.assert_allclose(gradient8, gradient, atol=1e-6)


def test_spread_tells_a_collapse():
    z = jax.random.normal(jax.random.key(0), (512, 32))
    np.testing.assert_allclose(spread(z), 1, atol=0.02)
    np.testing.assert_allclose(spread(jnp.ones((8, 4))), 0, atol=1e-6)
