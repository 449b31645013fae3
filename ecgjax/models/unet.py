"""The encoding half of a U-Net, channels last: a small CMR encoder."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.core.precision import wide
from ecgjax.models.layers import uniform_by_fan_in

SLOPE = 0.2
"""Of the leaky ReLU below 0; the draw of the kernels allows for it."""

_he_uniform = nnx.initializers.variance_scaling(2 / (1 + SLOPE**2), "fan_in", "uniform")


class UNet(nnx.Module):
    """One 3x3 convolution and leaky ReLU a width; every one but the first halves the map. No norm.

    The defaults are the encoder of the reference, whose own code cannot run it. Kernels start He
    uniform for the slope, biases uniform in +-1/sqrt(fan in). `reads` picks channels of the image by position;
    without it the image has `channels` of them.
    """

    def __init__(
        self,
        *,
        channels: int = 2,
        reads: Sequence[int] | None = None,
        widths: Sequence[int] = (16, 32, 32, 32, 32),
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        if not widths:
            raise ValueError("widths is empty; name at least one.")
        self.reads = None if reads is None else tuple(reads)
        self.convs = nnx.List(
            [
                nnx.Conv(
                    before,
                    width,
                    (3, 3),
                    strides=1 if i == 0 else 2,
                    padding=1,  # SAME would pad one side only at stride 2.
                    dtype=dtype,
                    kernel_init=_he_uniform,
                    bias_init=uniform_by_fan_in(9 * before),
                    rngs=rngs,
                )
                for i, (before, width) in enumerate(zip((channels, *widths[:-1]), widths, strict=True))
            ]
        )
        self.width = widths[-1]

    @property
    def last_block(self) -> tuple[str, ...]:
        """Regexes of the paths that partial fine-tuning trains."""
        return (f"convs/{len(self.convs) - 1}/",)

    def __call__(
        self, image: Float[Array, "b y x c"], *, train: bool = False, key: PRNGKeyArray | None = None
    ) -> dict[str, Float[Array, "..."]]:
        """Returns `embedding [b d]`, the mean over the map, and `map [b y x d]`."""
        x = image if self.reads is None else image[..., jnp.array(self.reads)]
        for conv in self.convs:
            x = jax.nn.leaky_relu(conv(x), SLOPE)
        return {"embedding": wide(x).mean((1, 2)).astype(x.dtype), "map": x}
