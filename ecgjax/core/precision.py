"""The precision that statistics and losses are computed in.

The whole policy: parameters, optimiser, running statistics and the average of microbatches are float32. A model's
`dtype` is that of its activations and matrix products: each layer casts its kernel where it is used, and products are
accumulated in float32 by the hardware. Statistics of norms, their scale and shift, means over tokens or maps, losses,
metrics and heads are `wide`; attention is so unless `softmax` says otherwise. So the gradient of a bfloat16 kernel is
rounded to bfloat16 before it is cast back to that of its parameter, and it is there, in bfloat16, that XLA sums it over
devices: half the bytes on the network, at a relative error of 2^-9 a sum. Norm parameters are summed in float32.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def wide(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Float32, or wider where `x` is."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
