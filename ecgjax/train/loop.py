"""The training loop: data, dispatch, log, validate, save, in that order."""

import dataclasses
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from ecgjax.core import distributed, runtime
from ecgjax.core import mesh as meshes
from ecgjax.core.interfaces import Batch
from ecgjax.train.checkpoint_writing import Checkpoints
from ecgjax.train.gauge import Gauge
from ecgjax.train.meter import Meter
from ecgjax.train.profile import Profile
from ecgjax.train.stall import Watchdog
from ecgjax.train.state import TrainState
from ecgjax.train.step import Metrics
from ecgjax.train.watch import Stopping
from ecgjax.train.writer import MetricWriter, Progress


@dataclasses.dataclass(frozen=True)
class Rhythm:
    """How long to train, and how often to log, validate and save; in steps."""

    steps: int
    log_every: int
    validate_every: int
    save_every: int

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ValueError(f"config.{name} is {value}; it must be at least 1.")


@runtime_checkable
class Batches(Protocol):
    """Endless batches of this process that know the number of the next one."""

    next_batch: int

    def __next__(self) -> Batch: ...


class Interrupt:
    """Turns SIGTERM and SIGINT into a flag, so that the loop can save and leave between steps.

    Of several processes all must leave at one step: there jax takes SIGTERM, and SIGINT is handed to it as such.
    """

    def __init__(self):
        self.received: signal.Signals | None = None

    def at(self, step: int) -> bool:
        """Whether the loop is to leave after `step`; ask at every step."""
        return self.received is not None if not distributed.several() else distributed.preempted(step)

    def __enter__(self):
        taken = (signal.SIGINT,) if distributed.several() else (signal.SIGTERM, signal.SIGINT)
        self._before = {s: signal.signal(s, self._note) for s in taken}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, _frame):
        if self.received == signal.SIGINT:  # A second Ctrl-C means now.
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        if distributed.several():
            os.kill(os.getpid(), signal.SIGTERM)


def fit(
    state: TrainState,
    *,
    train_step: Callable[[TrainState, Batch, PRNGKeyArray], tuple[TrainState, Metrics]],
    validate: Callable[[TrainState], Mapping[str, float]],
    batches: Batches,
    key: PRNGKeyArray,
    mesh: Mesh,
    rhythm: Rhythm,
    checkpoints: Checkpoints,
    writer: MetricWriter,
    meta: Mapping[str, Any],
    rates: Mapping[str, Callable[[int], float]],
    name: str,
    gauge: Gauge,
    profile: Profile,
    watchdog: Watchdog,
    stopping: Stopping | None = None,
) -> TrainState:
    """Trains from `state.step` to `rhythm.steps`; returns early, saved, where a signal or `stopping` asks for it.

    Order matters. Step n is dispatched before the metrics of the last logged step are read, so the device never
    waits for the host; a checkpoint of step n holds the number of the batch after it, and what `stopping` knew then. A
    step is saved at the rhythm, and where its validation puts it among the best: only so the best are never lost.
    """
    step, scores = int(state.step), None
    first = step

    def save(scores: Mapping[str, float] | None = None) -> None:
        meter.check()  # No state is saved before its loss and gradient were seen to be finite.
        writer.upload()  # What lies before a checkpoint is logged, whatever happens to this machine.
        watched = {} if stopping is None else {"stop": stopping.to_json()}
        checkpoints.save(state, batches.next_batch, {**meta, **watched}, scores)

    def enough() -> bool:
        return step >= rhythm.steps or (stopping is not None and stopping.stopped)

    key = _everywhere(key, mesh)
    progress = Progress(total=rhythm.steps, start=step, name=name)
    meter = Meter(writer, progress, rates=rates, gauge=gauge, step=step)
    with Interrupt() as interrupt, meter, profile:
        if step == 0:
            save()
            writer.write(0, validate(state))
            meter.restart()
        while not enough() and not interrupt.at(step):
            watchdog.at(f"step {step + 1}", rare=step == first)
            profile.at(step, state)
            with meter.waiting():
                local = next(batches)
            batch = meshes.to_global(local, mesh)
            with jax.transfer_guard("disallow"), jax.profiler.StepTraceAnnotation("train", step_num=step + 1):
                state, metrics = train_step(state, batch, key)
            step += 1
            meter.flush()
            meter.keep(step, metrics)

            last, scores = step == rhythm.steps, None
            saves = step % rhythm.save_every == 0 or last
            validates = step % rhythm.validate_every == 0 or last
            if step % rhythm.log_every == 0 or saves or validates:
                meter.hold(step, metrics, examples=len(next(iter(batch.values()))))
            if validates:
                watchdog.at(f"the validation of step {step}", rare=True)
                meter.flush()
                scores = validate(state)
                writer.write(step, scores)
                if stopping is not None:
                    stopping.update(scores)
                saves |= checkpoints.wants(step, scores) or enough()
                meter.restart()
            if saves:
                watchdog.at(f"the save of step {step}", rare=True)
                meter.flush()
                save(scores)
        watchdog.at("the last save", rare=True)
        meter.flush()
        checkpoints.finish(lambda: save(scores))
        if stopping is not None and stopping.stopped:
            runtime.say(f"stopped early at step {step}: {stopping.reason}.")
        elif step < rhythm.steps:
            runtime.say(
                f"{(interrupt.received or signal.SIGTERM).name}: saved step {step}; run the same command to go on."
            )
    return state


def mean_over(
    eval_step: Callable,
    batches: Callable[[], Iterable[Batch]],
    key: PRNGKeyArray,
    mesh: Mesh,
    *,
    summary: Callable[[Mapping[str, float]], dict[str, float]] = dict,
) -> Callable[[TrainState], dict[str, float]]:
    """Returns the function that averages validation metrics over whole batches, as `val_*`.

    `summary` says what to report of the averages.
    """
    key = _everywhere(key, mesh)

    def validate(state: TrainState) -> dict[str, float]:
        totals: dict[str, float] = {}
        count = 0
        for batch in batches():
            placed = meshes.to_global(batch, mesh)
            with jax.transfer_guard("disallow"):
                metrics = eval_step(state, placed, key)
            count += 1
            for name, value in jax.device_get(metrics).items():
                totals[name] = totals.get(name, 0.0) + float(value)
        means = {name: total / count for name, total in totals.items()}
        return {f"val_{name}": value for name, value in summary(means).items()}

    return validate


def _everywhere(key: PRNGKeyArray, mesh: Mesh) -> PRNGKeyArray:
    """The key on every device, before the loop: the transfer guard refuses to put it there at each step.

    Not by `device_put`, which knows no devices of other processes for a key.
    """
    return jax.jit(lambda key: key, out_shardings=meshes.replicated(mesh))(key)
