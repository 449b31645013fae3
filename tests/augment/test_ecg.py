import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.augment import ecg as ops


def draw(leads=3, time=64):
    return jax.random.normal(jax.random.key(9), (leads, time))


def over_keys(function, n=400):
    return np.asarray(jax.jit(jax.vmap(function))(jax.random.split(jax.random.key(0), n)))


def test_crop_reaches_both_ends_and_nothing_beyond():
    ramp = jnp.arange(10.0)[None]
    crops = over_keys(lambda key: ops.random_crop(key, ramp, length=7))
    assert set(crops[:, 0, 0]) == {0, 1, 2, 3}
    np.testing.assert_array_equal(np.diff(crops[:, 0]), 1)
    with pytest.raises(ValueError, match="crop of 11 samples from an ECG of 10"):
        ops.random_crop(jax.random.key(0), ramp, length=11)


@pytest.mark.parametrize("time", [64, 63])
def test_surrogate_keeps_the_amplitude_of_every_frequency(time):
    signal = draw(time=time)
    out = ops.ft_surrogate(jax.random.key(0), signal, magnitude=1.0)
    assert not np.allclose(out, signal, atol=0.1)
    np.testing.assert_allclose(np.abs(np.fft.rfft(out)), np.abs(np.fft.rfft(signal)), atol=1e-4)


def test_surrogate_shares_its_phases_among_leads():
    signal = jnp.stack([draw()[0], 2 * draw()[0]])
    out = ops.ft_surrogate(jax.random.key(0), signal, magnitude=1.0)
    np.testing.assert_allclose(out[1], 2 * out[0], atol=1e-5)


def test_surrogate_happens_at_its_probability():
    signal = draw()
    outs = over_keys(lambda key: ops.ft_surrogate(key, signal, magnitude=1.0, probability=0.25))
    untouched = np.mean([np.allclose(out, signal, atol=1e-5) for out in outs])
    assert abs(untouched - 0.75) < 0.08


def test_jitter_scales_with_the_signal():
    signal = jnp.concatenate([jnp.zeros((1, 5000)), jnp.full((1, 5000), 2.0)])
    change = np.asarray(ops.jitter(jax.random.key(0), signal, deviation=0.25) - signal)
    np.testing.assert_array_equal(change[0], 0)
    np.testing.assert_allclose(change[1].std(), 2 * 0.6 * 0.25, rtol=0.05)


def test_rescaling_multiplies_the_whole_record_once():
    signal = draw()
    ratios = over_keys(lambda key: ops.rescale(key, signal, deviation=0.5)) / np.asarray(signal)
    np.testing.assert_allclose(ratios.std((1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(ratios[:, 0, 0].std(), 0.5, rtol=0.15)


def test_flips_are_exact_and_happen_at_their_probability():
    signal = draw()
    for flip, want in ((ops.time_flip, signal[:, ::-1]), (ops.sign_flip, -signal)):
        outs = over_keys(lambda key, flip=flip: flip(key, signal, probability=0.3))
        flipped = (outs == np.asarray(want)).all((1, 2))
        assert (flipped | (outs == np.asarray(signal)).all((1, 2))).all()
        assert abs(flipped.mean() - 0.3) < 0.08
