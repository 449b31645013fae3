"""The largest batch that fits: memory is nearly affine in the batch, so a line predicts it and compiles decide."""

import dataclasses
from collections.abc import Callable

_STRAIGHT = 4
"""Guesses that trust the line: near the limit the scheduler bends it, and a contrastive loss grows quadratically."""

_LEAP = 4
"""How many times what fits a guess may be: thousands of examples a device take the compiler many minutes."""

_MOST = 2**13
"""Steps at which the search ends though everything fits."""


@dataclasses.dataclass(frozen=True)
class Probe:
    """What a compilation said of `batch`: the bytes of a device that it needs, None where it does not say."""

    batch: int
    fits: bool
    needed: int | None


@dataclasses.dataclass(frozen=True)
class Largest:
    """`batch` fits, 0 where none does; `above` is the next and does not, None where none was found that does not."""

    batch: int
    above: int | None
    probes: tuple[Probe, ...]


def largest(probe: Callable[[int], Probe], *, available: int, start: int, step: int) -> Largest:
    """Searches the multiples of `step`, from `start`, until one fits and the next does not."""
    probes: list[Probe] = []
    guess = max(start // step, 1)
    while True:
        probes.append(probe(guess * step))
        low = max((p.batch // step for p in probes if p.fits), default=0)
        high = min((p.batch // step for p in probes if not p.fits), default=None)
        if high == low + 1 or (high is None and low >= _MOST):
            return Largest(low * step, None if high is None else high * step, tuple(probes))
        guess = _next(probes, available, low, high, step)


def _next(probes: list[Probe], available: int, low: int, high: int | None, step: int) -> int:
    """Strictly between what fits and what does not: by the line, and every other time by halves if it bends."""
    known = sorted((p for p in probes if p.needed is not None), key=lambda p: abs(p.needed - available))[:2]
    straight = high is None or len(probes) < _STRAIGHT or len(probes) % 2
    slope = 0.0
    if len(known) == 2 and straight:
        a, b = known
        slope = (a.needed - b.needed) / (a.batch - b.batch)
    if slope > 0:
        guess = int((a.batch + (available - a.needed) / slope) / step)
    else:  # Near the limit the scheduler may make a larger batch take less.
        guess = 2 * low if high is None else (low + high) // 2
    limit = min(_LEAP * low, _MOST) if high is None else high - 1
    return max(min(guess, limit), low + 1)
