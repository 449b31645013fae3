"""Where in its last feature map an encoder found what a readout speaks of (Grad-CAM, arXiv 1610.02391)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ecgjax.core.precision import wide


def grad_cam(
    logits: Callable[[Float[Array, "b r c"]], Float[Array, "b m"]],
    embedding: Float[Array, "b r c"],
    activation: Float[Array, "b r y x c"],
) -> Float[Array, "b m r y x"]:
    """Map of every logit: relu(sum over channels of weight x activation), the weight a channel's mean gradient.

    The gradient is that of `logits` by the `embedding`, divided by the number of places: exactly Grad-CAM where each
    channel of the embedding is the mean over its activation, or over the maxima of tiles of it. A readout that is
    linear makes it the class activation map (arXiv 1512.04150), up to that number and the sign. Of several maps `r`,
    such as leads, each has weights of its own. Examples must not depend on one another.
    """
    slopes = jax.jacrev(lambda z: logits(z).sum(0))(wide(embedding))  # [m b r c]
    places = activation.shape[-3] * activation.shape[-2]
    return jax.nn.relu(jnp.einsum("mbrc,bryxc->bmryx", slopes / places, wide(activation)))
