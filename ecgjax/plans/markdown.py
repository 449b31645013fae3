"""Markdown tables whose columns also line up in a terminal, and how their cells are written."""

from collections.abc import Iterable, Sequence

ABSENT = "-"


def plural(count: int, noun: str) -> str:
    """`1 host`, `4 hosts`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def ms(seconds: float | None) -> str:
    """Milliseconds without their unit; of a small model's microseconds two digits more."""
    if seconds is None:
        return ABSENT
    return f"{1e3 * seconds:.4f}" if 0 < seconds < 1e-5 else f"{1e3 * seconds:,.2f}"


def mb(size: int | float) -> str:
    """Decimal megabytes without their unit."""
    return f"{size / 1e6:,.2f}"


def mib(size: int | float) -> str:
    """Binary megabytes without their unit."""
    return f"{size / 2**20:,.1f}"


def flops(count: int | float) -> str:
    """In TF, or GF where they are few."""
    return f"{count / 1e12:,.3f} TF" if count >= 1e11 else f"{count / 1e9:,.3f} GF"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column to the left, numbers to the right, as wide as their longest cell."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    numbers = [all(_is_number(line[i]) for line in lines[1:]) for i in range(len(header))]

    def written(line):
        cells = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(line, widths, numbers, strict=True))
        return f"| {' | '.join(cells)} |"

    rule = (f"{'-' * (w + 1)}:" if n else f"{'-' * (w + 2)}" for w, n in zip(widths, numbers, strict=True))
    return "\n".join([written(lines[0]), f"|{'|'.join(rule)}|", *(written(line) for line in lines[1:])])


def _is_number(cell: str) -> bool:
    digits = cell.removeprefix("over ").removeprefix("under ").removeprefix("-")
    return cell == ABSENT or digits[:1].isdigit()
