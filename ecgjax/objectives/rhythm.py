"""What the times between beats say of one beat: an early one looks like any other."""

import jax.numpy as jnp
from jaxtyping import Array, Float

WIDTH = 3
_UNIT = 0.2
_BOUND = 5.0


def rhythm_features(rr: Float[Array, "b 4"]) -> Float[Array, "b 3"]:
    """Logarithms of pre / local, post / local and pre / record interval, in units of 0.2 and within 5 of them.

    `rr` holds seconds from the beat before, to the beat after, between beats nearby, and in the whole recording. What
    is unknown (NaN) has the feature 0, that of a regular beat. Ratios, so that a slow heart is no feature; a beat a
    fifth early has about -1; gaps in a recording are bounded.
    """
    pre, post, local, record = jnp.moveaxis(rr, 1, 0)
    part, whole = jnp.stack([pre, post, pre], axis=1), jnp.stack([local, local, record], axis=1)
    known = (part > 0) & (whole > 0)  # False for NaN.
    logarithm = jnp.log(jnp.where(known, part, 1)) - jnp.log(jnp.where(known, whole, 1))
    return jnp.clip(logarithm / _UNIT, -_BOUND, _BOUND)
