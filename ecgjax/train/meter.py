"""What a running loop says of itself: metrics read one step late, speed, a loss that is not finite."""

import contextlib
import time
from collections.abc import Callable, Mapping

import jax
import numpy as np

from ecgjax.train.gauge import Gauge
from ecgjax.train.step import Metrics
from ecgjax.train.writer import MetricWriter, Progress


class NotFinite(ValueError):
    """Loss or gradient norm of a step is NaN or infinite: batch `step - 1` led there."""

    def __init__(self, step: int, loss: float, grad_norm: float):
        self.step, self.loss, self.grad_norm = step, loss, grad_norm
        super().__init__(
            f"the loss is {loss}, the gradient norm {grad_norm} at step {step}; lower "
            f"config.optimizer.schedule.learning_rate, set config.optimizer.clip_norm, or look for extreme values in "
            f"the data."
        )


class Meter:
    """Reads metrics one step late, with the speed since the last reading, and hands them to writer and bar."""

    def __init__(
        self,
        writer: MetricWriter,
        progress: Progress,
        *,
        rates: Mapping[str, Callable[[int], float]],
        gauge: Gauge,
        step: int,
    ):
        self._writer, self._progress, self._rates, self._gauge = writer, progress, rates, gauge
        self._held: tuple[int, Metrics, int] | None = None
        self._kept: list[tuple[int, jax.Array, jax.Array]] = []
        self._logged = step
        self.restart()

    def restart(self) -> None:
        """Starts the clock anew, so that validation does not count as step time."""
        self._since, self._waited = time.perf_counter(), 0.0

    @contextlib.contextmanager
    def waiting(self):
        """Counts the time inside as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def hold(self, step: int, metrics: Metrics, *, examples: int) -> None:
        """Keeps device scalars to be read once the next step is under way."""
        self._held = (step, metrics, examples)

    def keep(self, step: int, metrics: Metrics) -> None:
        """Keeps what `check` reads of a step: two scalars on the device, so that no step is waited for."""
        self._kept.append((step, metrics["loss"], metrics["grad_norm"]))

    def check(self) -> None:
        """Reads loss and gradient norm of the steps since the last check; the first that is not finite ends the run."""
        kept, self._kept = jax.device_get(self._kept), []
        for step, loss, grad_norm in kept:
            if not np.isfinite(loss + grad_norm):  # The norm shows what the update did.
                raise NotFinite(step, float(loss), float(grad_norm))

    def flush(self) -> None:
        """Reads and logs what is held; a loss that is not finite ends the run before."""
        if self._held is None:
            return
        self.check()
        (step, metrics, examples), self._held = self._held, None
        scalars = {name: float(value) for name, value in jax.device_get(metrics).items()}
        elapsed, steps = time.perf_counter() - self._since, step - self._logged
        examples_per_s = steps * examples / elapsed
        speed = {
            "step_ms": 1e3 * elapsed / steps,
            "examples_per_s": examples_per_s,
            "data_wait": self._waited / elapsed,
            **self._gauge.read(step_s=elapsed / steps, examples_per_s=examples_per_s),
        }
        rates = {name: float(rate(step - 1)) for name, rate in self._rates.items()}
        self._writer.write(step, {**scalars, **speed, **rates})
        self._progress.advance(steps, _notes(scalars, speed))
        self._logged = step
        self.restart()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._progress.close()  # An error's message must stand below the bar, not inside it.


def _notes(scalars: Mapping[str, float], speed: Mapping[str, float]) -> dict[str, str]:
    notes = {
        "loss": f"{scalars['loss']:.4f}",
        "step": f"{speed['step_ms']:.0f}ms",
        "ex/s": f"{speed['examples_per_s']:.0f}",
        "wait": f"{100 * speed['data_wait']:.0f}%",
    }
    if "mfu" in speed:
        notes["mfu"] = f"{100 * speed['mfu']:.1f}%"
    if "hbm_peak_gib" in speed:
        notes["hbm"] = f"{speed['hbm_peak_gib']:.1f}GiB"
    return notes
