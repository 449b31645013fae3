"""Learning rates over the steps of a run, by name."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ecgjax.core import config as configs


def warmup_cosine(
    *, learning_rate: float, steps: int, warmup_steps: int, end_rate: float = 0.0
) -> optax.Schedule:
    """Linear from 0 over `warmup_steps`, then half a cosine to `end_rate` at `steps`.

    Unlike the schedules of both references, of which the first step or epoch has rate 0, step 0 already moves.
    """
    if not 0 <= warmup_steps < steps:
        raise ValueError(
            f"config.optimizer.schedule.warmup_steps is {warmup_steps}, which must lie in [0, {steps}) for "
            f"config.steps = {steps}."
        )

    def schedule(count):
        count = _floating(count)
        warm = (count + 1) / max(warmup_steps, 1)
        done = jnp.clip((count - warmup_steps) / (steps - warmup_steps), 0, 1)
        return jnp.where(count < warmup_steps, learning_rate * warm, _cosine(done, learning_rate, end_rate))

    return schedule


def half_cosine(
    *,
    learning_rate: float,
    steps: int,
    steps_per_epoch: int,
    warmup_epochs: float,
    end_rate: float = 0.0,
) -> optax.Schedule:
    """The reference's schedule of masked modelling and fine-tuning: linear from 0, then half a cosine, per step.

     Its clock is epochs with their fractions (`steps` / `steps_per_epoch` in all), and step 0 has rate 0
    .
    """
    epochs = steps / steps_per_epoch
    _check_warmup(warmup_epochs, epochs, steps, steps_per_epoch)

    def schedule(count):
        epoch = _floating(count) / steps_per_epoch
        warm = learning_rate * epoch / max(warmup_epochs, 1e-9)
        done = (epoch - warmup_epochs) / (epochs - warmup_epochs)
        return jnp.where(epoch < warmup_epochs, warm, _cosine(done, learning_rate, end_rate))

    return schedule


def epoch_cosine(
    *,
    learning_rate: float,
    steps: int,
    steps_per_epoch: int,
    warmup_epochs: int,
    start_rate: float = 0.0,
    end_rate: float = 0.0,
) -> optax.Schedule:
    """The reference's schedule of contrastive training: one rate an epoch.

    Epoch 0 has `start_rate`; the warm-up divides by `warmup_epochs` - 1, so that the full rate is reached one epoch
    early and held for two. Beyond the last epoch the cosine would rise again.
    """
    epochs = steps / steps_per_epoch
    _check_warmup(warmup_epochs, epochs, steps, steps_per_epoch)

    def schedule(count):
        epoch = _floating(jnp.asarray(count) // steps_per_epoch)
        warm = start_rate + (learning_rate - start_rate) * epoch / max(warmup_epochs - 1, 1)
        done = (epoch - warmup_epochs) / (epochs - warmup_epochs)
        return jnp.where(epoch < warmup_epochs, warm, _cosine(done, learning_rate, end_rate))

    return schedule


def constant(*, learning_rate: float, steps: int) -> optax.Schedule:
    """The same rate throughout."""
    del steps
    return optax.constant_schedule(learning_rate)


SCHEDULES = {
    "warmup_cosine": warmup_cosine,
    "half_cosine": half_cosine,
    "epoch_cosine": epoch_cosine,
    "constant": constant,
}

_RATE = ("learning_rate", "base_rate", "divisor")


def peak_rate(
    *,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    base_rate: float | None = None,
    divisor: float = 4.0,
) -> float:
    """`learning_rate` itself, or `base_rate` * `batch_size` / `divisor`; exactly one of both rates is given.

    `batch_size` is that of one update, over all devices and microbatches. The reference divides by 4, although its
    help text says 256.
    """
    if (learning_rate is None) == (base_rate is None):
        raise ValueError(
            f"config.optimizer.schedule: learning_rate is {learning_rate}, base_rate is {base_rate}; give exactly "
            f"one of them. The rate of a base_rate is base_rate * config.data.batch_size / divisor."
        )
    if base_rate is None:
        return learning_rate
    if divisor <= 0:
        raise ValueError(f"config.optimizer.schedule.divisor is {divisor}; it must be above 0.")
    if batch_size is None:
        raise ValueError("config.optimizer.schedule.base_rate needs the batch size; give learning_rate.")
    return base_rate * batch_size / divisor


def scaled(schedule: optax.Schedule, scale: float) -> optax.Schedule:
    """`scale` times the rate."""
    return lambda count: scale * schedule(count)


def build(
    section: Mapping[str, Any],
    path: str,
    *,
    steps: int,
    steps_per_epoch: int | None = None,
    batch_size: int | None = None,
) -> optax.Schedule:
    """Builds the schedule that a section names; what it needs to know of the data comes from the job."""
    fields = dict(section)
    rate = {name: fields.pop(name) for name in _RATE if name in fields}
    known = {"steps": steps} | ({} if steps_per_epoch is None else {"steps_per_epoch": steps_per_epoch})
    bound = configs.bind(SCHEDULES, fields, path, **known)
    configs.require(bound, path, open_arguments=("learning_rate",))
    return bound(learning_rate=configs.call(peak_rate, rate, path, batch_size=batch_size))


def _floating(count) -> jax.Array:
    """In float64 where that is on: a rate must not be coarser than the parameters."""
    return jnp.asarray(count, jnp.result_type(float))


def _cosine(done, top: float, end: float):
    """From `top` at 0 to `end` at 1."""
    return end + (top - end) * 0.5 * (1 + jnp.cos(jnp.pi * done))


def _check_warmup(warmup_epochs: float | int, epochs: float, steps: int, steps_per_epoch: int) -> None:
    if not 0 <= warmup_epochs < epochs:
        raise ValueError(
            f"config.optimizer.schedule.warmup_epochs is {warmup_epochs}, which must lie in [0, {epochs:g}): "
            f"config.steps = {steps} are {epochs:g} epochs of {steps_per_epoch} steps."
        )
