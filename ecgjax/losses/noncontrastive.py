"""Losses that draw two views together without negatives."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ecgjax.core.precision import wide
from ecgjax.losses.contrastive import unit


def negative_cosine(h: Float[Array, "b k"], z: Float[Array, "b k"]) -> Float[Array, ""]:
    """Minus the mean cosine of predictions `h` with targets `z`, through which no gradient flows.

    A row shorter than 1e-8 counts as of that length.
    """
    prediction, target = unit(h, shortest=1e-8), jax.lax.stop_gradient(unit(z, shortest=1e-8))
    return -jnp.mean(jnp.sum(prediction * target, axis=1))


def simsiam(
    h0: Float[Array, "b k"], h1: Float[Array, "b k"], z0: Float[Array, "b k"], z1: Float[Array, "b k"]
) -> Float[Array, ""]:
    """Mean of the two directions (arXiv 2011.10566): the prediction of a view against the target of the other."""
    return (negative_cosine(h0, z1) + negative_cosine(h1, z0)) / 2


def byol(
    h0: Float[Array, "b k"], h1: Float[Array, "b k"], z0: Float[Array, "b k"], z1: Float[Array, "b k"]
) -> Float[Array, ""]:
    """Sum of -2 cosine over the two directions: the squared distance of unit vectors but for a constant.

    arXiv 2006.07733; `h` are predictions of the online arm, `z` projections of the target arm.
    """
    return 2 * (negative_cosine(h0, z1) + negative_cosine(h1, z0))


def barlow_twins(
    z0: Float[Array, "b k"],
    z1: Float[Array, "b k"],
    *,
    off_diagonal: float = 5e-3,
    batch_size: int | None = None,
) -> Float[Array, ""]:
    """Redundancy reduction (arXiv 2103.03230): the correlation of the views' features becomes the identity.

    Features are standardised over the global batch (variance + 1e-5). Their products are averaged over it, or
    divided by `batch_size`, as the released code divides by the configured one whatever the batch holds.
    """
    count = len(z0) if batch_size is None else batch_size
    correlation = _standardise(z0).T @ _standardise(z1) / count
    identity = jnp.eye(len(correlation), dtype=correlation.dtype)
    weight = identity + off_diagonal * (1 - identity)
    return jnp.sum(weight * jnp.square(correlation - identity))


def spread(z: Float[Array, "b k"]) -> Float[Array, ""]:
    """Deviation of unit rows over the batch, mean over features, times sqrt(k): near 1, or 0 where they collapsed."""
    return jnp.sqrt(z.shape[1]) * jnp.mean(jnp.std(unit(z), axis=0, ddof=1))


def _standardise(z):
    z = wide(z)
    return (z - z.mean(0)) * jax.lax.rsqrt(z.var(0) + 1e-5)
