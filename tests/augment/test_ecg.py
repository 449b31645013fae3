import jax
import jax.numpy as jnp
import numpy as np

from ecgjax.augment import ecg as ops


def draw(leads=3, time=16):
    return jax.random.normal(jax.random.key(9), (leads, time))


def over_keys(function, n=4000):
    return np.asarray(jax.jit(jax.vmap(function))(jax.random.split(jax.random.key(0), n)))


def test_jitter_scales_with_the_signal_and_draws_for_each_sample():
    signal = jnp.stack([jnp.zeros(8), jnp.full(8, 2.0), jnp.full(8, 2.0)])
    change = over_keys(lambda key: ops.jitter(key, signal, deviation=0.25) - signal)
    np.testing.assert_array_equal(change[:, 0], 0)
    noise = change[:, 1:].reshape(len(change), -1) / (2 * 0.6 * 0.25)
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.08)
    np.testing.assert_allclose(np.cov(noise.T), np.eye(16), atol=0.12)
    np.testing.assert_allclose(np.mean(noise**4), 3, rtol=0.05)


def test_rescaling_multiplies_the_whole_record_once_and_may_negate_it():
    signal = draw()
    ratios = over_keys(lambda key: ops.rescale(key, signal, deviation=0.5)) / np.asarray(signal)
    np.testing.assert_allclose(ratios.std((1, 2)), 0, atol=1e-4)
    factors = ratios[:, 0, 0]
    np.testing.assert_allclose(factors.mean(), 1, atol=0.03)
    np.testing.assert_allclose(factors.std(), 0.5, rtol=0.04)
    np.testing.assert_allclose(np.mean(factors < 0), 0.0228, atol=0.008)


def test_gain_is_as_likely_a_factor_as_its_inverse_and_never_negates():
    signal = draw()
    ratios = over_keys(lambda key: ops.gain(key, signal, deviation=0.3)) / np.asarray(signal)
    np.testing.assert_allclose(ratios.std((1, 2)), 0, atol=1e-5)
    logs = np.log(ratios[:, 0, 0])
    np.testing.assert_allclose(logs.mean(), 0, atol=0.02)
    np.testing.assert_allclose(logs.std(), 0.3, rtol=0.05)


def test_drift_is_one_slow_wave_a_lead_below_its_amplitude():
    one = (jnp.full((1, 1), v) for v in (0.5, 1.0, np.pi / 2))
    out = ops.drift_by(jnp.ones((1, 8)), *one)[0]
    np.testing.assert_allclose(out, 1 + 0.5 * np.cos(2 * np.pi * np.arange(8) / 8), atol=1e-6)
    waves = over_keys(lambda key: ops.drift(key, jnp.zeros((2, 200)), amplitude=0.5, periods=2.0))
    assert np.abs(waves).max() <= 0.5
    assert np.abs(waves).max() > 0.45
    # Slower than two periods in 200 samples, in steps of 2 pi / 100 of the amplitude at most.
    assert np.abs(np.diff(waves)).max() <= 0.5 * 2 * np.pi / 100 + 1e-6
    assert abs(np.corrcoef(waves[:, 0, 0], waves[:, 1, 0])[0, 1]) < 0.1


def test_noise_is_white_and_does_not_follow_the_signal():
    signal = jnp.stack([jnp.zeros(8), jnp.full(8, 100.0)])
    change = over_keys(lambda key: ops.noise(key, signal, deviation=0.5) - signal).reshape(-1, 16)
    np.testing.assert_allclose(np.cov(change.T), 0.25 / 3 * np.eye(16), atol=0.02)
    sizes = change.reshape(-1, 8).std(1)
    np.testing.assert_allclose(np.percentile(sizes, (10, 50, 90)), (0.05, 0.25, 0.45), atol=0.05)


def test_flips_are_exact_and_happen_at_their_probability():
    signal = draw()
    for flip, want in ((ops.time_flip, signal[:, ::-1]), (ops.sign_flip, -signal)):
        outs = over_keys(lambda key, flip=flip: flip(key, signal, probability=0.3))
        flipped = (outs == np.asarray(want)).all((1, 2))
        assert (flipped | (outs == np.asarray(signal)).all((1, 2))).all()
        assert abs(flipped.mean() - 0.3) < 0.03


def test_every_order_of_the_leads_is_as_likely():
    leads = jnp.arange(3.0)[:, None]
    orders = over_keys(lambda key: ops.permute_leads(key, leads))[..., 0]
    found, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(found) == 6
    np.testing.assert_allclose(counts / len(orders), 1 / 6, atol=0.025)
    np.testing.assert_array_equal(
        ops.permute_leads_by(draw(), jnp.array([2, 0, 1])), draw()[jnp.array([2, 0, 1])]
    )
