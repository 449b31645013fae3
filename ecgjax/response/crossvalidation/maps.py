"""Where in time-frequency images a contender sees the outcome, each patient by a fit that never saw it."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from ecgjax.core.spec import ImageSpec
from ecgjax.evaluators.grad_cam import axes, told_apart
from ecgjax.response.crossvalidation.folds import inner_folds


@runtime_checkable
class Explaining(Protocol):
    """A contender with maps."""

    name: str

    def explain(self, train, truth, test, *, inner) -> Float[np.ndarray, "b r y x"]:
        """Maps of patients `test` by what `train` teaches, as `Contender.fit_predict`."""


def out_of_fold_maps(
    contender: Explaining,
    truth: Float[np.ndarray, " n"],
    fold: Int[np.ndarray, "repeat n"],
    *,
    inner: int,
    seed: int,
) -> Float[np.ndarray, "n r y x"]:
    """The map of every patient in the folds of the first repeat."""
    found = {}
    for k in np.unique(fold[0]):
        train, test = np.flatnonzero(fold[0] != k), np.flatnonzero(fold[0] == k)
        drawn = inner_folds(truth[train], folds=inner, seed=[seed, 0, int(k), 2])
        maps = contender.explain(train, truth[train], test, inner=drawn)
        found |= dict(zip(test.tolist(), maps, strict=True))
    return np.stack([found[patient] for patient in range(len(truth))]).astype(np.float32)


def described(
    name: str,
    maps: Float[np.ndarray, "n r y x"],
    truth: Float[np.ndarray, " n"],
    subject: np.ndarray,
    *,
    image: ImageSpec,
    rate_hz: float,
) -> tuple[dict[str, np.ndarray], Mapping[str, float]]:
    """Arrays (mean maps of those with the outcome and without, axes of the image) and whether maps tell them apart."""
    time_s, frequency_hz = axes(image, rate_hz)
    arrays = {
        f"{name}|map_with": maps[truth == 1].mean(0),
        f"{name}|map_without": maps[truth == 0].mean(0),
        "map|time_s": time_s,
        "map|frequency_hz": frequency_hz,
    }
    return arrays, {f"{name}|maps_told_apart": told_apart(maps, truth, subject)}
