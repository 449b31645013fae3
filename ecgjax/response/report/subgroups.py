"""AUROCs within groups of patients: descriptive, for in so few no difference is told from chance."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from ecgjax.metrics.bootstrap import Interval, percentile_interval
from ecgjax.metrics.draws import auroc_draws
from ecgjax.metrics.repeated import patient_draws, pooled
from ecgjax.reports.tables import Cell, Line, Table, cell
from ecgjax.response.report.cohort import Described
from ecgjax.response.report.contenders import CrossValidated

FLAGS = {
    "female": ("women", "men"),
    "ischaemic": ("ischaemic", "not ischaemic"),
    "atrial_fibrillation": ("atrial fibrillation", "no atrial fibrillation"),
    "lbbb": ("LBBB", "no LBBB"),
}
CUTS = {"age": (70.0, "years"), "qrs_ms": (150.0, "ms QRS")}
"""Where numbers are cut, fixed beforehand: 150 ms is the guidelines'."""
LEAST = 5
"""Patients of either outcome without whom a group has no AUROC here."""


def subgroup_table(
    found: CrossValidated, described: Described, names: Sequence[str], *, draws: int, seed: int
) -> Table | None:
    """A line a group that has patients, a column each of `names`; None where no group or contender is there."""
    contenders = [contender for name in names if (contender := found.find(name)) is not None]
    lines = []
    for title, rows in _groups(found, described).items():
        truth = found.truth[rows]
        counts = Cell(str(rows.sum()), f"{truth.sum():.0f} responders")
        values = [
            cell(_auroc(found.truth, contender.score, rows, draws=draws, seed=seed))
            for contender in contenders
        ]
        lines.append(Line((Cell(title), counts, *values)))
    if not lines or not contenders:
        return None
    notes = (
        "Pooled AUROC of the out-of-fold scores of the group's patients, 95 % interval over them; none where fewer "
        f"than {LEAST} had either outcome. Descriptive only: nothing is tested, and intervals that "
        "differ show nothing.",
    )
    header = ("group", "patients", *(contender.name for contender in contenders))
    return Table("Groups of patients", header, tuple(lines), notes)


def _groups(found: CrossValidated, described: Described) -> Mapping[str, Bool[np.ndarray, " n"]]:
    """Who is in which group, in the order of `found`; patients without the value are in none."""
    place = {subject: row for row, subject in enumerate(described.subject)}
    rows = np.array([place[subject] for subject in found.subject])
    groups = {}
    for name, titles in FLAGS.items():
        values = described.values.get(name, np.full(len(place), np.nan))[rows]
        groups |= {titles[0]: values == 1, titles[1]: values == 0}
    for name, (cut, unit) in CUTS.items():
        values = described.values.get(name, np.full(len(place), np.nan))[rows]
        groups |= {f"{cut:g} {unit} and more": values >= cut, f"below {cut:g} {unit}": values < cut}
    return {title: members for title, members in groups.items() if members.any()}


def _auroc(
    truth: Float[np.ndarray, " n"],
    score: Float[np.ndarray, "repeat n"],
    rows: Bool[np.ndarray, " n"],
    *,
    draws: int,
    seed: int,
) -> Interval | None:
    keep = rows & ~np.isnan(score).any(axis=0)
    y = truth[keep]
    if min(np.sum(y == 1), np.sum(y == 0)) < LEAST:
        return None
    drawn = pooled(auroc_draws, y, score[:, keep], patient_draws(y, draws=draws, seed=seed))
    return percentile_interval(drawn[0], drawn[1:], n=len(y), subjects=len(y))
