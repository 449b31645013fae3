"""One optimiser step as a pure function."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.core import mesh as meshes
from ecgjax.core.interfaces import Batch, Objective
from ecgjax.train.state import TrainState, abstract_state

Metrics = dict[str, Float[Array, ""]]
TrainStep = Callable[[TrainState, Batch, PRNGKeyArray], tuple[TrainState, Metrics]]


def make_train_step(objective: Objective, tx: optax.GradientTransformation) -> TrainStep:
    """Returns the function that takes one optimiser step."""

    def train_step(state: TrainState, batch: Batch, key: PRNGKeyArray) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(key, state.step)  # A resumed run repeats the same draws.

        def loss(params):
            return objective.loss(params, state.extra, batch, key, train=True)

        (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        extra = objective.after_update(params, aux.extra)
        metrics = {"loss": value, **aux.metrics, "grad_norm": optax.tree.norm(grads)}
        return TrainState(state.step + 1, params, extra, opt_state), metrics

    return train_step


def make_eval_step(objective: Objective):
    """Returns the function that scores one batch without augmentation or update."""

    def eval_step(state: TrainState, batch: Batch, key: PRNGKeyArray) -> Metrics:
        value, aux = objective.loss(state.params, state.extra, batch, key, train=False)
        return {"loss": jnp.asarray(value), **aux.metrics}

    return eval_step


def compile_steps(objective: Objective, tx: optax.GradientTransformation, mesh: Mesh):
    """Jits both steps over the mesh; the state is donated, batches arrive split over all devices."""
    state = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(objective, tx, mesh))
    batch, whole = meshes.batch_sharding(mesh), meshes.replicated(mesh)
    train = jax.jit(
        make_train_step(objective, tx),
        in_shardings=(state, batch, whole),
        out_shardings=(state, whole),
        donate_argnums=0,
    )
    return train, jax.jit(make_eval_step(objective), in_shardings=(state, batch, whole), out_shardings=whole)
