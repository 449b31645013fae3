"""What turns an embedding into a projection or into predictions."""

from typing import Literal

import jax
from flax import nnx
from jaxtyping import Array, Float

from ecgjax.models.layers import uniform_by_fan_in, xavier_uniform
from ecgjax.models.norms import BatchNorm


class ProjectionHead(nnx.Module):
    """Linear, ReLU, linear, without batch norm; weights and biases start uniform in +-1/sqrt(fan in)."""

    def __init__(self, *, width_in: int, hidden: int, width: int, dtype: str = "float32", rngs: nnx.Rngs):
        self.fc1 = _torch_linear(width_in, hidden, dtype=dtype, rngs=rngs)
        self.fc2 = _torch_linear(hidden, width, dtype=dtype, rngs=rngs)

    def __call__(self, embedding: Float[Array, "*b d"]) -> Float[Array, "*b k"]:
        """Projects; any leading axes, so that a map can be projected position by position."""
        return self.fc2(jax.nn.relu(self.fc1(embedding)))


class MlpHead(nnx.Module):
    """Linear without bias, batch norm, ReLU, linear; the heads of SimSiam, BYOL and Barlow Twins.

    `bias` is that of the last layer; `norm_out` adds a batch norm without scale and bias after it, and `norm_group` is
    the group of both (`BatchNorm`). Weights start uniform in +-1/sqrt(fan in), or Xavier uniform with bias zero, as
    masked pre-training draws every layer.
    """

    def __init__(
        self,
        *,
        width_in: int,
        hidden: int,
        width: int,
        bias: bool = True,
        norm_out: bool = False,
        norm_group: int | None = None,
        init: Literal["fan_in", "xavier"] = "fan_in",
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        def layer(width_in, width_out, use_bias):
            fan_in = uniform_by_fan_in(width_in)
            kernel, offset = (
                (fan_in, fan_in) if init == "fan_in" else (xavier_uniform, nnx.initializers.zeros)
            )
            return nnx.Linear(
                width_in,
                width_out,
                use_bias=use_bias,
                dtype=dtype,
                kernel_init=kernel,
                bias_init=offset,
                rngs=rngs,
            )

        self.fc1 = layer(width_in, hidden, False)
        norm = {"group": norm_group, "dtype": dtype, "rngs": rngs}
        self.norm1 = BatchNorm(hidden, **norm)
        self.fc2 = layer(hidden, width, bias)
        self.norm2 = BatchNorm(width, affine=False, **norm) if norm_out else None

    def __call__(self, embedding: Float[Array, "b d"], *, train: bool) -> Float[Array, "b k"]:
        """Projects; in training the running statistics move."""
        hidden = jax.nn.relu(self.norm1(self.fc1(embedding), train=train))
        out = self.fc2(hidden)
        return out if self.norm2 is None else self.norm2(out, train=train)


class LinearHead(nnx.Module):
    """Linear map to logits or regression targets: kernel normal, bias zero."""

    def __init__(
        self,
        *,
        width_in: int,
        outputs: int,
        kernel_deviation: float = 0.02,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        # jax rescales a truncated normal to the deviation asked for; torch does not, and cuts at +-2, where
        # a deviation of 0.02 is hardly touched. A plain normal is the closer match.
        init = nnx.initializers.normal(kernel_deviation)
        self.linear = nnx.Linear(width_in, outputs, dtype=dtype, kernel_init=init, rngs=rngs)

    def __call__(self, embedding: Float[Array, "b d"]) -> Float[Array, "b m"]:
        """Returns one value a target."""
        return self.linear(embedding)


class ProbeHead(nnx.Module):
    """Batch norm without scale and bias, then a linear map: the head of linear probing (MAE, arXiv 2111.06377)."""

    def __init__(
        self,
        *,
        width_in: int,
        outputs: int,
        kernel_deviation: float = 0.02,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        self.norm = BatchNorm(width_in, affine=False, epsilon=1e-6, dtype=dtype, rngs=rngs)
        self.linear = LinearHead(
            width_in=width_in, outputs=outputs, kernel_deviation=kernel_deviation, dtype=dtype, rngs=rngs
        ).linear

    def __call__(self, embedding: Float[Array, "b d"], *, train: bool) -> Float[Array, "b m"]:
        """Returns one value a target; in training the running statistics move."""
        return self.linear(self.norm(embedding, train=train))


def _torch_linear(width_in, width_out, *, dtype, rngs):
    init = uniform_by_fan_in(width_in)
    return nnx.Linear(width_in, width_out, dtype=dtype, kernel_init=init, bias_init=init, rngs=rngs)
