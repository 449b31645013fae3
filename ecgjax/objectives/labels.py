"""Which label columns an objective reads, and how they are standardised."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int


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


def choose(names: Sequence[str], targets: Sequence[str | int], path: str) -> list[int]:
    """Positions in `names` of what `targets` asks for."""
    if not targets:
        return list(range(len(names)))
    if all(isinstance(target, int) for target in targets):
        if len(targets) != 2 or not 0 <= targets[0] < targets[1] <= len(names):
            raise ValueError(
                f"{path} {tuple(targets)} is no range [lower, upper) of the {len(names)} label columns; give two "
                f"numbers with 0 <= lower < upper <= {len(names)}, or names."
            )
        return list(range(*targets))
    unknown = [target for target in targets if target not in names]
    if unknown:
        raise ValueError(f"{path}: unknown {unknown}; the data set has {', '.join(names)}.")
    if len(set(targets)) < len(targets):
        raise ValueError(f"{path} {tuple(targets)} names a column twice; name each once.")
    return [list(names).index(target) for target in targets]
