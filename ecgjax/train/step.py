"""One optimiser step as a pure function, whole or in microbatches."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.core import mesh as meshes
from ecgjax.core.interfaces import Aux, Batch, Objective, Tree
from ecgjax.train.state import TrainState, abstract_state

Metrics = dict[str, Float[Array, ""]]
TrainStep = Callable[[TrainState, Batch, PRNGKeyArray], tuple[TrainState, Metrics]]


class _Scored(NamedTuple):
    value: Float[Array, ""]
    aux: Aux
    grads: Tree


def make_train_step(
    objective: Objective, tx: optax.GradientTransformation, *, accumulate: int = 1, mesh: Mesh | None = None
) -> TrainStep:
    """Returns the function that takes one optimiser step.

    `accumulate` > 1 takes the batch in as many microbatches, one after the other, and averages loss, metrics and
    gradients. That equals the whole batch where the loss is a mean over examples. Where examples meet, they meet
    within a microbatch only: a contrastive loss has its negatives there, batch norm its statistics, which move
    once a microbatch.
    """
    score = _scored if accumulate == 1 else _in_microbatches(accumulate, mesh)

    def train_step(state: TrainState, batch: Batch, key: PRNGKeyArray) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(key, state.step)  # A resumed run repeats the same draws.
        value, aux, grads = score(objective, state.params, state.extra, batch, key)
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


def compile_steps(
    objective: Objective,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    *,
    accumulate: int = 1,
    rules: meshes.Rules = (),
):
    """Jits both steps over the mesh; the state is donated, batches arrive split over all devices."""
    state = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(objective, tx, mesh, rules))
    batch, whole = meshes.batch_sharding(mesh), meshes.replicated(mesh)
    train = jax.jit(
        make_train_step(objective, tx, accumulate=accumulate, mesh=mesh),
        in_shardings=(state, batch, whole),
        out_shardings=(state, whole),
        donate_argnums=0,
    )
    return train, jax.jit(make_eval_step(objective), in_shardings=(state, batch, whole), out_shardings=whole)


def check_accumulate(accumulate: int, *, batch_size: int, mesh: Mesh) -> None:
    """Raises where microbatches would not be of one size, or not be shared equally by the devices."""
    if accumulate < 1:
        raise ValueError(f"config.accumulate is {accumulate}; it must be at least 1.")
    share = batch_size // mesh.size
    if share % accumulate:
        fit = [count for count in range(1, share + 1) if share % count == 0]
        raise ValueError(
            f"config.accumulate is {accumulate}, which does not divide the {share} examples that each of "
            f"{mesh.size} device(s) has of config.data.batch_size = {batch_size}; choose one of {fit}."
        )


def _scored(objective: Objective, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray) -> _Scored:
    def loss(params):
        return objective.loss(params, extra, batch, key, train=True)

    (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return _Scored(value, aux, grads)


def _in_microbatches(count: int, mesh: Mesh | None):
    """As `_scored`, in `count` parts of the batch, each with a key of its own."""

    def score(objective: Objective, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray) -> _Scored:
        def one(carry, inputs):
            extra, total = carry
            number, part = inputs
            value, aux, grads = _scored(objective, params, extra, part, jax.random.fold_in(key, number))
            return (aux.extra, jax.tree.map(jnp.add, total, grads)), (value, aux.metrics)

        parts = {name: _split(array, count, mesh) for name, array in batch.items()}
        start = (extra, jax.tree.map(jnp.zeros_like, params))
        (extra, total), scores = jax.lax.scan(one, start, (jnp.arange(count), parts))
        value, metrics = jax.tree.map(lambda x: x.mean(0), scores)
        return _Scored(value, Aux(metrics, extra), jax.tree.map(lambda x: x / count, total))

    return score


def _split(array: Array, count: int, mesh: Mesh | None) -> Array:
    """[b, ...] as [count, b / count, ...]; part j holds examples j, j + count, ...: none changes its device."""
    parts = array.reshape(-1, count, *array.shape[1:]).swapaxes(0, 1)
    if mesh is None:
        return parts
    spec = P(None, *meshes.batch_sharding(mesh).spec)
    return jax.lax.with_sharding_constraint(parts, NamedSharding(mesh, spec))
