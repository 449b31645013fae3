"""The types at which models, data, objectives and the trainer meet."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

Batch = Mapping[str, Array | np.ndarray]
"""`ecg [b l t]`, `cmr [b y x c]`, `label [b m]` (NaN is missing), `subject [b 2]`, `index [b]`, `mask [b]`.

Where the data hold beats `beats [b k]` (samples of R peaks, -1 where there are fewer), or where an example is one beat
`rr [b 4]` (seconds from the beat before, to the beat after, on average nearby, and in the whole recording).
Where the data have a matrix of their n training examples also `similarity [b n]`, its rows.
"""

Predictions = dict[str, Array]
Tree = Any
"""Nested dicts of arrays."""


class Aux(NamedTuple):
    """What a loss returns beside its value: scalars to log, and the updated `extra`."""

    metrics: dict[str, Float[Array, ""]]
    extra: Tree


@runtime_checkable
class Objective(Protocol):
    """What is trained: pure functions over pure dicts, so that one step serves every objective."""

    @property
    def frozen_paths(self) -> tuple[str, ...]:
        """Regexes of parameter paths that no update may touch, not even weight decay; `()` trains everything."""

    def init(self, key: PRNGKeyArray) -> tuple[Tree, Tree]:
        """Draws `params` (trained by gradient) and `extra` (batch statistics and the like)."""

    def loss(
        self, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Float[Array, ""], Aux]:
        """The scalar to minimise. `train=False` uses no drop path and running statistics.

        Nor does it augment, unless masks or views are the task itself.
        """

    def predict(self, params: Tree, extra: Tree, batch: Batch) -> Predictions:
        """Deterministic outputs for evaluators."""

    def after_update(self, params: Tree, extra: Tree) -> Tree:
        """Moves what follows the parameters, such as a target network; called once a step."""


@runtime_checkable
class Comparing(Objective, Protocol):
    """An objective whose loss compares the examples of a batch with each other: `loss` is `compare` after `embed`.

    The batch may then be embedded in parts and still be compared as a whole.
    """

    def embed(
        self, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Tree, Tree]:
        """What of each example the comparison needs, arrays with the leading axis b; and the updated `extra`."""

    def compare(
        self, params: Tree, embedded: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss of what `embed` made of the batch, and scalars to log."""


@runtime_checkable
class Summarising(Objective, Protocol):
    """An objective that says of a whole validation what no mean over its batches is, such as an F1."""

    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        """What to report instead of the validation's mean metrics; asked on the host."""
