"""Tables of a report of probes: scores by target, their spread over seeds, and claims."""

import math
from collections.abc import Sequence

from ecgjax.reports.claims import FAILS, HOLDS, OPEN, Verdict
from ecgjax.reports.probe_scores import SYMBOLS, ReportResults, ScoredRow
from ecgjax.reports.tables import DASH, Cell, Line, Table, cell, each, fine, signed

TITLES = {"r2": "Phenotypes: R²", "auroc": "Conditions: AUROC"}
_RELATIONS = {"<": "<", "<=": "≤"}
_KINDS = {HOLDS: "good", FAILS: "bad", OPEN: "open"}


def score_table(results: ReportResults, metric: str) -> Table | None:
    """Rows by targets of one metric, the headline mean first; None where no target has this metric."""
    columns, headline = results.targets(metric), results.headline(metric)
    if not columns:
        return None
    header = ("input to the probe", "mean", *(c.target + ("*" if c.control else "") for c in columns))
    lines = []
    for row in results.rows:
        name = Cell(row.name, "" if row.seeds < 2 else f"({row.seeds} seeds)")
        if not row.cells:
            more = f" and {len(row.missing) - 1} more" if len(row.missing) > 1 else ""
            lines.append(Line((name,), f"missing: {row.missing[0]}{more}", row.reference))
            continue
        values = [row.mean(headline), *(row.cells.get(c.target) for c in columns)]
        lines.append(Line((name, *map(cell, values)), reference=row.reference))
    return Table(TITLES[metric], header, tuple(lines), tuple(_notes(results, metric)))


def seed_table(results: ReportResults) -> Table | None:
    """The headline means seed by seed, so that their spread is seen; None where every row has one seed."""
    rows = [row for row in results.rows if row.seeds > 1]
    if not rows:
        return None
    metrics = [metric for metric in TITLES if results.headline(metric)]
    lines = []
    for row in rows:
        cells = [Cell(row.name)]
        for metric in metrics:
            headline = results.headline(metric)
            known = not math.isnan(row.mean(headline).value)
            cells.append(each(row.mean_by_seed(headline) if known else ()))
        lines.append(Line(tuple(cells), reference=row.reference))
    header = ("spread over training seeds", *(f"mean {SYMBOLS[metric]} by seed" for metric in metrics))
    return Table("Seed by seed", header, tuple(lines))


def claim_table(verdicts: Sequence[Verdict]) -> Table | None:
    """One line a claim: what is claimed, the difference, the verdict, and over how many seeds and subjects."""
    if not verdicts:
        return None
    lines = []
    for v in verdicts:
        margin = f" (margin {fine(v.margin)})" if v.relation == "<=" else ""
        statement = f"{v.lower} {_RELATIONS[v.relation]} {v.higher}{margin}"
        seeds = str(v.seeds[0]) if v.seeds[0] == v.seeds[1] else f"{v.seeds[0]} and {v.seeds[1]}"
        lines.append(
            Line(
                (
                    Cell(statement),
                    Cell(SYMBOLS[v.metric]),
                    Cell(v.verdict, v.reason, _KINDS[v.verdict]),
                    cell(v.difference, signed),
                    each(v.by_seed if len(v.by_seed) > 1 else (), signed),
                    Cell(seeds),
                    DASH if v.reason else Cell(f"{v.difference.n}", f"of {v.difference.subjects} subjects"),
                )
            )
        )
    header = ("claim", "mean", "verdict", "difference", "seed by seed", "seeds", "test records")
    notes = (
        "Difference of the headline means with a paired 95 % interval; subjects are resampled, and training seeds "
        "with them where there are several. A claim holds only if the interval excludes the other outcome.",
    )
    if any(min(v.seeds) < 2 and not v.reason for v in verdicts):
        notes += ("With one seed the interval says nothing about how another training run would have fared.",)
    return Table("Claims", header, tuple(lines), notes)


def describe(row: ScoredRow) -> str:
    """Where a row comes from, in one line."""
    if not row.runs:
        return f"{row.name}: from a file"
    return f"{row.name}: " + "; ".join(f"{r.workdir} step {r.step} ({r.checkpoint[:12]})" for r in row.runs)


def _notes(results: ReportResults, metric: str) -> list[str]:
    columns, headline = results.targets(metric), results.headline(metric)
    controls = [column.target for column in columns if column.control]
    several = any(row.seeds > 1 for row in results.rows)
    resampled = "subjects and training seeds" if several else "subjects"
    notes = [
        f"Test split; 95 % intervals over {resampled}, the same draws for all rows. "
        f"Mean over {', '.join(headline) or 'nothing'}."
    ]
    if controls:
        notes.append(f"* {', '.join(controls)}: positive controls, left out of the mean.")
    notes += [
        f"{row.name}: missing {path}; the row rests on {row.seeds} of {row.seeds + len(row.missing)} seeds."
        for row in results.rows
        if row.cells
        for path in row.missing
    ]
    return notes
