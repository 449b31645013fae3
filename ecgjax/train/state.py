"""What training carries from step to step, and how it is created sharded."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int, PRNGKeyArray

from ecgjax.core import mesh as meshes
from ecgjax.core.interfaces import Objective, Tree


class TrainState(NamedTuple):
    """Pure pytrees; `extra` holds batch statistics and whatever follows the parameters."""

    step: Int[Array, ""]
    params: Tree
    extra: Tree
    opt_state: Tree


def make_init(objective: Objective, tx: optax.GradientTransformation):
    """Returns the pure function that draws a TrainState from a key."""

    def init(key: PRNGKeyArray) -> TrainState:
        params, extra = objective.init(key)
        return TrainState(jnp.zeros((), jnp.int32), params, extra, tx.init(params))

    return init


def abstract_state(
    objective: Objective, tx: optax.GradientTransformation, mesh: Mesh, rules: meshes.Rules = ()
) -> TrainState:
    """Shapes, dtypes and shardings (`rules` before the built-in ones) of the state; touches no device memory."""
    shapes = jax.eval_shape(make_init(objective, tx), jax.random.key(0))
    shardings = meshes.shardings(shapes, mesh, rules)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def create(
    objective: Objective,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    key: PRNGKeyArray,
    rules: meshes.Rules = (),
) -> TrainState:
    """Draws the state directly in its shards: no device ever holds the whole."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(objective, tx, mesh, rules))
    return jax.jit(make_init(objective, tx), out_shardings=shardings)(key)
