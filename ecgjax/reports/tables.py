"""Tables of values with intervals, as text, Markdown and HTML."""

import dataclasses
import html
import math
from collections.abc import Sequence

from ecgjax.core.text import aligned
from ecgjax.metrics.bootstrap import Interval
from ecgjax.reports.claims import Verdict
from ecgjax.reports.probe_scores import ReportResults, ScoredRow

TITLES = {"r2": "Phenotypes: R²", "auroc": "Conditions: AUROC"}
_RELATIONS = {"<": "<", "<=": "≤"}
_SYMBOLS = {"r2": "R²", "auroc": "AUROC"}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A text with a smaller second line, such as a value and its interval."""

    text: str
    small: str = ""


@dataclasses.dataclass(frozen=True)
class Line:
    """One row; `note` replaces the cells after the first where there is nothing to show in them."""

    cells: tuple[Cell, ...]
    note: str = ""
    reference: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """Header, lines and footnotes, ready to be written out in any form."""

    title: str
    header: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()


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
            cells.append(Cell(" · ".join(map(number, row.mean_by_seed(headline))) if known else "–"))
        lines.append(Line(tuple(cells), reference=row.reference))
    header = ("spread over training seeds", *(f"mean {_SYMBOLS[metric]} by seed" for metric in metrics))
    return Table("Seed by seed", header, tuple(lines))


def claim_table(verdicts: Sequence[Verdict]) -> Table | None:
    """One line a claim: what is claimed, the difference, the verdict, and over how many seeds and subjects."""
    if not verdicts:
        return None
    lines = []
    for v in verdicts:
        margin = f" (margin {fine(v.margin)})" if v.relation == "<=" else ""
        statement = f"{v.lower} {_RELATIONS[v.relation]} {v.higher}{margin}"
        by_seed = " · ".join(signed(x) for x in v.by_seed) if len(v.by_seed) > 1 else ""
        seeds = str(v.seeds[0]) if v.seeds[0] == v.seeds[1] else f"{v.seeds[0]} and {v.seeds[1]}"
        lines.append(
            Line(
                (
                    Cell(statement),
                    Cell(_SYMBOLS[v.metric]),
                    Cell(v.verdict, v.reason),
                    Cell("–")
                    if v.reason
                    else Cell(signed(v.difference.value), _bounds(v.difference, signed)),
                    Cell(by_seed or "–"),
                    Cell(seeds),
                    Cell("–")
                    if v.reason
                    else Cell(f"{v.difference.n}", f"of {v.difference.subjects} subjects"),
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


def to_text(table: Table) -> str:
    """Aligned columns for a terminal."""
    rows = [list(table.header)]
    for line in table.lines:
        texts = [f"{c.text} {c.small}".strip() for c in line.cells]
        rows.append(texts + [""] * (len(table.header) - len(texts)))
    rule = ["-" * max(map(len, column)) for column in zip(*rows, strict=True)]
    head, rule_line, *body = aligned([rows[0], rule, *rows[1:]])
    for position, line in enumerate(table.lines):
        if line.note:
            body[position] = f"{body[position].ljust(len(rule[0]))}  {line.note}"
    return "\n".join([table.title, head, rule_line, *body, *table.notes]) + "\n"


def to_markdown(table: Table) -> str:
    """A table of GitHub's Markdown under a bold title."""

    def text(value: str) -> str:
        return value.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")

    rows = ["| " + " | ".join(map(text, table.header)) + " |", "|" + "---|" * len(table.header)]
    for line in table.lines:
        cells = [text(f"{c.text} {c.small}".strip()) for c in line.cells]
        cells += [text(line.note)] if line.note else []
        rows.append("| " + " | ".join(cells + [""] * (len(table.header) - len(cells))) + " |")
    notes = [text(note) for note in table.notes]
    return "\n".join([f"**{text(table.title)}**", "", *rows, *(f"\n{note}" for note in notes)]) + "\n"


def to_html(table: Table, *, heading: bool = True) -> str:
    """A block that scrolls sideways by itself on a narrow screen."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.header)
    body = []
    for line in table.lines:
        first, *rest = line.cells
        row = f'<th scope="row">{_html_cell(first)}</th>' + "".join(f"<td>{_html_cell(c)}</td>" for c in rest)
        if line.note:
            row += f'<td colspan="{len(table.header) - 1}" class="note">{html.escape(line.note)}</td>'
        body.append(f'<tr class="reference">{row}</tr>' if line.reference else f"<tr>{row}</tr>")
    notes = "".join(f"<p class=note>{html.escape(note)}</p>" for note in table.notes)
    title = f"<h3>{html.escape(table.title)}</h3>" if heading else ""
    return (
        f"{title}<div class=scroll><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>{notes}"
    )


def cell(interval: Interval | None) -> Cell:
    """Value over its interval; a dash where there is none."""
    if interval is None or math.isnan(interval.value):
        return Cell("–")
    return Cell(number(interval.value), "" if math.isnan(interval.low) else _bounds(interval, number))


def interval_text(interval: Interval) -> str:
    """Value and bounds in running text."""
    return f"{number(interval.value)} ({number(interval.low)} to {number(interval.high)})"


def number(value: float, *, digits: int = 2) -> str:
    """Without the leading zero, as .35 or −.35."""
    text = f"{value:.{digits}f}"
    text = text.removeprefix("-") if float(text) == 0 else text
    text = text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text
    return text.replace("-", "−")


def fine(value: float) -> str:
    """As `number`, with three digits."""
    return number(value, digits=3)


def signed(value: float) -> str:
    """A difference, with its sign and three digits."""
    text = fine(value)
    return text if text.startswith("−") else f"+{text}"


def _bounds(interval: Interval, form) -> str:
    return f"[{form(interval.low)}, {form(interval.high)}]"


def _html_cell(c: Cell) -> str:
    small = f"<small>{html.escape(c.small)}</small>" if c.small else ""
    kind = {"holds": "good", "does not hold": "bad", "not shown": "open"}.get(c.text)
    text = html.escape(c.text)
    return (f'<b class="{kind}">{text}</b>' if kind else text) + small


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


def describe(row: ScoredRow) -> str:
    """Where a row comes from, in one line."""
    if not row.runs:
        return f"{row.name}: from a file"
    return f"{row.name}: " + "; ".join(f"{r.workdir} step {r.step} ({r.checkpoint[:12]})" for r in row.runs)
