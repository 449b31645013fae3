"""What validation decides: which checkpoints are the best, and when to stop."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from orbax.checkpoint.checkpoint_managers import PreservationPolicy

Mode = Literal["max", "min"]


@dataclasses.dataclass(frozen=True)
class Best:
    """Keeps the `keep` best checkpoints by a validation metric, the highest (`max`) or the lowest (`min`)."""

    metric: str
    mode: Mode
    keep: int = 5

    def __post_init__(self):
        if self.keep < 1:
            raise ValueError(f"config.checkpoint.best.keep is {self.keep}; it must be at least 1.")

    def rank(self, scores: Mapping[int, Mapping[str, float | None]]) -> list[int]:
        """The steps that have a finite value, the best first; of equal ones the earlier."""
        values = {step: score[self.metric] for step, score in scores.items() if self.metric in score}
        finite = {step: value for step, value in values.items() if value is not None and math.isfinite(value)}
        return sorted(finite, key=lambda step: (_ascending(finite[step], self.mode), step))

    def chosen(self, scores: Mapping[int, Mapping[str, float | None]]) -> list[int]:
        """The steps to keep."""
        return self.rank(scores)[: self.keep]


class KeepBest(PreservationPolicy):
    """Preserves what `best` chooses among the scores of the checkpoints that are there."""

    def __init__(self, best: Best, scores: Mapping[int, Mapping[str, float | None]]):
        self._best, self._scores = best, scores

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """One answer a checkpoint, as Orbax asks for it."""
        del context
        found = {info.step: self._scores[info.step] for info in checkpoints if info.step in self._scores}
        chosen = set(self._best.chosen(found))
        return [info.step in chosen for info in checkpoints]


def finite(scores: Mapping[str, float]) -> dict[str, float | None]:
    """The metrics as a checkpoint holds them: JSON knows no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}


class Stopping:
    """Early stopping: ends a run once a validation metric has been worse than its best for too long.

    A validation within `max_delta` of the best so far resets the count, any other adds one; more than `patience` of
    them end the run. A value that is not finite counts as worse.
    """

    def __init__(self, *, metric: str, mode: Mode, patience: int, max_delta: float = 0.0):
        if patience < 0:
            raise ValueError(
                f"config.stop.patience is {patience}; it must be at least 0. Leave config.stop.metric unset to "
                f"train to the end."
            )
        if max_delta < 0:
            raise ValueError(f"config.stop.max_delta is {max_delta}; it must be at least 0.")
        self.metric, self.mode, self.patience, self.max_delta = metric, mode, patience, max_delta
        self.best: float | None = None
        self.worse = 0

    @property
    def stopped(self) -> bool:
        """Whether the run has had enough."""
        return self.worse > self.patience

    @property
    def reason(self) -> str:
        """Why it stopped, in words."""
        if self.best is None:
            return f"{self.metric} was not finite {self.worse} times in a row"
        within = f" by more than {self.max_delta:g}" if self.max_delta else ""
        return f"{self.metric} was worse than its best, {self.best:g},{within} {self.worse} times in a row"

    def update(self, scores: Mapping[str, float]) -> None:
        """Takes the metrics of one validation."""
        value = scores[self.metric]
        if not math.isfinite(value):
            self.worse += 1
            return
        if (
            self.best is None
            or _ascending(value, self.mode) <= _ascending(self.best, self.mode) + self.max_delta
        ):
            self.worse = 0
        else:
            self.worse += 1
        if self.best is None or _ascending(value, self.mode) < _ascending(self.best, self.mode):
            self.best = value

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint holds, so that a resumed run counts on."""
        return {"metric": self.metric, "mode": self.mode, "best": self.best, "worse": self.worse}

    def resume(self, saved: Mapping[str, Any] | None) -> None:
        """Goes on from what a checkpoint holds; one that watched another metric, or none, says nothing."""
        if saved is not None and (saved["metric"], saved["mode"]) == (self.metric, self.mode):
            self.best, self.worse = saved["best"], saved["worse"]


def _ascending(value: float, mode: Mode) -> float:
    """Lower is better."""
    return -value if mode == "max" else value
