"""Random changes of an ECG's spectrum: phases, shifted frequencies, blocks cut from the spectrogram.

Each function changes one record; a function that ends in `_by` takes the draws instead of a key.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ecgjax.core.precision import wide


def ft_surrogate(
    key: PRNGKeyArray,
    ecg: Float[Array, "l t"],
    *,
    magnitude: float,
    probability: float = 1.0,
    leads: Literal["together", "apart"] = "together",
) -> Float[Array, "l t"]:
    """Shifts the phase of every frequency by U(0, 2 pi magnitude), the same in all leads or drawn for each.

    Each frequency draws its own shift, all of them positive, as in the reference; with `1 - probability` nothing
    happens.
    """
    key_gate, key_phase = jax.random.split(key)
    rows = () if leads == "together" else (len(ecg),)
    uniform = jax.random.uniform(key_phase, (*rows, shifted_frequencies(ecg.shape[1])), wide(ecg).dtype)
    # Gating the phases, not the signals, saves a pass over the batch.
    gate = jax.random.bernoulli(key_gate, probability)
    return ft_surrogate_by(ecg, jnp.where(gate, uniform, 0), magnitude=magnitude)


def shifted_frequencies(time: int) -> int:
    """Bins whose phase is free: all but the constant and, for an even length, the Nyquist one."""
    return (time - 1) // 2


def ft_surrogate_by(
    ecg: Float[Array, "l t"], uniform: Float[Array, "f"] | Float[Array, "l f"], *, magnitude: float
) -> Float[Array, "l t"]:
    """Turns bin k of the half spectrum by 2 pi magnitude uniform[..., k - 1]."""
    time = ecg.shape[1]
    spectrum = jnp.fft.rfft(wide(ecg))
    rest = spectrum.shape[1] - 1 - uniform.shape[-1]
    angle = jnp.pad(2 * jnp.pi * magnitude * uniform, ((0, 0),) * (uniform.ndim - 1) + ((1, rest),))
    return jnp.fft.irfft(spectrum * jnp.exp(1j * angle), n=time).astype(ecg.dtype)


def shift_frequencies(
    key: PRNGKeyArray, ecg: Float[Array, "l t"], *, limit_hz: float, rate_hz: float
) -> Float[Array, "l t"]:
    """Moves all frequencies by U(-limit_hz, limit_hz); the reference moves them by a constant."""
    drawn = jax.random.uniform(key, (), wide(ecg).dtype, minval=-limit_hz, maxval=limit_hz)
    return shift_frequencies_by(ecg, drawn, rate_hz=rate_hz)


def shift_frequencies_by(
    ecg: Float[Array, "l t"], shift_hz: Float[Array, ""], *, rate_hz: float
) -> Float[Array, "l t"]:
    """Moves all frequencies by `shift_hz`."""
    seconds = jnp.arange(ecg.shape[1], dtype=wide(ecg).dtype) / rate_hz
    return turn_by(ecg, 2 * jnp.pi * shift_hz * seconds)


def turn_by(ecg: Float[Array, "l t"], angle: Float[Array, "t"]) -> Float[Array, "l t"]:
    """Real part of exp(i angle) times the analytic signal, whose transform has the next power of two samples."""
    time = ecg.shape[1]
    size = 1 << (time - 1).bit_length()
    values = wide(ecg)
    spectrum = jnp.fft.rfft(values, n=size)
    # The constant and the Nyquist bin have no imaginary partner.
    inner = np.arange(spectrum.shape[1]) % (size // 2) != 0
    partner = jnp.fft.irfft(jnp.where(inner, -1j * spectrum, 0), n=size)[:, :time]
    return (values * jnp.cos(angle) - partner * jnp.sin(angle)).astype(ecg.dtype)


def spec_augment(
    key: PRNGKeyArray, ecg: Float[Array, "l t"], *, ratio: float = 0.2, window: int = 120
) -> Float[Array, "l t"]:
    """Cuts a block of int(ratio n) frequencies or, by a fair coin, of frames from the spectrogram.

    Every block that fits can be drawn; all leads lose the same one. The spectrogram has rectangular windows, a
    quarter of a window apart, centred on their samples; the ends are mirrored (Park et al., 2019).
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"SpecAugment with ratio {ratio}; choose a share from 0 to 1.")
    bins, frames = spectrogram_shape(ecg.shape[1], window=window)
    key_coin, key_bin, key_frame = jax.random.split(key, 3)
    cut_bins, cut_frames = int(ratio * bins), int(ratio * frames)
    first_bin = jax.random.randint(key_bin, (), 0, bins - cut_bins + 1)
    first_frame = jax.random.randint(key_frame, (), 0, frames - cut_frames + 1)
    return jnp.where(
        jax.random.bernoulli(key_coin),
        cut_frequencies_by(ecg, first_bin, count=cut_bins, window=window),
        cut_frames_by(ecg, first_frame, count=cut_frames, window=window),
    )


def spectrogram_shape(time: int, *, window: int) -> tuple[int, int]:
    """Frequencies and frames of the spectrogram of `time` samples."""
    if window < 4 or window % 4:
        raise ValueError(f"spectrogram with windows of {window} samples; choose a multiple of 4.")
    if time <= window // 2:
        raise ValueError(f"windows of {window} samples need more than {window // 2} samples, got {time}.")
    return window // 2 + 1, 1 + time // (window // 4)


def cut_frequencies_by(
    ecg: Float[Array, "l t"], start: Int[Array, ""], *, count: int, window: int
) -> Float[Array, "l t"]:
    """Zeroes the bins [start, start + count) of every frame of the spectrogram, and inverts it."""
    _, frames = spectrogram_shape(ecg.shape[1], window=window)
    values, hop = wide(ecg), window // 4
    padded = jnp.pad(values, ((0, 0), (window // 2, window // 2)), mode="reflect")
    parts = padded[:, : (frames + 3) * hop].reshape(len(ecg), frames + 3, hop)
    windows = jnp.concatenate([parts[:, i : i + frames] for i in range(4)], axis=-1)
    # What is cut is a projection on few waves, which small matrix products find faster than transforms.
    waves = jnp.asarray(_waves(window), values.dtype)
    waves = jax.lax.dynamic_slice_in_dim(waves, start, count, axis=1).reshape(window, 2 * count)
    exact = jax.lax.Precision.HIGHEST
    removed = jnp.matmul(jnp.matmul(windows, waves, precision=exact), waves.T, precision=exact)
    removed = removed.reshape(len(ecg), frames, 4, hop)
    mean = _overlap(removed) / _overlap(np.ones((1, frames, 4, 1), values.dtype))
    return (values - mean.reshape(len(ecg), -1)[:, window // 2 :][:, : ecg.shape[1]]).astype(ecg.dtype)


def cut_frames_by(
    ecg: Float[Array, "l t"], start: Int[Array, ""], *, count: int, window: int
) -> Float[Array, "l t"]:
    """Zeroes the frames [start, start + count) of the spectrogram, and inverts it.

    What a sample keeps is the share of the windows over it that are left.
    """
    _, frames = spectrogram_shape(ecg.shape[1], window=window)
    frame = jnp.arange(frames)
    left = ((frame < start) | (frame >= start + count)).astype(wide(ecg).dtype)
    ones = np.ones((1, frames, 4, 1), left.dtype)
    gain = (_overlap(left[None, :, None, None] * ones) / _overlap(ones))[0, :, 0]
    gain = jnp.repeat(gain, window // 4)[window // 2 :][: ecg.shape[1]]
    return (ecg * gain).astype(ecg.dtype)


def _overlap(windows):
    """Adds the quarters [l frames 4 hop] of windows that start a quarter apart: [l frames+3 hop]."""
    return sum(jnp.pad(windows[:, :, i], ((0, 0), (i, 3 - i), (0, 0))) for i in range(4))


def _waves(window):
    """Orthonormal cosine and sine of each bin of a real transform: [window bins 2]."""
    bins = np.arange(window // 2 + 1)
    angle = 2 * np.pi * np.outer(np.arange(window), bins) / window
    scale = np.sqrt(np.where(bins % (window // 2) == 0, 1, 2) / window)
    return np.stack([scale * np.cos(angle), scale * np.sin(angle)], axis=-1)
