"""Target arms: encoders and heads that no gradient reaches, but that follow the trained ones (arXiv 2006.07733)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ecgjax.core.functional import Functional
from ecgjax.core.interfaces import Tree


def cosine_momentum(step: Int[Array, "*n"], *, start: float, steps: int) -> Float[Array, "*n"]:
    """From `start` at step 0 up to 1 at `steps` by half a cosine, and 1 ever after."""
    done = jnp.minimum(step / steps, 1)
    return 1 - (1 - start) * (jnp.cos(jnp.pi * done) + 1) / 2


def draw_target(params: Tree, stats: Tree) -> Tree:
    """A target as it begins: a copy of what it shares with the online arm."""
    return {"params": _shared(params), "stats": _shared(stats)}


def apply_target(
    network: Functional,
    target: Tree,
    start: Tree,
    views: Sequence[Float[Array, "b ..."]],
    *,
    updates: Int[Array, ""],
    train: bool,
    key: PRNGKeyArray,
) -> tuple[list[dict[str, Array]], Tree]:
    """Outputs for each view, and the target, whose own batch statistics move in training.

    Before the first update the target is `start`, what `draw_target` makes of the online arm at hand: so it begins
    where training does, also where the run was initialised from the weights of another.
    """
    begun = jax.tree.map(lambda old, new: jnp.where(updates == 0, new, old), target, start)
    weights, stats, outs = jax.lax.stop_gradient(begun["params"]), begun["stats"], []
    for i, x in enumerate(views):
        out, stats = network.apply(weights, stats, x, train=train, key=jax.random.fold_in(key, i))
        outs.append(out)
    return outs, ({"params": weights, "stats": stats} if train else target)


def follow(target: Tree, params: Tree, *, momentum: float | Float[Array, ""]) -> Tree:
    """Moves the target's parameters towards those of the online arm, by `average`."""
    return {**target, "params": average(target["params"], _shared(params), momentum=momentum)}


def average(target: Tree, params: Tree, *, momentum: float | Float[Array, ""]) -> Tree:
    """momentum * target + (1 - momentum) * params, leaf by leaf."""
    return jax.tree.map(lambda old, new: momentum * old + (1 - momentum) * new, target, params)


def check_momentum(value: float) -> None:
    """Raises where a target would run away from the online arm or overtake it."""
    if not 0 <= value <= 1:
        raise ValueError(f"config.objective.momentum is {value}; it must lie between 0 and 1.")


def _shared(arm: Tree) -> Tree:
    return {name: arm[name] for name in ("encoder", "head") if name in arm}
