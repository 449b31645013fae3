"""Importance maps over the ECG and the CMR frames they were made from."""

import dataclasses
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ecgjax.reports.cine_figure import WINDOW_PERCENTILE
from ecgjax.reports.ecg_paper import (
    INK,
    MM_PER_MV,
    MM_PER_SECOND,
    OVERLAY_ROW_MM,
    WIDEST_PAIR_S,
    calibrate,
    sheet,
    trace,
)
from ecgjax.reports.figures import ORANGE

GREY_GRID = ("#ececec", "#d5d5d5")
"""Of the paper: the usual red lines would mix with the colours of a map."""
GAP_MM, MEAN_MM, LEAD_MEAN_ROW_MM, SCALE_ROW_MM = 14.0, 4.0, 14.0, 16.0
STRIP_ALPHA, IMAGE_ALPHA = 0.6, 0.5
TIMES = 6
"""Frames of a pairwise strip."""
FRAME_MS = 200


@dataclasses.dataclass(frozen=True)
class Scale:
    """How numbers become colours: the same limits for every figure of one kind."""

    label: str
    low: float
    high: float
    colours: str

    @property
    def mappable(self) -> ScalarMappable:
        """For a colour bar."""
        return ScalarMappable(Normalize(self.low, self.high), self.colours)

    @property
    def painted(self) -> dict[str, Any]:
        """Options of `imshow`, which blends between the centres of places."""
        limits = {"vmin": self.low, "vmax": self.high}
        return {"cmap": self.colours, **limits, "interpolation": "bilinear"}


def importance_scale(temperature: float) -> Scale:
    """Cosine over temperature between fixed limits, white at 0; cosines beyond them saturate."""
    return Scale(f"likeness of ECG and CMR: cosine / {temperature:g}", -1.0, 1.0, "RdBu_r")


def share_scale(label: str, times_flat: Float[np.ndarray, "..."]) -> Scale:
    """From 0 to the largest value; for maps in multiples of a flat one."""
    return Scale(label, 0.0, max(float(np.ceil(times_flat.max() * 10) / 10), 1.0), "YlOrRd")


def ecg_map_paper(
    signal_mv: Float[np.ndarray, "l t"],
    importance: Float[np.ndarray, "r t2"],
    *,
    rate_hz: float,
    leads: Sequence[str],
    scale: Scale,
    title: str = "",
) -> Figure:
    """A strip of colour behind every lead, its mean over time in a box after it, the mean over leads below.

    Leads that share a patch share a row of the map. Each trace stands in the middle of its strip, and rows are as
    high as the largest lead needs, so that no trace runs into the strip of another.
    """
    if len(leads) != len(signal_mv) or len(leads) % len(importance):
        raise ValueError(
            f"{len(signal_mv)} signal rows, {len(leads)} lead names and {len(importance)} map rows; give a name to "
            "every lead, and a map row to every lead or group of leads."
        )
    seconds = signal_mv.shape[1] / rate_hz
    columns = 2 if seconds <= WIDEST_PAIR_S else 1
    rows = -(-len(leads) // columns)
    wide, step = seconds * MM_PER_SECOND, seconds * MM_PER_SECOND + GAP_MM
    below = LEAD_MEAN_ROW_MM + SCALE_ROW_MM
    lowest, highest = signal_mv.min(1), signal_mv.max(1)
    needed = MM_PER_MV * float(np.max(highest - lowest)) + 3
    row_mm = max(OVERLAY_ROW_MM, 5.0 * math.ceil(needed / 5))
    axes = sheet(columns * step - GAP_MM + MEAN_MM, rows * row_mm + below, title=title, grid=GREY_GRID)
    for index, name in enumerate(leads):
        column, row = divmod(index, rows)
        x, middle = column * step, below + (rows - row - 0.5) * row_mm
        of_lead = index * len(importance) // len(leads)
        extent = (x, x + wide, middle - 0.47 * row_mm, middle + 0.47 * row_mm)
        _strip(axes, importance[of_lead], extent, scale, gid=f"strip {name}")
        box = (x + wide + 1.5, x + wide + 1.5 + MEAN_MM, *extent[2:])
        _strip(axes, importance[of_lead].mean(keepdims=True), box, scale, gid=f"mean {name}")
        if column == 0:
            calibrate(axes, middle - MM_PER_MV / 2)
        zero = middle - MM_PER_MV * float(lowest[index] + highest[index]) / 2
        trace(axes, signal_mv[index], rate_hz=rate_hz, x_mm=x, y_mm=zero, name="", gid=f"trace {name}")
        axes.text(x + 1, extent[3] - 4, name, fontsize=9, weight="bold", color=INK)
    bottom = SCALE_ROW_MM + 2
    _strip(axes, importance.mean(0), (0, wide, bottom, bottom + 7), scale, gid="strip of all leads")
    axes.text(0.5, bottom + 8, "mean over leads", fontsize=7, color=INK)
    axes.text(wide + 1.5, bottom + 8, "box: mean over time", fontsize=7, color=INK)
    for second in np.arange(0, seconds + 1e-6, 0.5):
        at = second * MM_PER_SECOND
        axes.plot([at, at], [bottom - 1.2, bottom], color=INK, linewidth=0.6)
        axes.text(at, bottom - 4, f"{second:g} s", fontsize=6, ha="center", color=INK)
    left, right = axes.get_xlim()
    low, high = axes.get_ylim()
    share = [1 / (right - left), 1 / (high - low)]
    place = (share[0] * -left, share[1] * (5.5 - low), share[0] * min(70, wide), share[1] * 2.5)
    _colour_bar(axes.figure, axes.figure.add_axes(place), scale)
    return axes.figure


def cmr_map_figure(
    frames: Float[np.ndarray, "y x f"],
    importance: Float[np.ndarray, "y2 x2"],
    *,
    frame_names: Sequence[str],
    scale: Scale,
    title: str = "",
) -> Figure:
    """The frames as they are and the map alone, over the same frames under the map; all frames have one map."""
    count = frames.shape[-1]
    figure = Figure(figsize=(1.9 * (count + 1) + 0.5, 4.1), dpi=110, layout="constrained")
    grid = figure.subplots(2, count + 1, squeeze=False)
    for column in range(count):
        for row in range(2):
            _frame(grid[row, column], frames, column, importance if row else None, scale)
        grid[0, column].set_title(frame_names[column], fontsize=8, color=INK)
    alone, beside = grid[:, -1]
    _overlay(alone, importance, frames.shape, scale, alpha=1.0)
    alone.set_title("map alone", fontsize=8, color=INK)
    alone.set_axis_off()
    beside.set_axis_off()
    inside = beside.inset_axes((0.03, 0.72, 0.94, 0.06))
    figure.colorbar(scale.mappable, cax=inside, orientation="horizontal")
    inside.set_title(scale.label, fontsize=7, loc="left", color=INK)
    inside.tick_params(labelsize=7, length=2)
    _finish(figure, title)
    return figure


def pairwise_figure(
    signal_mv: Float[np.ndarray, " t"],
    frame: Float[np.ndarray, "y x"],
    importance: Float[np.ndarray, "t2 y2 x2"],
    *,
    rate_hz: float,
    lead: str,
    scale: Scale,
    title: str = "",
) -> Figure:
    """One lead with marked times, and under it the frame with the map of each of them."""
    chosen = np.linspace(0, len(importance) - 1, min(TIMES, len(importance))).round().astype(int)
    figure = Figure(figsize=(1.5 * len(chosen) + 0.9, 3.6), dpi=110, layout="constrained")
    grid = figure.add_gridspec(2, len(chosen), height_ratios=(1.1, 1))
    above = figure.add_subplot(grid[0, :])
    _lead_line(above, signal_mv, rate_hz=rate_hz, lead=lead)
    below = []
    for place, column in enumerate(chosen):
        at = (column + 0.5) / len(importance) * len(signal_mv) / rate_hz
        above.axvline(at, color=INK, linewidth=0.8, linestyle=":")
        below.append(figure.add_subplot(grid[1, place]))
        _frame(below[-1], frame[..., None], 0, importance[column], scale)
        below[-1].set_title(f"{at:.2f} s", fontsize=8, color=INK)
    bar = figure.colorbar(scale.mappable, ax=below, fraction=0.03, pad=0.02)
    bar.set_label(scale.label.replace(": ", ":\n"), fontsize=7)
    _finish(figure, title)
    return figure


def pairwise_animation(
    signal_mv: Float[np.ndarray, " t"],
    frame: Float[np.ndarray, "y x"],
    importance: Float[np.ndarray, "t2 y2 x2"],
    *,
    rate_hz: float,
    lead: str,
    scale: Scale,
) -> bytes:
    """A GIF that loops through the times of the map: a cursor on the lead, the frame under the map of that time."""
    from PIL import Image

    figure = Figure(figsize=(4.2, 4.8), dpi=90, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, height_ratios=(3, 1.2))
    _frame(above, frame[..., None], 0, importance[0], scale)
    overlay = above.images[-1]
    figure.colorbar(scale.mappable, ax=above, fraction=0.045, pad=0.02).set_label(scale.label, fontsize=7)
    _lead_line(below, signal_mv, rate_hz=rate_hz, lead=lead)
    wide = len(signal_mv) / rate_hz / len(importance)
    cursor = below.axvspan(0, wide, color=ORANGE, alpha=0.35, linewidth=0)
    _small_ticks(figure)
    pictures = []
    for time, values in enumerate(importance):
        overlay.set_data(values)
        cursor.set_x(time * wide)
        above.set_title(f"{(time + 0.5) * wide:.2f} s", fontsize=9, color=INK)
        canvas.draw()
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    palette = pictures[0].quantize(256, method=Image.Quantize.MAXCOVERAGE)
    pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, format="GIF", save_all=True, append_images=pictures[1:], duration=FRAME_MS, loop=0
    )
    return buffer.getvalue()


def _strip(axes: Axes, values: np.ndarray, extent, scale: Scale, *, gid: str) -> None:
    image = axes.imshow(
        values[None], extent=extent, alpha=STRIP_ALPHA, aspect="auto", zorder=0.5, **scale.painted
    )
    image.set_gid(gid)


def _frame(axes: Axes, frames: np.ndarray, number: int, importance: np.ndarray | None, scale: Scale) -> None:
    white = np.percentile(frames, WINDOW_PERCENTILE)
    axes.imshow(frames[..., number], cmap="gray", vmin=0, vmax=white, interpolation="bilinear")
    axes.set_axis_off()
    if importance is not None:
        _overlay(axes, importance, frames.shape, scale, alpha=IMAGE_ALPHA)


def _overlay(axes: Axes, values: np.ndarray, shape: Sequence[int], scale: Scale, *, alpha: float) -> None:
    """A map over a frame of `shape`."""
    axes.imshow(values, extent=(-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5), alpha=alpha, **scale.painted)


def _lead_line(axes: Axes, signal_mv: np.ndarray, *, rate_hz: float, lead: str) -> None:
    axes.plot(np.arange(len(signal_mv)) / rate_hz, signal_mv, color=INK, linewidth=0.9)
    axes.set_xlim(0, len(signal_mv) / rate_hz)
    axes.set_xlabel("s", fontsize=8)
    axes.set_ylabel(f"lead {lead}, mV", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _colour_bar(figure: Figure, axes: Axes, scale: Scale) -> None:
    """As pale as the strips."""
    bar = figure.colorbar(scale.mappable, cax=axes, orientation="horizontal", alpha=STRIP_ALPHA)
    bar.ax.tick_params(labelsize=6, length=2, pad=1)
    bar.ax.set_title(scale.label, fontsize=7, loc="left", pad=2, color=INK)


def _finish(figure: Figure, title: str) -> None:
    _small_ticks(figure)
    if title:
        figure.suptitle(title, fontsize=9, color=INK, x=0.02, ha="left")


def _small_ticks(figure: Figure) -> None:
    for axes in figure.axes:
        axes.tick_params(labelsize=7, length=2)
