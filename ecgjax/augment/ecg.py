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
