"""Random changes of an ECG's amplitude, direction and lead order.

Each function changes one record and draws anew for it; `views` maps them over the batch. A function that ends in
`_by` takes the draws instead of a key.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ecgjax.core.precision import wide

JITTER_AMPLITUDE = 0.6
"""Constant factor on the jitter of the reference."""


def jitter(key: PRNGKeyArray, ecg: Float[Array, "l t"], *, deviation: float) -> Float[Array, "l t"]:
    """Multiplies each sample by 1 + 0.6 deviation N(0, 1), so that noise follows the signal."""
    return jitter_by(ecg, jax.random.normal(key, ecg.shape, wide(ecg).dtype), deviation=deviation)


def jitter_by(
    ecg: Float[Array, "l t"], noise: Float[Array, "l t"], *, deviation: float
) -> Float[Array, "l t"]:
    """Multiplies each sample by 1 + 0.6 deviation noise."""
    return (ecg * (1 + JITTER_AMPLITUDE * deviation * noise)).astype(ecg.dtype)


def rescale(key: PRNGKeyArray, ecg: Float[Array, "l t"], *, deviation: float) -> Float[Array, "l t"]:
    """Multiplies the whole record by one draw of N(1, deviation^2), which may be negative."""
    return rescale_by(ecg, 1 + deviation * jax.random.normal(key, (), wide(ecg).dtype))


def rescale_by(ecg: Float[Array, "l t"], factor: Float[Array, ""]) -> Float[Array, "l t"]:
    """Multiplies the whole record by `factor`."""
    return (ecg * factor).astype(ecg.dtype)


def gain(key: PRNGKeyArray, ecg: Float[Array, "l t"], *, deviation: float) -> Float[Array, "l t"]:
    """Multiplies the whole record by exp(deviation N(0, 1)): as likely doubled as halved, never negated."""
    return rescale_by(ecg, jnp.exp(deviation * jax.random.normal(key, (), wide(ecg).dtype)))


def drift(
    key: PRNGKeyArray, ecg: Float[Array, "l t"], *, amplitude: float, periods: float = 2.0
) -> Float[Array, "l t"]:
    """Adds a slow wave to each lead: up to `amplitude`, in the signal's unit, and up to `periods` in the record."""
    height, count, phase = jax.random.uniform(key, (3, len(ecg), 1), wide(ecg).dtype)
    return drift_by(ecg, amplitude * height, periods * count, 2 * jnp.pi * phase)


def drift_by(
    ecg: Float[Array, "l t"],
    amplitude: Float[Array, "l 1"],
    periods: Float[Array, "l 1"],
    phase: Float[Array, "l 1"],
) -> Float[Array, "l t"]:
    """Adds amplitude sin(2 pi periods i / T + phase) at sample i of T."""
    place = jnp.arange(ecg.shape[1], dtype=amplitude.dtype) / ecg.shape[1]
    return (ecg + amplitude * jnp.sin(2 * jnp.pi * periods * place + phase)).astype(ecg.dtype)


def noise(key: PRNGKeyArray, ecg: Float[Array, "l t"], *, deviation: float) -> Float[Array, "l t"]:
    """Adds white noise to each lead, in the signal's unit, of a deviation drawn from U(0, `deviation`).

    Silence has it too, unlike `jitter`. The draw goes down to none: a spectrum in decibels shows the noise of quiet
    stretches above all, and a network that saw no clean one would be at a loss with every recording as it is.
    """
    key_size, key_noise = jax.random.split(key)
    size = deviation * jax.random.uniform(key_size, (len(ecg), 1), wide(ecg).dtype)
    return (ecg + size * jax.random.normal(key_noise, ecg.shape, wide(ecg).dtype)).astype(ecg.dtype)


def time_flip(key: PRNGKeyArray, ecg: Float[Array, "l t"], *, probability: float) -> Float[Array, "l t"]:
    """Reverses time with `probability`."""
    return jnp.where(jax.random.bernoulli(key, probability), ecg[:, ::-1], ecg)


def sign_flip(key: PRNGKeyArray, ecg: Float[Array, "l t"], *, probability: float) -> Float[Array, "l t"]:
    """Negates the record with `probability`."""
    return jnp.where(jax.random.bernoulli(key, probability), -ecg, ecg)


def permute_leads(key: PRNGKeyArray, ecg: Float[Array, "l t"]) -> Float[Array, "l t"]:
    """Puts the leads in a uniformly random order."""
    return permute_leads_by(ecg, jax.random.permutation(key, len(ecg)))


def permute_leads_by(ecg: Float[Array, "l t"], order: Int[Array, "l"]) -> Float[Array, "l t"]:
    """Puts lead `order[i]` at place i."""
    return ecg[order]
