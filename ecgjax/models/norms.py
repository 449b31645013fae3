"""Normalisation of images and vectors, channels last: over the batch, or within a sample."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ecgjax.core.precision import wide

EPSILON = 1e-5
MOMENTUM = 0.9
"""Share of the old running statistics that one training step keeps (torch calls the rest momentum, 0.1)."""


class BatchNorm(nnx.Module):
    """Normalisation over all axes but the last, by the statistics of the global batch in training.

    Otherwise the running ones serve, of which the variance is the unbiased one, as in torch. Without `affine`
    there is neither scale nor bias.
    """

    def __init__(
        self,
        channels: int,
        *,
        affine: bool = True,
        epsilon: float = EPSILON,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        del rngs  # Nothing is drawn; every layer takes it.
        self.dtype, self.epsilon, self.affine = dtype, epsilon, affine
        if affine:
            self.scale = nnx.Param(jnp.ones(channels))
            self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.var = nnx.BatchStat(jnp.ones(channels))

    def __call__(self, x: Float[Array, "*b c"], *, train: bool) -> Float[Array, "*b c"]:
        """Normalises; in training it also moves the running statistics."""
        mean, var = self.mean[...], self.var[...]
        values = wide(x)
        if train:
            axes = tuple(range(x.ndim - 1))
            batch_mean, batch_var = values.mean(axes), values.var(axes)
            n = x.size // x.shape[-1]
            if n < 2:
                raise ValueError(
                    "batch norm needs two values a channel in training; use a larger batch or norm='group'."
                )
            unbiased = batch_var * (n / (n - 1))
            self.mean[...] = MOMENTUM * mean + (1 - MOMENTUM) * jax.lax.stop_gradient(batch_mean)
            self.var[...] = MOMENTUM * var + (1 - MOMENTUM) * jax.lax.stop_gradient(unbiased)
            mean, var = batch_mean, batch_var
        scale = jax.lax.rsqrt(var + self.epsilon)
        if not self.affine:
            return ((values - mean) * scale).astype(self.dtype)
        return ((values - mean) * (scale * self.scale[...]) + self.bias[...]).astype(self.dtype)


class GroupNorm(nnx.Module):
    """Normalisation within each sample over groups of channels; no running statistics."""

    def __init__(self, channels: int, *, groups: int = 8, dtype: str, rngs: nnx.Rngs):
        if channels % groups:
            raise ValueError(
                f"{channels} channels do not split into {groups} groups; use widths that are multiples of it."
            )
        self.groups, self.dtype = groups, dtype
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Float[Array, "b y x c"], *, train: bool) -> Float[Array, "b y x c"]:
        """Normalises, in training and otherwise alike."""
        # By channel first: XLA reduces over the image fast, over an image and two channels of a group slowly.
        values = wide(x)
        mean = values.mean((1, 2))
        var = jnp.mean(jnp.square(values - mean[:, None, None]), (1, 2))
        group_mean = self._over_group(mean)
        group_var = self._over_group(var + jnp.square(mean - group_mean))
        scale = jax.lax.rsqrt(group_var + EPSILON) * self.scale[...]
        shift = self.bias[...] - group_mean * scale
        return (values * scale[:, None, None] + shift[:, None, None]).astype(self.dtype)

    def _over_group(self, x: Float[Array, "b c"]) -> Float[Array, "b c"]:
        b, c = x.shape
        mean = x.reshape(b, self.groups, c // self.groups).mean(2, keepdims=True)
        return jnp.broadcast_to(mean, (b, self.groups, c // self.groups)).reshape(b, c)
