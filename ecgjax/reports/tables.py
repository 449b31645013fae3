"""Tables as text, Markdown and HTML, and the form of the numbers in them."""

import dataclasses
import html
import math
from collections.abc import Callable, Iterable

from ecgjax.core.text import aligned
from ecgjax.metrics.bootstrap import Interval

Form = Callable[[float], str]
"""How a number is written."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A text with a smaller second line, such as a value and its interval; `kind` (good, bad, open) colours it."""

    text: str
    small: str = ""
    kind: str = ""


DASH = Cell("–")
"""Where there is nothing to show."""


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


def p_value(p: float) -> str:
    """Three digits, or that it is below the smallest of them."""
    if math.isnan(p):
        return DASH.text
    return "<.001" if p < 0.001 else fine(p)


def cell(interval: Interval | None, form: Form = number) -> Cell:
    """Value over its interval, of a difference in the form `signed`; a dash where there is none."""
    if interval is None or math.isnan(interval.value):
        return DASH
    bounds = "" if math.isnan(interval.low) else f"[{form(interval.low)}, {form(interval.high)}]"
    return Cell(form(interval.value), bounds)


def value_cell(value: float, form: Form = number) -> Cell:
    """A value by itself; a dash where it is NaN."""
    return DASH if math.isnan(value) else Cell(form(value))


def each(values: Iterable[float], form: Form = number) -> Cell:
    """Values side by side, such as those of single seeds; a dash where there are none."""
    return Cell(" · ".join(map(form, values)) or DASH.text)


def interval_text(interval: Interval) -> str:
    """Value and bounds in running text."""
    return f"{number(interval.value)} ({number(interval.low)} to {number(interval.high)})"


def _html_cell(c: Cell) -> str:
    small = f"<small>{html.escape(c.small)}</small>" if c.small else ""
    text = html.escape(c.text)
    return (f'<b class="{c.kind}">{text}</b>' if c.kind else text) + small
