"""What figures of reports share: colours and lines, light axes, panels, and values with their intervals."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecgjax.metrics.bootstrap import Interval

INK, GREY, BLUE, ORANGE, SLATE = "#1d2733", "#8a94a0", "#1f5fa8", "#c2571a", "#5b6774"
COLOURS = (BLUE, ORANGE, "#2f855a", "#7a4fa3", "#b7791f", SLATE)
"""Told apart by most who do not see red or green as others do; line styles differ as well."""
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))

Line = Mapping[str, object]
CHANCE: Line = {"color": GREY, "linewidth": 0.8}
REFERENCE: Line = {"color": ORANGE, "linestyle": "--", "linewidth": 1}
"""What is shown for orientation."""
RIVAL: Line = {"color": INK, "linestyle": "--", "linewidth": 0.9}
"""Whom the others have to beat."""
PLANTED: Line = {"color": ORANGE, "linestyle": ":", "linewidth": 1.4}
"""What a simulation lets nobody exceed."""


@dataclasses.dataclass(frozen=True)
class Mark:
    """One row of a forest; without an interval, or where its value is NaN, the row stays empty."""

    name: str
    interval: Interval | None
    colour: str


def forest(axes: Axes, marks: Sequence[Mark], *, named: bool = True, size: int = 8, dot: float = 4.0) -> None:
    """Dots with bars, the first row on top; `size` is of the names, `dot` of the dots, in points."""
    for position, mark in enumerate(marks):
        found = mark.interval
        if found is None or math.isnan(found.value):
            continue
        axes.plot(found.value, position, "o", color=mark.colour, markersize=dot)
        if not math.isnan(found.low):
            axes.plot([found.low, found.high], [position] * 2, color=mark.colour, linewidth=1.4)
    clean(axes)
    axes.set_ylim(len(marks) - 0.4, -0.6)
    axes.set_yticks(range(len(marks)), [mark.name if named else "" for mark in marks], fontsize=size)
    axes.grid(axis="x", color="#e6e9ed", linewidth=0.6)
    axes.set_axisbelow(True)


def panels(
    count: int,
    *,
    across: int,
    inches: tuple[float, float],
    margin: float = 0.0,
    shared: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Axes row by row, at most `across` side by side, each of `inches`; `margin` is more width for the whole."""
    across = min(across, count)
    down = -(-count // across)
    figure = Figure(figsize=(inches[0] * across + margin, inches[1] * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharex=shared, sharey=shared).ravel()
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, list(grid[:count])


def clean(axes: Axes, x: str | None = None, y: str | None = None) -> None:
    """Light axes: no frame above and to the right, small ticks; `x` and `y` say what is on them."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c5ccd4")
    axes.tick_params(labelsize=7, colors=INK, length=2)
    if x is not None:
        axes.set_xlabel(x, fontsize=8)
    if y is not None:
        axes.set_ylabel(y, fontsize=8)


def head(axes: Axes, title: str, *, size: int = 8) -> None:
    """A title above the left end."""
    axes.set_title(title, fontsize=size, loc="left", color=INK)
