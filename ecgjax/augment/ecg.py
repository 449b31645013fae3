"""Random changes of one ECG; each draws anew for a record, and is mapped over the batch by `views`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

JITTER_AMPLITUDE = 0.6
"""Constant factor on the jitter of the reference."""


def random_crop(key: PRNGKeyArray, ecg: Float[Array, "l t"], *, length: int) -> Float[Array, "l t2"]:
    """Cuts `length` samples from a uniformly random start.

    Every start that fits can be drawn; the reference never draws the last one.
    """
    time = ecg.shape[1]
    if length > time:
        raise ValueError(f"crop of {length} samples from an ECG of {time}; choose a crop of at most {time}.")
    return crop(ecg, jax.random.randint(key, (), 0, time - length + 1), length=length)


def crop(ecg: Float[Array, "l t"], start: Int[Array, ""], *, length: int) -> Float[Array, "l t2"]:
    """Cuts `length` samples from `start`."""
    return jax.lax.dynamic_slice_in_dim(ecg, start, length, axis=1)


def ft_surrogate(
    key: PRNGKeyArray, ecg: Float[Array, "l t"], *, magnitude: float, probability: float = 1.0
) -> Float[Array, "l t"]:
    """Shifts the phase of every frequency by U(0, 2 pi magnitude), the same in all leads.

    Each frequency draws its own shift, all of them positive; with `1 - probability` nothing happens.
    """
    key_gate, key_phase = jax.random.split(key)
    uniform = jax.random.uniform(key_phase, (shifted_frequencies(ecg.shape[1]),))
    # Gating the phases, not the signals, saves a pass over the batch.
    gate = jax.random.bernoulli(key_gate, probability)
    return shift_phases(ecg, jnp.where(gate, uniform, 0), magnitude=magnitude)


def shifted_frequencies(time: int) -> int:
    """Bins whose phase is free: all but the constant and, for an even length, the Nyquist one."""
    return (time - 1) // 2


def shift_phases(
    ecg: Float[Array, "l t"], uniform: Float[Array, "f"], *, magnitude: float
) -> Float[Array, "l t"]:
    """Turns bin k of the half spectrum by 2 pi magnitude uniform[k - 1]."""
    time = ecg.shape[1]
    spectrum = jnp.fft.rfft(ecg.astype(jnp.float32))
    angle = jnp.zeros(spectrum.shape[1]).at[1 : 1 + len(uniform)].set(2 * jnp.pi * magnitude * uniform)
    return jnp.fft.irfft(spectrum * jnp.exp(1j * angle), n=time).astype(ecg.dtype)


def jitter(key: PRNGKeyArray, ecg: Float[Array, "l t"], *, deviation: float) -> Float[Array, "l t"]:
    """Multiplies each sample by 1 + 0.6 deviation N(0, 1), so that noise follows the signal."""
    return jitter_by(ecg, jax.random.normal(key, ecg.shape), deviation=deviation)


def jitter_by(
    ecg: Float[Array, "l t"], noise: Float[Array, "l t"], *, deviation: float
) -> Float[Array, "l t"]:
    """Multiplies each sample by 1 + 0.6 deviation noise."""
    return (ecg * (1 + JITTER_AMPLITUDE * deviation * noise)).astype(ecg.dtype)


def rescale(key: PRNGKeyArray, ecg: Float[Array, "l t"], *, deviation: float) -> Float[Array, "l t"]:
    """Multiplies the whole record by one draw of N(1, deviation^2), which may be negative."""
    return rescale_by(ecg, 1 + deviation * jax.random.normal(key))


def rescale_by(ecg: Float[Array, "l t"], factor: Float[Array, ""]) -> Float[Array, "l t"]:
    """Multiplies the whole record by `factor`."""
    return (ecg * factor).astype(ecg.dtype)


def time_flip(key: PRNGKeyArray, ecg: Float[Array, "l t"], *, probability: float) -> Float[Array, "l t"]:
    """Reverses time with `probability`."""
    return jnp.where(jax.random.bernoulli(key, probability), ecg[:, ::-1], ecg)


def sign_flip(key: PRNGKeyArray, ecg: Float[Array, "l t"], *, probability: float) -> Float[Array, "l t"]:
    """Negates the record with `probability`."""
    return jnp.where(jax.random.bernoulli(key, probability), -ecg, ecg)
