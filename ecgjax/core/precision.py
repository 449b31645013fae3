"""The precision that statistics and losses are computed in."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def wide(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Float32, or wider where `x` is."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
