"""From a declarative list of rows to scored rows: files of many workdirs in, values with intervals out.

A row is `{"name", "workdirs": [one a seed], "evaluator", "input", "step": "last" | int}`, or, for values that come
from no checkpoint, `{"name", "file"}` with Results rows in JSON. `"reference": True` marks a row that is shown for
orientation, such as the attainable score. Paths are relative to `root`.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from ecgjax.core.result_files import missing_below, read_results, with_nan
from ecgjax.metrics.bootstrap import Interval, Scored, over_seeds, percentile_interval, score_targets
from ecgjax.reports import intervals
from ecgjax.reports.specs import check_keys

SYMBOLS = {"r2": "R²", "auroc": "AUROC"}
"""The metrics of a probe, as they are written."""
_ROW_KEYS = {"name", "workdirs", "evaluator", "input", "step", "file", "reference"}


@dataclasses.dataclass(frozen=True)
class Column:
    """One target; `control` keeps it out of the headline mean."""

    target: str
    metric: str
    control: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One seed's predictions on the test split, [n m] in the order of `columns`."""

    workdir: str
    step: int
    checkpoint: str
    columns: tuple[Column, ...]
    truth: Float[np.ndarray, "n m"]
    prediction: Float[np.ndarray, "n m"]
    subject: np.ndarray
    record: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredRow:
    """One line of the table. `draws` and `seed_values` follow `columns`; a row from a file has cells only.

    `missing` names the files that were not found.
    """

    name: str
    columns: tuple[Column, ...]
    cells: Mapping[str, Interval]
    runs: tuple[Run, ...]
    scored: Scored | None
    seed_values: Float[np.ndarray, "r m"]
    missing: tuple[str, ...]
    reference: bool

    @property
    def seeds(self) -> int:
        """How many training seeds were found."""
        return len(self.runs)

    def mean(self, targets: Sequence[str]) -> Interval:
        """Mean over `targets`, from the joint draws; NaN where one of them has no value."""
        if not targets or any(t not in self.cells or math.isnan(self.cells[t].value) for t in targets):
            return intervals.NOTHING
        value = float(np.mean([self.cells[t].value for t in targets]))
        n = max(self.cells[t].n for t in targets)
        subjects = max(self.cells[t].subjects for t in targets)
        if self.scored is None:
            return Interval(value, math.nan, math.nan, n, subjects)
        return percentile_interval(value, self.mean_draws(targets), n=n, subjects=subjects)

    def mean_draws(self, targets: Sequence[str]) -> Float[np.ndarray, " draws"]:
        """The mean over `targets` on every draw of seeds and subjects."""
        return self.scored.draws[:, self._positions(targets)].mean(axis=1)

    def mean_by_seed(self, targets: Sequence[str]) -> Float[np.ndarray, " r"]:
        """The mean over `targets` of every seed by itself."""
        return self.seed_values[:, self._positions(targets)].mean(axis=1)

    def _positions(self, targets: Sequence[str]) -> list[int]:
        names = [column.target for column in self.columns]
        return [names.index(target) for target in targets]


@dataclasses.dataclass(frozen=True, eq=False)
class ReportResults:
    """All rows, scored with the same draws, and the columns they share."""

    rows: tuple[ScoredRow, ...]
    columns: tuple[Column, ...]

    def targets(self, metric: str) -> tuple[Column, ...]:
        """The columns of one metric, controls last."""
        mine = [column for column in self.columns if column.metric == metric]
        return tuple(sorted(mine, key=lambda column: column.control))

    def headline(self, metric: str) -> tuple[str, ...]:
        """The targets that the headline mean is over: no controls, and a value in some row."""
        return tuple(
            column.target
            for column in self.targets(metric)
            if not column.control and any(_has_value(row, column.target) for row in self.rows)
        )

    def row(self, name: str) -> ScoredRow:
        """The row called `name`."""
        for row in self.rows:
            if row.name == name:
                return row
        raise ValueError(
            f"no row is called {name!r}; choose from {', '.join(row.name for row in self.rows)}."
        )


def load(
    specs: Sequence[Mapping[str, Any]], *, root: epath.PathLike = ".", draws: int = 1000, seed: int = 0
) -> ReportResults:
    """Reads and scores every row; what is missing is named in its row, not dropped."""
    names = [spec.get("name") for spec in specs]
    for position, spec in enumerate(specs):
        _check(spec, f"rows[{position}]", names)
    rows = tuple(_load_row(spec, epath.Path(root), draws=draws, seed=seed) for spec in specs)
    columns: dict[str, Column] = {}
    for row in rows:
        for column in row.columns:
            known = columns.setdefault(column.target, column)
            if known != column:
                raise ValueError(
                    f"row {row.name!r} has {column}, a row before it {known}; the rows come from different cohorts."
                )
    return ReportResults(rows, tuple(columns.values()))


def _load_row(spec: Mapping[str, Any], root: epath.Path, *, draws: int, seed: int) -> ScoredRow:
    reference = bool(spec.get("reference", False))
    if "file" in spec:
        return _file_row(spec["name"], root, spec["file"], reference)
    runs, missing = [], []
    for workdir in spec["workdirs"]:
        try:
            tree, arrays = read_results(root / workdir, spec["evaluator"], spec.get("step", "last"))
        except FileNotFoundError as error:
            missing.append(missing_below(root, error))
            continue
        runs.append(_run(str(workdir), tree, arrays, spec["input"]))
    if not runs:
        return ScoredRow(spec["name"], (), {}, (), None, np.zeros((0, 0)), tuple(missing), reference)
    _check_alike(spec["name"], runs)
    metrics = [column.metric for column in runs[0].columns]
    each = [
        score_targets(run.truth, run.prediction, run.subject, metrics=metrics, draws=draws, seed=seed)
        for run in runs
    ]
    scored = over_seeds(each, seed=seed)
    cells = {}
    for position, column in enumerate(runs[0].columns):
        known = ~np.isnan(runs[0].truth[:, position])
        cells[column.target] = percentile_interval(
            scored.value[position],
            scored.draws[:, position],
            n=int(known.sum()),
            subjects=len(np.unique(runs[0].subject[known])),
        )
    values = np.stack([one.value for one in each])
    return ScoredRow(
        spec["name"], runs[0].columns, cells, tuple(runs), scored, values, tuple(missing), reference
    )


def _run(workdir: str, tree: Mapping[str, Any], arrays: Mapping[str, np.ndarray], name: str) -> Run:
    rows = [row for row in tree["rows"] if row["input"] == name]
    if not rows:
        inputs = sorted({row["input"] for row in tree["rows"]})
        raise ValueError(f"{workdir}: {tree['evaluator']} has no input {name!r}; it has {', '.join(inputs)}.")
    if strange := sorted({row["metric"] for row in rows} - set(SYMBOLS)):
        raise ValueError(
            f"{workdir}: rows of evaluator {tree['evaluator']} have {', '.join(strange)}, this table shows "
            f"{', '.join(SYMBOLS)} of a probe; leave that evaluator to its own results."
        )
    n = len(arrays["subject"])
    truth, prediction = np.full((2, n, len(rows)), np.nan)
    for position, row in enumerate(rows):
        key = f"{name}|{row['target']}"
        if f"{key}|truth" in arrays:  # Absent where no probe could be fitted.
            truth[:, position], prediction[:, position] = arrays[f"{key}|truth"], arrays[f"{key}|prediction"]
    columns = tuple(Column(row["target"], row["metric"], row["control"]) for row in rows)
    return Run(
        workdir,
        tree["step"],
        tree["checkpoint"],
        columns,
        truth,
        prediction,
        arrays["subject"],
        arrays["record"],
    )


def _file_row(name: str, root: epath.Path, spec_file: str, reference: bool) -> ScoredRow:
    path = root / spec_file
    if not path.exists():
        return ScoredRow(name, (), {}, (), None, np.zeros((0, 0)), (spec_file,), reference)
    try:
        tree = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); write it again.") from None
    rows = tree["rows"] if isinstance(tree, Mapping) else tree
    columns = tuple(Column(row["target"], row["metric"], row["control"]) for row in rows)
    cells = {row["target"]: intervals.of_row(with_nan(row)) for row in rows}
    return ScoredRow(name, columns, cells, (), None, np.zeros((0, len(rows))), (), reference)


def _check(spec: Mapping[str, Any], path: str, names: Sequence[str]) -> None:
    check_keys(spec, path, _ROW_KEYS)
    needed = {"name", "file"} if "file" in spec else {"name", "workdirs", "evaluator", "input"}
    if absent := needed - set(spec):
        raise ValueError(f"{path}: {sorted(absent)} missing; a row needs {', '.join(sorted(needed))}.")
    if names.count(spec["name"]) > 1:
        raise ValueError(f"{path}: two rows are called {spec['name']!r}; claims refer to rows by name.")


def _check_alike(name: str, runs: Sequence[Run]) -> None:
    for run in runs[1:]:
        if run.columns != runs[0].columns or not np.array_equal(run.record, runs[0].record):
            raise ValueError(
                f"row {name!r}: {run.workdir} and {runs[0].workdir} were evaluated on different records or targets; "
                "seeds of one row need one data directory."
            )


def _has_value(row: ScoredRow, target: str) -> bool:
    return target in row.cells and not math.isnan(row.cells[target].value)
