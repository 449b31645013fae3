import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.augment import spectral as ops


def draw(leads=3, time=64):
    return jax.random.normal(jax.random.key(9), (leads, time))


def over_keys(function, n=2000):
    return np.asarray(jax.jit(jax.vmap(function))(jax.random.split(jax.random.key(0), n)))


@pytest.mark.parametrize("time", [64, 63])
def test_surrogate_keeps_the_amplitude_of_every_frequency(time):
    signal = draw(time=time)
    uniform = jax.random.uniform(jax.random.key(0), (ops.shifted_frequencies(time),))
    out = jax.jit(functools.partial(ops.ft_surrogate_by, magnitude=1.0))(signal, uniform)
    assert not np.allclose(out, signal, atol=0.1)
    np.testing.assert_allclose(np.abs(np.fft.rfft(out)), np.abs(np.fft.rfft(signal)), atol=1e-4)


@pytest.mark.parametrize("leads", ["together", "apart"])
def test_surrogate_phases_are_one_sided_uniform_and_shared_only_if_asked(leads):
    impulses = jnp.zeros((2, 12)).at[:, 0].set(1)
    outs = over_keys(lambda key: ops.ft_surrogate(key, impulses, magnitude=0.25, leads=leads))
    # The transform of an impulse is 1 everywhere: what is left is the turn, a share of a quarter circle.
    turn = np.angle(np.fft.rfft(outs)) / (np.pi / 2)
    np.testing.assert_allclose(turn[:, :, [0, -1]], 0, atol=1e-5)  # The constant, the Nyquist frequency.
    free = turn[:, :, 1:-1]
    assert free.min() > -1e-5
    assert free.max() < 1 + 1e-5
    np.testing.assert_allclose(free.mean(0), 0.5, atol=0.04)
    np.testing.assert_allclose(free.var(0), 1 / 12, rtol=0.1)
    draws = free.reshape(len(free), -1) if leads == "apart" else free[:, 0]
    correlation = np.corrcoef(draws.T)
    np.testing.assert_allclose(correlation, np.eye(len(correlation)), atol=0.1)
    if leads == "together":
        np.testing.assert_allclose(free[:, 0], free[:, 1], atol=1e-5)


def test_surrogate_happens_at_its_probability():
    signal = draw()
    outs = over_keys(lambda key: ops.ft_surrogate(key, signal, magnitude=1.0, probability=0.25))
    untouched = np.abs(outs - np.asarray(signal)).max((1, 2)) < 1e-5
    assert abs(untouched.mean() - 0.75) < 0.04


def test_a_tone_moves_by_the_shift():
    seconds = np.arange(200) / 100
    tone = jnp.asarray(np.cos(2 * np.pi * 20 * seconds), jnp.float32)[None]
    got = ops.shift_frequencies_by(tone, jnp.float32(-5), rate_hz=100.0)[0]
    # The ends of a tone that stops have no clean partner.
    np.testing.assert_allclose(got[50:150], np.cos(2 * np.pi * 15 * seconds)[50:150], atol=0.03)


def test_shifts_are_uniform_on_both_sides():
    # One impulse at second 1 turns by 2 pi shift: its height says cos, and the shift stays below half a turn.
    impulse = jnp.zeros((1, 64)).at[0, 32].set(1)
    height = over_keys(lambda key: ops.shift_frequencies(key, impulse, limit_hz=0.5, rate_hz=32.0))[:, 0, 32]
    size = np.arccos(np.clip(height, -1, 1)) / (2 * np.pi)
    np.testing.assert_allclose([size.mean(), size.var()], [0.25, 1 / 48], rtol=0.05)
    tone = jnp.asarray(np.exp(-0.5 * ((np.arange(64) - 32) / 4) ** 2) * np.cos(np.arange(64)), jnp.float32)
    outs = over_keys(lambda key: ops.shift_frequencies(key, tone[None], limit_hz=4.0, rate_hz=64.0))
    power = np.abs(np.fft.rfft(outs[:, 0])) ** 2
    centre = (power * np.arange(33)).sum(1) / power.sum(1) - 64 / (2 * np.pi)
    np.testing.assert_allclose([centre.mean(), centre.min(), centre.max()], [0, -4, 4], atol=0.2)
    np.testing.assert_allclose(centre.var(), 16 / 3, rtol=0.06)


def spectrogram_without(ecg, window, *, bins=(), frames=()):
    """Frame by frame: transform, zero, invert, and the mean of what overlaps."""
    time, hop = ecg.shape[1], window // 4
    padded = np.pad(np.asarray(ecg, np.float64), ((0, 0), (window // 2,) * 2), mode="reflect")
    total, cover = np.zeros_like(padded), np.zeros(padded.shape[1])
    for frame in range(1 + time // hop):
        part = slice(frame * hop, frame * hop + window)
        spectrum = np.fft.rfft(padded[:, part])
        spectrum[:, list(bins)] = 0
        total[:, part] += np.fft.irfft(spectrum, n=window) * (frame not in frames)
        cover[part] += 1
    inside = slice(window // 2, window // 2 + time)
    return total[:, inside] / cover[inside]


@pytest.mark.parametrize(("time", "window"), [(64, 12), (61, 8)])
def test_spectrogram_cuts_equal_those_made_frame_by_frame(time, window):
    ecg = draw(time=time)
    bins, frames = ops.spectrogram_shape(time, window=window)
    cut = jax.jit(functools.partial(ops.cut_frequencies_by, ecg, count=2, window=window))
    for start in (0, 2, bins - 2):
        got = cut(jnp.array(start))
        want = spectrogram_without(ecg, window, bins=range(start, start + 2))
        np.testing.assert_allclose(got, want, atol=2e-6)
    cut = jax.jit(functools.partial(ops.cut_frames_by, ecg, count=5, window=window))
    for start in (0, 3, frames - 5):
        got = cut(jnp.array(start))
        want = spectrogram_without(ecg, window, frames=range(start, start + 5))
        np.testing.assert_allclose(got, want, atol=2e-6)


def test_spec_augment_tosses_a_fair_coin_and_reaches_every_block():
    ecg = draw(leads=2, time=16)
    bins, frames = ops.spectrogram_shape(16, window=8)
    assert (bins, frames) == (5, 9)
    candidates = [spectrogram_without(ecg, 8, bins=range(s, s + 2)) for s in range(4)]
    candidates += [spectrogram_without(ecg, 8, frames=range(s, s + 3)) for s in range(7)]
    outs = over_keys(lambda key: ops.spec_augment(key, ecg, ratio=0.4, window=8), n=3000)
    error = np.abs(outs[:, None] - np.stack(candidates)).max((2, 3))
    assert error.min(1).max() < 1e-5
    share = np.bincount(error.argmin(1), minlength=11) / len(outs)
    np.testing.assert_allclose(share[:4], 1 / 8, atol=0.02)
    np.testing.assert_allclose(share[4:], 1 / 14, atol=0.02)


def test_spec_augment_refuses_what_it_cannot_do():
    cut = functools.partial(ops.spec_augment, jax.random.key(0), draw())
    with pytest.raises(ValueError, match=r"ratio 1\.5; choose a share from 0 to 1"):
        cut(ratio=1.5)
    with pytest.raises(ValueError, match="windows of 10 samples; choose a multiple of 4"):
        cut(window=10)
    with pytest.raises(ValueError, match="windows of 128 samples need more than 64 samples, got 64"):
        cut(window=128)
