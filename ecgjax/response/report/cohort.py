"""Who the patients are: how many came from the table into the analysis, and how those who respond differ."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from ecgjax.reports.tables import DASH, Cell, Line, Table


@dataclasses.dataclass(frozen=True, eq=False)
class Described:
    """The patients of a prepared data directory; `values` has the median of each patient's recordings by column.

    `settings` is what the manifest says of how the cohort was made, `rejects` recordings left out by kind.
    """

    cohort: str
    settings: Mapping[str, Any]
    rejects: Mapping[str, int]
    recordings: int
    subject: np.ndarray
    response: Float[np.ndarray, " n"]
    columns: Sequence[Any]
    values: Mapping[str, Float[np.ndarray, " n"]]

    @property
    def evaluated(self) -> int:
        """Patients whose response is known."""
        return int(np.sum(~np.isnan(self.response)))

    @property
    def responders(self) -> int:
        """Patients who responded."""
        return int(np.sum(self.response == 1))

    @property
    def planted(self) -> float | None:
        """The AUROC that no reader of a simulated ECG exceeds in expectation; None where patients are not simulated."""
        if not self.cohort.startswith("synthetic_crt"):
            return None
        return 0.5 if self.settings["null"] else float(self.settings["auc"])

    @property
    def missing(self) -> dict[str, int]:
        """Patients without a value, of those whose response is known, by column; columns that all have are left out."""
        known = ~np.isnan(self.response)
        counts = {name: int(np.isnan(values[known]).sum()) for name, values in self.values.items()}
        return {name: count for name, count in counts.items() if count}


def describe(directory: epath.PathLike, *, response: str = "response") -> Described:
    """Reads the labels of all splits of a prepared data directory; raises ValueError where it has no such column."""
    from ecgjax.data.identifiers import as_hex
    from ecgjax.data.manifest import read_manifest
    from ecgjax.data.shards import read_split

    manifest = read_manifest(directory)
    names = [column.target.name for column in manifest.targets]
    if response not in names:
        raise ValueError(
            f"{directory} has no label column {response!r}; it has {', '.join(names) or 'none'}."
        )
    read = [
        read_split(directory, manifest, split, names=("label", "subject"))
        for split, summary in manifest.splits.items()
        if summary.examples
    ]
    label = np.concatenate([part["label"] for part in read]).astype(np.float64)
    subject = as_hex(np.concatenate([part["subject"] for part in read]))
    patients, first, index = np.unique(subject, return_index=True, return_inverse=True)
    medians = np.stack([_median(label[index == number]) for number in range(len(patients))])
    order = np.argsort(first)
    return Described(
        manifest.cohort,
        manifest.config["cohort"],
        manifest.rejects,
        len(label),
        patients[order],
        medians[order, names.index(response)],
        [column.target for column in manifest.targets if column.target.name != response],
        {name: medians[order, i] for i, name in enumerate(names) if name != response},
    )


def inclusion_table(described: Described, *, outcome: str) -> Table:
    """From the table to those who were cross-validated."""
    settings = described.settings
    lines = []
    if "recordings" in settings:
        lines.append(
            _count("patients in the table", settings["patients"], f"{settings['recordings']} recordings")
        )
    lines += [
        _count(f"recordings rejected: {kind}", count) for kind, count in sorted(described.rejects.items())
    ]
    lines.append(
        _count(
            "patients with a usable recording", len(described.subject), f"{described.recordings} recordings"
        )
    )
    lines.append(_count("without a known outcome, left out", len(described.subject) - described.evaluated))
    lines.append(_count("patients cross-validated", described.evaluated))
    share = described.responders / described.evaluated if described.evaluated else float("nan")
    lines.append(_count("responders", described.responders, f"{share:.0%} of them"))
    return Table("Inclusion", ("", "number"), tuple(lines), (outcome,))


def characteristics_table(described: Described) -> Table:
    """Every column of those whose response is known: all, responders, others; and who has no value."""
    known = ~np.isnan(described.response)
    groups = {
        "all": known,
        "responders": described.response == 1,
        "non-responders": described.response == 0,
    }
    lines = []
    for target in described.columns:
        values = described.values[target.name]
        if np.isnan(values[known]).all():
            lines.append(Line((Cell(target.name, target.unit),), "known of nobody"))
            continue
        cells = [_summary(values[rows], target.kind) for rows in groups.values()]
        missing = int(np.isnan(values[known]).sum())
        lines.append(Line((Cell(target.name, target.unit), *cells, Cell(str(missing)) if missing else DASH)))
    header = ("", *(f"{name} ({rows.sum()})" for name, rows in groups.items()), "missing")
    notes = (
        "Median [quartiles] of numbers, count and share of flags, of the patients with a value; of several recordings "
        "of a patient the median. ecg_* is measured on the recording. Descriptive only: nothing is tested here.",
    )
    return Table("Characteristics", header, tuple(lines), notes)


def _median(rows: Float[np.ndarray, "k m"]) -> Float[np.ndarray, " m"]:
    found = np.full(rows.shape[1], np.nan)
    known = ~np.isnan(rows).all(axis=0)
    found[known] = np.nanmedian(rows[:, known], axis=0)
    return found


def _summary(values: Float[np.ndarray, " n"], kind: str) -> Cell:
    values = values[~np.isnan(values)]
    if not len(values):
        return DASH
    if kind == "binary":
        ones = int(np.sum(values >= 0.5))
        return Cell(f"{ones} ({ones / len(values):.0%})")
    low, middle, high = np.percentile(values, (25, 50, 75))
    return Cell(f"{middle:.3g}", f"[{low:.3g}, {high:.3g}]")


def _count(name: str, count: int, small: str = "") -> Line:
    return Line((Cell(name), Cell(str(count), small)))
