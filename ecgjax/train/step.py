"""One optimiser step as a pure function, whole or in parts of the batch."""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.core import mesh as meshes
from ecgjax.core.interfaces import Aux, Batch, Comparing, Objective, Tree
from ecgjax.train.state import TrainState, abstract_state

Metrics = dict[str, Float[Array, ""]]
TrainStep = Callable[[TrainState, Batch, PRNGKeyArray], tuple[TrainState, Metrics]]


Score = Callable[[Objective, Tree, Tree, Batch, PRNGKeyArray], "_Scored"]
"""From an objective, `params`, `extra`, a batch and a key to the loss and its gradient."""


class _Scored(NamedTuple):
    value: Float[Array, ""]
    aux: Aux
    grads: Tree


def make_train_step(
    objective: Objective,
    tx: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    grad_cache: int = 1,
    mesh: Mesh | None = None,
) -> TrainStep:
    """Returns the function that takes one optimiser step.

    `accumulate` > 1 takes the batch in as many microbatches, one after the other, and averages loss, metrics and
    gradients. That equals the whole batch where the loss is a mean over examples. Where examples meet, they meet
    within a microbatch only: a contrastive loss has its negatives there, batch norm its statistics, which move
    once a microbatch.

    `grad_cache` > 1 is for a loss that compares examples, a `Comparing` objective (GradCache, arXiv 2101.06983): its
    encoders take the batch, or each microbatch, in as many parts, the loss compares all of it. The gradient is that
    of the whole batch, activations are those of one part; every part is encoded twice, the second time for the
    gradient. Batch norm has the statistics of a part, the same both times, and moves once a part, in order. Part j
    draws from `fold_in(key, j)`, the comparison from `fold_in(key, grad_cache)`.
    """
    score = _scored if grad_cache == 1 else _encoded_in_parts(grad_cache, mesh)
    if accumulate > 1:
        score = _in_microbatches(score, accumulate, mesh)

    def train_step(state: TrainState, batch: Batch, key: PRNGKeyArray) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(key, state.step)  # A resumed run repeats the same draws.
        with _context(mesh):
            value, aux, grads = score(objective, state.params, state.extra, batch, key)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        extra = objective.after_update(params, aux.extra)
        metrics = {"loss": value, **aux.metrics, "grad_norm": optax.tree.norm(grads)}
        return TrainState(state.step + 1, params, extra, opt_state), metrics

    return train_step


def make_eval_step(objective: Objective, *, mesh: Mesh | None = None):
    """Returns the function that scores one batch without augmentation or update."""

    def eval_step(state: TrainState, batch: Batch, key: PRNGKeyArray) -> Metrics:
        with _context(mesh):
            value, aux = objective.loss(state.params, state.extra, batch, key, train=False)
        return {"loss": jnp.asarray(value), **aux.metrics}

    return eval_step


def compile_steps(
    objective: Objective,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    *,
    accumulate: int = 1,
    grad_cache: int = 1,
    rules: meshes.Rules = (),
):
    """Jits both steps over the mesh; the state is donated, batches arrive split over all devices."""
    state = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(objective, tx, mesh, rules))
    batch, whole = meshes.batch_sharding(mesh), meshes.replicated(mesh)
    train = jax.jit(
        make_train_step(objective, tx, accumulate=accumulate, grad_cache=grad_cache, mesh=mesh),
        in_shardings=(state, batch, whole),
        out_shardings=(state, whole),
        donate_argnums=0,
    )
    evaluate = make_eval_step(objective, mesh=mesh)
    return train, jax.jit(evaluate, in_shardings=(state, batch, whole), out_shardings=whole)


def check_accumulate(accumulate: int, *, batch_size: int, mesh: Mesh) -> None:
    """Raises where microbatches would not be of one size, or not be shared equally by the devices."""
    whose = f"config.data.batch_size = {batch_size}"
    _check_parts("config.accumulate", accumulate, batch_size // mesh.size, whose, mesh)


def check_grad_cache(
    grad_cache: int, *, objective: Objective, name: str, accumulate: int, batch_size: int, mesh: Mesh
) -> None:
    """As `check_accumulate` for the parts of a microbatch, and where the objective `name` compares nothing."""
    if grad_cache > 1 and not isinstance(objective, Comparing):
        raise ValueError(
            f"config.grad_cache is {grad_cache}, but the loss of objective {name} is a mean over examples; use "
            f"config.accumulate."
        )
    whose = f"config.data.batch_size = {batch_size}"
    whose += f" / config.accumulate = {accumulate}" if accumulate > 1 else ""
    _check_parts("config.grad_cache", grad_cache, batch_size // mesh.size // accumulate, whose, mesh)


def _check_parts(path: str, count: int, share: int, whose: str, mesh: Mesh) -> None:
    if count < 1:
        raise ValueError(f"{path} is {count}; it must be at least 1.")
    if share % count:
        fit = [parts for parts in range(1, share + 1) if share % parts == 0]
        raise ValueError(
            f"{path} is {count}, which does not divide the {share} examples that each of {mesh.size} device(s) has "
            f"of {whose}; choose one of {fit}."
        )


def _context(mesh: Mesh | None):
    """Tells losses in tiles which devices there are."""
    if mesh is None:
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def _scored(objective: Objective, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray) -> _Scored:
    def loss(params):
        return objective.loss(params, extra, batch, key, train=True)

    (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return _Scored(value, aux, grads)


def _encoded_in_parts(count: int, mesh: Mesh | None) -> Score:
    """As `_scored`, but the encoders take the batch in `count` parts, each with a key of its own."""

    def score(objective: Comparing, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray) -> _Scored:
        parts = {name: _split(array, count, mesh) for name, array in batch.items()}

        def loss(params):
            @jax.checkpoint  # The scan keeps the parts and their embeddings, of activations those of one part.
            def one(extra, inputs):
                number, part = inputs
                draw = jax.random.fold_in(key, number)
                embedded, extra = objective.embed(params, extra, part, draw, train=True)
                return extra, embedded

            moved, embedded = jax.lax.scan(one, extra, (jnp.arange(count), parts))
            embedded = jax.tree.map(lambda array: _join(array, mesh), embedded)
            draw = jax.random.fold_in(key, count)
            value, metrics = objective.compare(params, embedded, batch, draw, train=True)
            return value, Aux(metrics, moved)

        (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return _Scored(value, aux, grads)

    return score


def _in_microbatches(score_one: Score, count: int, mesh: Mesh | None) -> Score:
    """As `score_one`, in `count` parts of the batch, each with a key of its own."""

    def score(objective: Objective, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray) -> _Scored:
        def one(carry, inputs):
            extra, total = carry
            number, part = inputs
            value, aux, grads = score_one(objective, params, extra, part, jax.random.fold_in(key, number))
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


def _join(parts: Array, mesh: Mesh | None) -> Array:
    """What `_split` cut, in its order again."""
    array = parts.swapaxes(0, 1).reshape(-1, *parts.shape[2:])
    return array if mesh is None else jax.lax.with_sharding_constraint(array, meshes.batch_sharding(mesh))
