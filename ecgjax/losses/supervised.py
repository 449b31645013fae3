"""Losses against labels of which some are missing (NaN)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ecgjax.core.precision import wide


def masked_mse(prediction: Float[Array, "b m"], target: Float[Array, "b m"]) -> Float[Array, ""]:
    """Mean squared error over the targets that are there; 0 if none is.

    The reference counts missing targets as correct zeros instead.
    """
    known, filled = _known(target)
    return _mean_known(jnp.square(wide(prediction) - filled), known)


def masked_bce(logits: Float[Array, "b m"], target: Float[Array, "b m"]) -> Float[Array, ""]:
    """Mean binary cross-entropy over the targets that are there; 0 if none is."""
    known, filled = _known(target)
    logits = wide(logits)
    return _mean_known(jax.nn.softplus(logits) - logits * filled, known)


def _known(target):
    known = ~jnp.isnan(target)
    # NaN must not enter the arithmetic: zero times NaN is NaN in the gradient.
    return known, wide(jnp.where(known, target, 0))


def _mean_known(loss, known):
    return jnp.sum(jnp.where(known, loss, 0)) / jnp.maximum(jnp.sum(known), 1)
