import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from ecgjax.augment import colour as ops


def draw(height=12, width=12, channels=3):
    return jax.random.uniform(jax.random.key(5), (height, width, channels))


def over_keys(function, n=3000):
    return np.asarray(jax.jit(jax.vmap(function))(jax.random.split(jax.random.key(0), n)))


def test_colour_operations_equal_numpy_in_their_order():
    image = np.asarray(draw(), np.float64)
    factors = [1.4, 0.6, 1.5]
    change = jax.jit(ops.colour_jitter_by)
    for order in itertools.permutations(range(3)):
        want = image
        for operation in order:
            luma = want @ np.array([0.2989, 0.587, 0.114])
            other = [np.zeros_like(luma), np.full_like(luma, luma.mean()), luma][operation][..., None]
            want = np.clip(factors[operation] * want + (1 - factors[operation]) * other, 0, 1)
        np.testing.assert_allclose(change(draw(), jnp.array(factors), jnp.array(order)), want, atol=1e-5)


def test_colour_factors_and_their_order_are_uniform(monkeypatch):
    record = lambda image, factors, order: jnp.stack([factors, order.astype(image.dtype)])[:, None]  # noqa: E731
    monkeypatch.setattr(ops, "colour_jitter_by", record)
    strength = np.array([0.5, 0.25, 0.8])
    image = jnp.zeros((2, 1, 3))
    draws = over_keys(
        lambda key: ops.colour_jitter(key, image, brightness=0.5, contrast=0.25, saturation=0.8)
    )[:, :, 0]
    factors, orders = draws[:, 0], draws[:, 1]
    np.testing.assert_allclose(factors.min(0), 1 - strength, atol=0.01)
    np.testing.assert_allclose(factors.max(0), 1 + strength, atol=0.01)
    np.testing.assert_allclose(np.cov(factors.T), np.diag(strength**2 / 3), atol=0.01)
    found, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(found) == 6
    np.testing.assert_allclose(counts / len(orders), 1 / 6, atol=0.03)


def test_no_strength_leaves_colours_alone():
    image, key = draw(), jax.random.key(0)
    same = ops.colour_jitter(key, image, brightness=0.0, contrast=0.0, saturation=0.0)
    np.testing.assert_allclose(same, image, atol=1e-6)
    same = ops.brightness_contrast(key, image, brightness=0.0, contrast=0.0)
    np.testing.assert_allclose(same, image, atol=1e-6)


def test_gates_open_at_their_probability():
    image = draw(4, 4)
    luma = np.asarray(image) @ np.array([0.2989, 0.587, 0.114])
    steps = {
        "colour": lambda key: ops.colour_jitter(
            key, image, brightness=0.5, contrast=0.5, saturation=0.5, probability=0.3
        ),
        "gray": lambda key: ops.grayscale(key, image, probability=0.3),
        "blur": lambda key: ops.gaussian_blur(key, image, kernel=5, deviation=(1.0, 2.0), probability=0.3),
    }
    for name, step in steps.items():
        outs = over_keys(step)
        changed = (outs != np.asarray(image)).any((1, 2, 3))
        assert abs(changed.mean() - 0.3) < 0.03, name
        if name == "gray":
            np.testing.assert_allclose(outs[changed][0], np.repeat(luma[..., None], 3, -1), atol=1e-6)


def test_blur_equals_scipy_with_mirrored_edges():
    image = draw(16, 21, 2)
    got = jax.jit(lambda image: ops.gaussian_blur_by(image, jnp.float32(1.7), kernel=29))(image)
    tap = np.exp(-0.5 * (np.arange(-14, 15) / 1.7) ** 2)
    want = np.asarray(image, np.float64)
    for axis in (0, 1):
        want = scipy.ndimage.correlate1d(want, tap / tap.sum(), axis=axis, mode="mirror")
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_blur_and_gamma_draw_uniformly(monkeypatch):
    image = jnp.zeros((2, 2, 3))
    monkeypatch.setattr(ops, "gaussian_blur_by", lambda image, x, *, kernel: jnp.full_like(image, x))
    monkeypatch.setattr(ops, "gamma_by", lambda image, x: jnp.full_like(image, x))
    for step, low, high in ((ops.gaussian_blur, 0.1, 2.0), (ops.random_gamma, 0.25, 1.75)):
        drawn = over_keys(lambda key, step=step: step(key, image))[:, 0, 0, 0]
        np.testing.assert_allclose([drawn.min(), drawn.max()], [low, high], atol=0.01)
        np.testing.assert_allclose(drawn.mean(), (low + high) / 2, rtol=0.04)
        np.testing.assert_allclose(drawn.var(), (high - low) ** 2 / 12, rtol=0.06)


def test_gamma_keeps_signs():
    values = jnp.array([-4.0, 0.0, 9.0])
    np.testing.assert_allclose(ops.gamma_by(values, jnp.float32(0.5)), [-2, 0, 3], atol=1e-6)


def test_other_than_three_channels_are_refused_where_luma_is_needed():
    key, image = jax.random.key(0), draw(channels=2)
    with pytest.raises(ValueError, match="colour jitter needs 3 channels, the image has 2; choose a preset"):
        ops.colour_jitter(key, image, brightness=0.5, contrast=0.5, saturation=0.5)
    with pytest.raises(ValueError, match="grayscale needs 3 channels, the image has 2"):
        ops.grayscale(key, image, probability=0.5)
    for kernel, side in ((4, 12), (25, 12)):
        with pytest.raises(ValueError, match=f"a kernel of {kernel} pixels on an image of {side}"):
            ops.gaussian_blur(key, image, kernel=kernel)
