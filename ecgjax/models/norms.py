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

    `group` normalises as many consecutive examples of the batch by their own statistics, and the running ones follow
    the mean over groups of each group's. Where a group's examples lie on n chips, its statistics cross no more than
    these, and none where it is the share of one chip: that leaves 5 of the 102 all-reduces of a ResNet-50 contrastive
    step, most of which are small and wait for each other (distributed batch normalisation: Ying et al. 2018, arXiv
    1811.06992). As it counts examples and not chips, another number of devices computes the same.
    """

    def __init__(
        self,
        channels: int,
        *,
        affine: bool = True,
        epsilon: float = EPSILON,
        group: int | None = None,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        del rngs  # Nothing is drawn; every layer takes it.
        if group is not None and group < 1:
            raise ValueError(
                f"norm_group is {group}; a group has at least one example, None takes the batch."
            )
        self.dtype, self.epsilon, self.affine, self.group = dtype, epsilon, affine, group
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
            if self.group is not None:
                values = self._groups(values)
            axes = tuple(range(0 if self.group is None else 1, values.ndim - 1))
            if x.ndim > 2:
                batch_mean, batch_var = _moments(values, axes, near=jax.lax.stop_gradient(mean))
            else:  # Heads: hardly a layer to wait for, and features whose mean may be far from any guess.
                batch_mean, batch_var = values.mean(axes, keepdims=True), values.var(axes, keepdims=True)
            n = values.size // batch_mean.size
            if n < 2:
                raise ValueError(
                    "batch norm needs two values a channel in training; use a larger batch, a larger norm_group, or "
                    "norm='group'."
                )
            unbiased = batch_var * (n / (n - 1))
            # Not `self.mean[...] = `: flax asks a traced value for its sharding, and jax writes, for an error that
            # nobody reads, where the value comes from, out of the whole program so far; most of tracing a ResNet-50.
            for kept, now in ((self.mean, _over_groups(batch_mean)), (self.var, _over_groups(unbiased))):
                moved = MOMENTUM * kept[...] + (1 - MOMENTUM) * now
                kept.set_value(moved.astype(kept[...].dtype))
            mean, var = batch_mean, batch_var
        scale = jax.lax.rsqrt(var + self.epsilon)
        if self.affine:
            values = (values - mean) * (scale * self.scale[...]) + self.bias[...]
        else:
            values = (values - mean) * scale
        return values.reshape(x.shape).astype(self.dtype)

    def _groups(self, values: Float[Array, "b ..."]) -> Float[Array, "g n ..."]:
        b = len(values)
        if b % self.group:
            raise ValueError(
                f"norm_group is {self.group}, which does not divide the {b} examples that batch norm is given; choose "
                f"a divisor, or None for all of them."
            )
        return values.reshape(-1, self.group, *values.shape[1:])


def _moments(
    values: Float[Array, "..."], axes: tuple[int, ...], *, near: Float[Array, "c"]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Mean and variance over `axes` in one pass, so that both cross the devices in one sum and not one by one.

    The squares are those of distances to `near`, a guess at the mean: it changes neither result nor gradient, but
    E[x^2] - E[x]^2 loses its digits where the mean is large against the deviation.
    """
    distance = values - near
    mean, square = distance.mean(axes, keepdims=True), jnp.square(distance).mean(axes, keepdims=True)
    return near + mean, jnp.maximum(square - jnp.square(mean), 0)  # Rounding may pass below zero.


def _over_groups(statistic: Float[Array, "... c"]) -> Float[Array, "c"]:
    """The mean over groups, which gets no gradient."""
    return jax.lax.stop_gradient(statistic).reshape(-1, statistic.shape[-1]).mean(0)


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
