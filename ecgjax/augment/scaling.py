"""Normalisation of an ECG on the device; what is stored in data files was normalised by `signals.ecg`."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ecgjax.core.precision import wide

Scope = Literal["record", "lead", "group"]

LEAD_GROUPS = (slice(0, 3), slice(3, 6), slice(6, 12))
"""I, II, III | aVR, aVL, aVF | V1 to V6: the leads that share their statistics under "group"."""

_VARIANCE_EPSILON = 1e-12


def normalise(ecg: Float[Array, "l t"], *, scope: Scope) -> Float[Array, "l t"]:
    """Mean 0 and variance 1 over the record, each lead or each group of leads; the variance is the unbiased one.

    (`signals.ecg` divides by n instead of n - 1, as the reference does in its preprocessing.)
    """

    def change(part):
        variance = part.var(ddof=1) + _VARIANCE_EPSILON
        return (part - part.mean()) / jnp.sqrt(variance)

    return _over(ecg, change, scope)


def min_max(ecg: Float[Array, "l t"], *, scope: Scope) -> Float[Array, "l t"]:
    """Lowest value to -1, highest to 1 over the record, each lead or each group of leads; a constant becomes 0."""

    def change(part):
        low, high = part.min(), part.max()
        return jnp.where(high > low, (2 * part - low - high) / jnp.where(high > low, high - low, 1), 0)

    return _over(ecg, change, scope)


def _over(ecg, change, scope):
    if scope == "group" and len(ecg) != 12:
        raise ValueError(
            f'scope "group" needs the 12 standard leads, got {len(ecg)}; choose "record" or "lead".'
        )
    values = wide(ecg)
    parts = {
        "record": lambda: change(values),
        "lead": lambda: jax.vmap(change)(values),
        "group": lambda: jnp.concatenate([change(values[group]) for group in LEAD_GROUPS]),
    }
    return parts[scope]().astype(ecg.dtype)
