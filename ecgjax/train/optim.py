"""Optimisers and schedules by name."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ecgjax.core import config as configs
from ecgjax.core import trees


def warmup_cosine(
    *, learning_rate: float, steps: int, warmup_steps: int, end_rate: float = 0.0
) -> optax.Schedule:
    """Linear from 0 over `warmup_steps`, then half a cosine to `end_rate` at `steps`.

    The schedule of both papers, per step (the reference's MDM steps it per iteration, its MMCL per epoch, which
    wastes the first epoch at rate 0).
    """
    if not 0 <= warmup_steps < steps:
        raise ValueError(
            f"config.optimizer.schedule.warmup_steps is {warmup_steps}, which must lie in [0, {steps}) for "
            f"config.steps = {steps}."
        )

    def schedule(count):
        count = jnp.asarray(count, jnp.float32)
        warm = (count + 1) / max(warmup_steps, 1)  # Step 0 already moves.
        done = jnp.clip((count - warmup_steps) / (steps - warmup_steps), 0, 1)
        cosine = end_rate + (learning_rate - end_rate) * 0.5 * (1 + jnp.cos(jnp.pi * done))
        return jnp.where(count < warmup_steps, learning_rate * warm, cosine)

    return schedule


def constant(*, learning_rate: float, steps: int) -> optax.Schedule:
    """The same rate throughout."""
    del steps
    return optax.constant_schedule(learning_rate)


SCHEDULES = {"warmup_cosine": warmup_cosine, "constant": constant}


def adamw(
    *,
    schedule: optax.Schedule,
    b1: float = 0.9,
    b2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.05,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """AdamW with decoupled decay on everything of two or more dimensions (mmcl.md 4.7 counts tokens in)."""
    adam = optax.adamw(schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=_decayed)
    return adam if clip_norm is None else optax.chain(optax.clip_by_global_norm(clip_norm), adam)


def adam_l2(
    *,
    schedule: optax.Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-4,
) -> optax.GradientTransformation:
    """Adam with the decay added to the gradient of every parameter, as in the published MMCL recipe."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        _descend(schedule),
    )


OPTIMIZERS = {"adamw": adamw, "adam_l2": adam_l2}


def build(
    section: Mapping[str, Any],
    *,
    steps: int,
    frozen: Sequence[str] = (),
    path: str = "config.optimizer",
):
    """Builds the optimiser and its schedule; returns both, the schedule for the log.

    Parameters whose path one of the regexes `frozen` finds are not updated and hold no moments.
    """
    fields = dict(section)
    if "schedule" not in fields:
        raise ValueError(f"{path}.schedule: missing section; name one of {', '.join(SCHEDULES)}.")
    schedule = configs.build(SCHEDULES, fields.pop("schedule"), f"{path}.schedule", steps=steps)
    tx = configs.build(OPTIMIZERS, fields, path, schedule=schedule)
    return (freeze(tx, frozen) if frozen else tx), schedule


def freeze(tx: optax.GradientTransformation, paths: Sequence[str]) -> optax.GradientTransformation:
    """Leaves parameters alone whose path one of the regexes finds; `tx` sees the others only."""
    find = re.compile("|".join(f"(?:{path})" for path in paths)).search

    def label(params):
        return trees.map_named(lambda name, _: "frozen" if find(name) else "trained", params)

    return optax.multi_transform({"trained": tx, "frozen": optax.set_to_zero()}, label)


def _descend(schedule: optax.Schedule) -> optax.GradientTransformation:
    return optax.scale_by_learning_rate(schedule)


def _decayed(params):
    def decayed(name: str, leaf: jax.Array) -> bool:
        return leaf.ndim > 1 and not name.endswith("/bias")

    return trees.map_named(decayed, params)
