"""Cross-validations of several workdirs as one: contenders that predicted the same patients in the same folds."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float, Int

from ecgjax.core.result_files import missing_below, read_results
from ecgjax.metrics.bootstrap import Interval
from ecgjax.reports.intervals import NOTHING, of_row
from ecgjax.reports.specs import check_keys

EVALUATOR = "crossvalidation"

_FIELDS = ("score", "probability", "threshold", "decision")
_KEYS = {"workdir", "step", "names"}


@dataclasses.dataclass(frozen=True, eq=False)
class Contender:
    """One contender's out-of-fold predictions and the metrics that its run made of them, by metric name.

    NaN in `score` is a patient that it cannot evaluate, NaN in `probability` a rule that gives none. `dealt` are its
    AUROCs under permuted labels, empty where its run made none; `leaks` whether they raised the alarm. `maps` are the
    mean maps of those `with` the outcome and `without` it, with their axes, empty where its run has none; `told_apart`
    is the AUROC at which they differ.
    """

    name: str
    workdir: str
    metrics: Mapping[str, Interval]
    permutation_p: float
    refitted_p: float
    dealt: Float[np.ndarray, " k"]
    leaks: bool
    score: Float[np.ndarray, "repeat n"]
    probability: Float[np.ndarray, "repeat n"]
    threshold: Float[np.ndarray, "repeat n"]
    decision: Float[np.ndarray, "repeat n"]
    maps: Mapping[str, np.ndarray]
    told_apart: float

    def metric(self, name: str) -> Interval:
        """The metric with its interval; NaN where the run has none."""
        return self.metrics.get(name, NOTHING)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """Where contenders come from: the workdir and what its results say of how they were made."""

    workdir: str
    checkpoint: str
    settings: Mapping[str, Any]
    scalars: Mapping[str, Any]
    config: Mapping[str, Any]
    cohort: str
    version: str


@dataclasses.dataclass(frozen=True, eq=False)
class CrossValidated:
    """All contenders on the patients of the first run, in its order; `missing` names the files that were not found."""

    contenders: tuple[Contender, ...]
    runs: tuple[Run, ...]
    subject: np.ndarray
    truth: Float[np.ndarray, " n"]
    fold: Int[np.ndarray, "repeat n"]
    missing: tuple[str, ...]

    def find(self, name: str) -> Contender | None:
        """The contender shown as `name`; None where the runs that are there have none of that name."""
        return next((contender for contender in self.contenders if contender.name == name), None)


def load(specs: Sequence[Mapping[str, Any]], *, root: epath.PathLike) -> CrossValidated:
    """Reads runs `{"workdir", "step": "last" | int, "names": {name in the run: name to show}}`, paths below `root`.
    `names` may be pairs, whose order a config keeps.

    Contenders of a run that `names` names come first, in its order. Raises where runs are not of the same patients with
    the same outcomes in the same folds. A run may have fewer repeats than another if those it has are the same.
    """
    root = epath.Path(root)
    read, missing = [], []
    for position, spec in enumerate(specs):
        check_keys(spec, f"runs[{position}]", _KEYS)
        try:
            found = read_results(root / spec["workdir"], EVALUATOR, spec.get("step", "last"))
        except FileNotFoundError as error:
            missing.append(missing_below(root, error))
            continue
        read.append((spec, *found))
    if not read:
        nothing = np.zeros(0)
        return CrossValidated(
            (), (), nothing.astype("U16"), nothing, np.zeros((0, 0), np.int64), tuple(missing)
        )
    spec, _, first = max(read, key=lambda one: len(one[2]["fold"]))
    contenders: list[Contender] = []
    for other, tree, arrays in read:
        order = _same_patients(spec["workdir"], first, other["workdir"], arrays)
        contenders += _contenders(other, tree, arrays, order)
    _check_names(contenders)
    return CrossValidated(
        tuple(contenders),
        tuple(_run(str(other["workdir"]), tree) for other, tree, _ in read),
        first["subject"],
        first["y"].astype(np.float64),
        first["fold"].astype(np.int64),
        tuple(missing),
    )


def _same_patients(
    name: str, mine: Mapping[str, np.ndarray], other: str, theirs: Mapping[str, np.ndarray]
) -> Int[np.ndarray, " n"]:
    """Where the patients of `mine` are in `theirs`."""
    only = np.setdiff1d(mine["subject"], theirs["subject"]), np.setdiff1d(theirs["subject"], mine["subject"])
    if len(only[0]) or len(only[1]):
        raise ValueError(
            f"{name} and {other} were cross-validated on different patients: {len(only[0])} are only in the first, "
            f"{len(only[1])} only in the second. Prepare the data of both from one table with one --key_file and the "
            "same rejects, or report them apart."
        )
    sorted_theirs = np.argsort(theirs["subject"])
    order = sorted_theirs[np.searchsorted(theirs["subject"][sorted_theirs], mine["subject"])]
    differing = int(np.sum(mine["y"] != theirs["y"][order]))
    if differing:
        raise ValueError(
            f"{name} and {other} give {differing} of {len(order)} patients different outcomes; prepare both with one "
            "definition of response. A run on permuted labels belongs under `permuted`."
        )
    repeats = len(theirs["fold"])
    if not np.array_equal(mine["fold"][:repeats], theirs["fold"][:, order]):
        raise ValueError(
            f"{name} and {other} have different folds; run both with the same config.crossvalidation.folds and seed."
        )
    return order


def _contenders(spec, tree, arrays, order) -> list[Contender]:
    shown = dict(spec.get("names", {}))
    found = [name.removesuffix("|score") for name in arrays if name.endswith("|score")]
    sources = sorted(found, key=lambda name: list(shown).index(name) if name in shown else len(shown))
    if unknown := set(shown) - set(sources):
        raise ValueError(
            f"{spec['workdir']}: names renames {sorted(unknown)}; its contenders are {', '.join(sources)}."
        )
    contenders = []
    for source in sources:
        rows = [row for row in tree["rows"] if row["input"] == source]
        scalars = {
            name: tree["scalars"].get(f"{source}|{name}", math.nan)
            for name in ("permutation_p", "refitted_permutation_p", "leak_alarm", "maps_told_apart")
        }
        contenders.append(
            Contender(
                name=shown.get(source, source),
                workdir=str(spec["workdir"]),
                metrics={row["metric"]: of_row(row) for row in rows},
                permutation_p=scalars["permutation_p"],
                refitted_p=scalars["refitted_permutation_p"],
                dealt=arrays.get(f"{source}|permuted_auroc", np.zeros(0)),
                leaks=scalars["leak_alarm"] == 1,
                **{field: arrays[f"{source}|{field}"][:, order] for field in _FIELDS},
                maps=_maps(source, arrays),
                told_apart=scalars["maps_told_apart"],
            )
        )
    return contenders


def _maps(source: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if f"{source}|map_with" not in arrays:
        return {}
    axes = {name: arrays[f"map|{name}"] for name in ("time_s", "frequency_hz", "leads")}
    return {side: arrays[f"{source}|map_{side}"] for side in ("with", "without")} | axes


def _check_names(contenders: Sequence[Contender]) -> None:
    first: dict[str, str] = {}
    for contender in contenders:
        where = first.setdefault(contender.name, contender.workdir)
        if where != contender.workdir:
            raise ValueError(
                f"contender {contender.name!r} is in {where} and in {contender.workdir}; give one another name by the "
                "run's `names`."
            )


def _run(workdir: str, tree: Mapping[str, Any]) -> Run:
    return Run(
        workdir,
        str(tree["checkpoint"]),
        tree["settings"],
        tree["scalars"],
        tree.get("config", {}),
        str(tree.get("cohort", "")),
        str(tree.get("version", "unknown")),
    )
