"""What an evaluator receives and what it returns."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath
from jaxtyping import Float

from ecgjax.core.result_files import read_results, results_path, write_results
from ecgjax.core.spec import ImageSpec
from ecgjax.data.cohorts.base import Target

Batch = Mapping[str, Any]
Predict = Callable[[Batch], Mapping[str, Any]]
"""From a batch to arrays by prediction key; see `Evaluator.keys`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Who the examples of a split are, in its order: hashed identifiers as hex, labels with NaN for missing."""

    subject: np.ndarray
    record: np.ndarray
    label: Float[np.ndarray, "n m"]


@dataclasses.dataclass(frozen=True)
class Splits:
    """The evaluation data by split name ("train", "val", "test").

    `batches` gives every example once or, with several crops, in several rows; `index` says which example a row
    is and `mask` is False for padding. `signals_mv` gives the whole conditioned ECG turned back to mV;
    `to_mv` gives the offset and the scale [n l] that turn the model's input into mV. `cohort` is what the data call
    themselves, `image` the time-frequency image of a lead where they have one.
    """

    targets: tuple[Target, ...]
    rate_hz: float
    batches: Callable[[str], Iterable[Batch]]
    examples: Callable[[str], Examples]
    signals_mv: Callable[[str], Float[np.ndarray, "n l t"]]
    to_mv: Callable[[str], tuple[Float[np.ndarray, "n l"], Float[np.ndarray, "n l"]]]
    cohort: str = ""
    image: ImageSpec | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """One metric of one target; `note` says why a value is NaN."""

    target: str
    kind: str
    control: bool
    input: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    subjects: int
    note: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """The answer of one evaluator about one checkpoint.

    `arrays` are numeric or fixed-width text, so that the file reads without pickle. `text` is what a person wants to
    see at once, such as a table.
    """

    evaluator: str
    rows: Sequence[Row] = ()
    scalars: Mapping[str, float] = dataclasses.field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    text: str = ""

    def write(
        self, workdir: epath.PathLike, *, step: int, checkpoint: str, objective: str, **provenance: Any
    ) -> epath.Path:
        """Writes all of it, with what the checkpoint was; returns the path of the JSON file."""
        path = results_path(workdir, self.evaluator, step)
        tree = {
            "evaluator": self.evaluator,
            "step": step,
            "checkpoint": checkpoint,
            "objective": objective,
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "scalars": dict(self.scalars),
            "settings": dict(self.settings),
            **({"text": self.text} if self.text else {}),
            **provenance,
        }
        write_results(path, tree, self.arrays)
        return path

    @classmethod
    def read(cls, workdir: epath.PathLike, evaluator: str, step: int) -> "Results":
        """Reverses `write`, provenance apart."""
        tree, arrays = read_results(workdir, evaluator, step)
        rows = [Row(**row) for row in tree["rows"]]
        return cls(tree["evaluator"], rows, tree["scalars"], arrays, tree["settings"], tree.get("text", ""))


class Evaluator(Protocol):
    """A question put to a checkpoint: a frozen dataclass of settings."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The predictions it reads; the caller may leave out the others."""

    @property
    def name(self) -> str:
        """The directory of its results; settings that change the question change the name."""

    def run(self, predict: Predict, splits: Splits) -> Results:
        """Answers the question."""
