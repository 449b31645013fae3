"""Which label columns an objective reads, and how they are standardised."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ecgjax.core.columns import choose


@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
    """Label columns by position, with the statistics of the train split; conditions have mean 0 and deviation 1."""

    index: Int[np.ndarray, " m"]
    kinds: tuple[str, ...]
    mean: Float[np.ndarray, " m"]
    std: Float[np.ndarray, " m"]

    def of(self, kind: str) -> Int[np.ndarray, " k"]:
        """Positions, among these columns, of those of one kind."""
        return np.array([i for i, found in enumerate(self.kinds) if found == kind], np.int32)


def columns(labels: Sequence[Mapping[str, Any]], targets: Sequence[str | int], path: str) -> Columns:
    """The columns that `targets` names, in its order; () names all, and two numbers name [lower, upper).

    `labels` are the label columns as the manifest describes them: name, kind, and over the train split mean and
    standard deviation.
    """
    if not labels:
        raise ValueError(f"{path.rpartition('.')[0]}.name needs labels, but the data set has no targets.")
    index = choose([label["name"] for label in labels], targets, path)
    chosen = [labels[i] for i in index]

    def statistic(name: str, for_binary: float) -> np.ndarray:
        return np.array([t[name] if t["kind"] == "regression" else for_binary for t in chosen], np.float32)

    return Columns(
        np.array(index, np.int32),
        tuple(t["kind"] for t in chosen),
        statistic("mean", 0.0),
        np.maximum(statistic("std", 1.0), 1e-6),
    )
