"""Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899): every example of a batch blended with another's."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How batches are mixed: with `probability`, by the method whose alpha is above 0.

    Where both are, CutMix is taken with `switch_probability`. The share of the own example is drawn once a batch
    from Beta(alpha, alpha).
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    switch_probability: float = 0.5

    def __post_init__(self):
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0, and 0 is off.")
        for name in ("probability", "switch_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1].")

    @property
    def active(self) -> bool:
        """Whether any batch is ever mixed."""
        return self.probability > 0 and (self.mixup > 0 or self.cutmix > 0)


class Mixed(NamedTuple):
    """The mixed signals, and the share that each row keeps of its own."""

    x: Float[Array, "b r c ..."]
    share: Float[Array, ""]


def mix(key: PRNGKeyArray, x: Float[Array, "b r c ..."], mixing: Mixing) -> Mixed:
    """Mixes row i with row b - 1 - i: one draw for the whole batch, as in timm.

    The two axes after the batch are those that CutMix cuts its box from: leads and time, or height and width.
    """
    if not mixing.active:
        return Mixed(x, jnp.ones((), x.dtype))
    gate, switch, share, box = jax.random.split(key, 4)
    both = mixing.mixup > 0 and mixing.cutmix > 0
    cut = jax.random.bernoulli(switch, mixing.switch_probability) if both else mixing.cutmix > 0
    alpha = jnp.where(cut, mixing.cutmix or 1.0, mixing.mixup or 1.0)
    lam = jax.random.beta(share, alpha, alpha).astype(x.dtype)
    mixed = Mixed(mixup(x, lam), lam)
    if mixing.cutmix > 0:
        inside = random_box(box, lam, rows=x.shape[1], columns=x.shape[2])
        pasted = cutmix(x, inside)
        mixed = Mixed(*(jnp.where(cut, new, old) for new, old in zip(pasted, mixed, strict=True)))
    happens = jax.random.bernoulli(gate, mixing.probability)
    return Mixed(jnp.where(happens, mixed.x, x), jnp.where(happens, mixed.share, 1))


def mixup(x: Float[Array, "b r c ..."], share: Float[Array, ""]) -> Float[Array, "b r c ..."]:
    """share x + (1 - share) x of the flipped batch."""
    return (share * x + (1 - share) * x[::-1]).astype(x.dtype)


def cutmix(x: Float[Array, "b r c ..."], inside: Bool[Array, "r c"]) -> Mixed:
    """Pastes the box `inside` of the flipped batch; the share is that of the area left."""
    inside_all = inside.reshape(1, *inside.shape, *[1] * (x.ndim - 3))
    return Mixed(jnp.where(inside_all, x[::-1], x), 1 - jnp.mean(inside, dtype=x.dtype))


def random_box(
    key: PRNGKeyArray, share: Float[Array, ""], *, rows: int, columns: int
) -> Bool[Array, "rows columns"]:
    """A box of sqrt(1 - share) of either side around a uniform centre, cut off at the borders."""
    keys = jax.random.split(key)
    side = jnp.sqrt(1 - share)

    def within(key: PRNGKeyArray, size: int) -> Bool[Array, "size"]:
        half = (size * side).astype(jnp.int32) // 2
        centre: Int[Array, ""] = jax.random.randint(key, (), 0, size)
        place = jnp.arange(size)
        return (place >= centre - half) & (place < centre + half)

    return within(keys[0], rows)[:, None] & within(keys[1], columns)[None, :]


def mix_targets(target: Float[Array, "b c"], share: Float[Array, ""]) -> Float[Array, "b c"]:
    """Class probabilities of mixed rows; one that is mixed with a missing (NaN) row is missing itself."""
    mixed = share * target + (1 - share) * target[::-1]
    return jnp.where(share == 1, target, mixed).astype(target.dtype)
