"""What an evaluator receives and what it returns."""

import dataclasses
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath
from jaxtyping import Float

from ecgjax.core.files import read_json, write_bytes, write_json
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
        """Writes arrays first and JSON last, so that the JSON file means complete; NaN becomes null."""
        path = results_path(workdir, self.evaluator, step)
        for name, array in self.arrays.items():
            if array.dtype.kind not in "biufU":
                raise ValueError(f"array {name!r} has dtype {array.dtype}; give numbers or fixed-width text.")
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **self.arrays)
        write_bytes(path.with_suffix(".npz"), buffer.getvalue())
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
        write_json(path, _without_nan(tree))
        return path

    @classmethod
    def read(cls, workdir: epath.PathLike, evaluator: str, step: int) -> "Results":
        """Reverses `write`, provenance apart."""
        path = results_path(workdir, evaluator, step)
        tree = read_json(path)
        with np.load(io.BytesIO(path.with_suffix(".npz").read_bytes()), allow_pickle=False) as file:
            arrays = dict(file)
        nan = {"value", "low", "high"}
        rows = [
            Row(**{key: math.nan if key in nan and value is None else value for key, value in row.items()})
            for row in tree["rows"]
        ]
        scalars = {name: math.nan if value is None else value for name, value in tree["scalars"].items()}
        return cls(tree["evaluator"], rows, scalars, arrays, tree["settings"], tree.get("text", ""))


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


def results_path(workdir: epath.PathLike, evaluator: str, step: int) -> epath.Path:
    """Where the JSON of one evaluator and step lies; it exists exactly when the results are complete."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", evaluator):
        raise ValueError(
            f"evaluator name {evaluator!r} is no file name; use letters, digits, '_', '-' and '.'."
        )
    return epath.Path(workdir) / "results" / evaluator / f"{step}.json"


def _without_nan(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _without_nan(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_without_nan(value) for value in tree]
    if isinstance(tree, np.generic):
        tree = tree.item()
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
