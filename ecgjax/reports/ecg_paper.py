"""ECGs on paper as a cardiologist reads them: 25 mm a second, 10 mm a millivolt, true to scale."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ecgjax.formats.recording import LEADS

MM_PER_SECOND, MM_PER_MV = 25.0, 10.0
GRID_ROWS = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
"""The standard layout: four columns a quarter of the record long, read one after the other; lead II below."""
RHYTHM_LEAD = "II"
MARGIN_MM, CALIBRATION_MM, ROW_MM, OVERLAY_ROW_MM, TITLE_MM = 5.0, 10.0, 32.0, 25.0, 8.0
WIDEST_PAIR_S = 5.0
"""Records up to this long are overlaid in two columns, longer ones in one."""
FINE, COARSE, INK, FOUND, HIDDEN = "#f8dada", "#eda9a9", "#111111", "#0b5cad", "#f5c242"


def ecg_paper(signal_mv: Float[np.ndarray, "12 t"], *, rate_hz: float, title: str = "") -> Figure:
    """Twelve leads (`LEADS` order, mV) as 3 rows x 4 columns over a rhythm strip, with calibration pulses.

    Each column shows its own quarter of the record, so beats line up across a column and with the strip.
    """
    seconds = signal_mv.shape[1] / rate_hz
    rows = len(GRID_ROWS) + 1
    axes = sheet(seconds * MM_PER_SECOND, rows * ROW_MM, title=title)
    quarter = signal_mv.shape[1] // 4
    for row, names in enumerate(GRID_ROWS):
        middle = (rows - row - 0.5) * ROW_MM
        calibrate(axes, middle)
        for column, name in enumerate(names):
            start = column * quarter
            stop = start + quarter if column < 3 else signal_mv.shape[1]
            part = signal_mv[LEADS.index(name), start:stop]
            trace(axes, part, rate_hz=rate_hz, x_mm=start / rate_hz * MM_PER_SECOND, y_mm=middle, name=name)
    calibrate(axes, 0.5 * ROW_MM)
    trace(
        axes,
        signal_mv[LEADS.index(RHYTHM_LEAD)],
        rate_hz=rate_hz,
        x_mm=0.0,
        y_mm=0.5 * ROW_MM,
        name=RHYTHM_LEAD,
    )
    return axes.figure


def lead_paper(
    signal_mv: Float[np.ndarray, "l t"], *, rate_hz: float, leads: Sequence[str], title: str = ""
) -> Figure:
    """Any leads (mV), one a row over the whole length: what `ecg_paper` is for the twelve standard ones."""
    if len(leads) != len(signal_mv):
        raise ValueError(f"{len(signal_mv)} signal rows but {len(leads)} lead names; give one name a row.")
    rows = len(leads)
    axes = sheet(signal_mv.shape[1] / rate_hz * MM_PER_SECOND, rows * ROW_MM, title=title)
    for row, name in enumerate(leads):
        middle = (rows - row - 0.5) * ROW_MM
        calibrate(axes, middle)
        trace(axes, signal_mv[row], rate_hz=rate_hz, x_mm=0.0, y_mm=middle, name=name)
    return axes.figure


def reconstruction_paper(
    signal_mv: Float[np.ndarray, "l t"],
    reconstruction_mv: Float[np.ndarray, "l t"],
    hidden: Bool[np.ndarray, "l t"],
    *,
    rate_hz: float,
    leads: Sequence[str] = LEADS,
    title: str = "",
) -> Figure:
    """The original in black, the reconstruction in blue where it was `hidden`, hidden patches shaded."""
    if len(leads) != len(signal_mv):
        raise ValueError(f"{len(signal_mv)} signal rows but {len(leads)} lead names; give one name a row.")
    seconds = signal_mv.shape[1] / rate_hz
    columns = 2 if seconds <= WIDEST_PAIR_S else 1
    rows = -(-len(leads) // columns)
    gap = 10.0
    width = columns * seconds * MM_PER_SECOND + (columns - 1) * gap
    axes = sheet(width, rows * OVERLAY_ROW_MM, title=title)
    for index, name in enumerate(leads):
        column, row = divmod(index, rows)
        x, middle = column * (seconds * MM_PER_SECOND + gap), (rows - row - 0.5) * OVERLAY_ROW_MM
        if column == 0:
            calibrate(axes, middle)
        for start, stop in _spans(hidden[index]):
            left, right = (x + edge / rate_hz * MM_PER_SECOND for edge in (start, stop))
            axes.axvspan(
                left,
                right,
                ymin=_share(axes, middle - 0.46 * OVERLAY_ROW_MM),
                ymax=_share(axes, middle + 0.46 * OVERLAY_ROW_MM),
                color=HIDDEN,
                alpha=0.35,
                linewidth=0,
            )
        trace(axes, signal_mv[index], rate_hz=rate_hz, x_mm=x, y_mm=middle, name=name)
        found = np.where(hidden[index], reconstruction_mv[index], np.nan)
        trace(axes, found, rate_hz=rate_hz, x_mm=x, y_mm=middle, name="", colour=FOUND)
    return axes.figure


def sheet(width_mm: float, height_mm: float, *, title: str, grid: tuple[str, str] = (FINE, COARSE)) -> Axes:
    """A sheet of paper in millimetres; x 0 is where traces start, y 0 the lower edge of the last row.

    `grid` are the colours of the lines every millimetre and every five.
    """
    left, bottom = -MARGIN_MM - CALIBRATION_MM, -MARGIN_MM
    right, top = np.ceil((width_mm + MARGIN_MM) / 5) * 5, height_mm + MARGIN_MM + (TITLE_MM if title else 0)
    figure = Figure(figsize=((right - left) / 25.4, (top - bottom) / 25.4), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    for step, colour, line in ((1, grid[0], 0.35), (5, grid[1], 0.6)):
        x, y = np.arange(left, right + 1, step), np.arange(bottom, top + 1, step)
        vertical = [((at, bottom), (at, top)) for at in x]
        horizontal = [((left, at), (right, at)) for at in y]
        axes.add_collection(LineCollection(vertical + horizontal, colors=colour, linewidths=line, zorder=0))
    scale = f"{MM_PER_SECOND:g} mm/s  {MM_PER_MV:g} mm/mV"
    axes.text(right - 2, bottom + 1.2, scale, fontsize=7, ha="right", color=INK)
    if title:
        axes.text(left + 2, top - 6, title, fontsize=10, color=INK)
    return axes


def calibrate(axes: Axes, y_mm: float) -> None:
    """One millivolt for a fifth of a second."""
    x = np.array([-9, -7.5, -7.5, -2.5, -2.5, -1])
    axes.plot(x, y_mm + MM_PER_MV * np.array([0, 0, 1, 1, 0, 0]), color=INK, linewidth=0.8, gid="calibration")


def trace(
    axes: Axes,
    trace_mv: np.ndarray,
    *,
    rate_hz: float,
    x_mm: float,
    y_mm: float,
    name: str,
    colour: str = INK,
    gid: str | None = None,
) -> None:
    """One lead whose 0 mV lies at `y_mm`, its name above where it starts."""
    x = x_mm + np.arange(len(trace_mv)) / rate_hz * MM_PER_SECOND
    axes.plot(x, y_mm + MM_PER_MV * trace_mv, color=colour, linewidth=0.9, gid=gid or f"trace {name}".strip())
    if name:
        axes.text(x_mm + 1, y_mm + 8.5, name, fontsize=9, weight="bold", color=INK)


def _spans(hidden: np.ndarray) -> list[tuple[int, int]]:
    """Start and stop of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], hidden, [False]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _share(axes: Axes, y_mm: float) -> float:
    low, high = axes.get_ylim()
    return (y_mm - low) / (high - low)
