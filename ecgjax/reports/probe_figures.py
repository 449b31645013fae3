"""Figures of a report, as matplotlib figures; `page` turns them into data URIs."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecgjax.reports.curves import Curve
from ecgjax.reports.ecg_paper import reconstruction_paper
from ecgjax.reports.probe_scores import SYMBOLS, ReportResults, ScoredRow

INK, GREY, BLUE, ORANGE = "#1d2733", "#8a94a0", "#1f5fa8", "#c2571a"
_CHANCE = {"r2": 0.0, "auroc": 0.5}


def loss_curves(groups: Mapping[str, Sequence[Curve]]) -> Figure:
    """One panel a group of seeds: training loss as lines, validation as dots, ln(batch) dashed for InfoNCE."""
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.5 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, curves) in zip(grid, groups.items(), strict=False):
        for position, curve in enumerate(curves):
            alpha = 1 - 0.6 * position / max(1, len(curves))
            axes.plot(curve.step, curve.loss, color=BLUE, linewidth=1, alpha=alpha, label="train")
            axes.plot(
                curve.val_step,
                curve.val_loss,
                color=ORANGE,
                marker="o",
                markersize=3,
                linewidth=0.6,
                alpha=alpha,
                label="validation",
            )
        levels = {round(curve.ln_batch, 4) for curve in curves if curve.ln_batch is not None}
        for level in levels:
            axes.axhline(level, color=GREY, linestyle="--", linewidth=1, label="ln(batch): knows nothing")
        clean(axes)
        axes.set_title(name, fontsize=9, loc="left", color=INK)
        axes.set_xlabel("step", fontsize=8)
    for axes in grid[len(groups) :]:
        axes.set_axis_off()
    handles = {}
    for axes in grid:
        handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False
    )
    return figure


def headline_forest(results: ReportResults) -> Figure | None:
    """Headline means of all rows with intervals; the first reference row is a dashed line."""
    metrics = [metric for metric in SYMBOLS if results.headline(metric)]
    rows = [row for row in results.rows if row.cells]
    if not metrics or not rows:
        return None
    figure = Figure(figsize=(4.6 * len(metrics) + 1.0, 0.34 * len(rows) + 1.0), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        targets = results.headline(metric)
        _forest(axes, rows, lambda row, targets=targets: row.mean(targets), named=metric == metrics[0])
        for position, row in enumerate(rows):
            if row.seeds > 1 and not math.isnan(row.mean(targets).value):
                by_seed = row.mean_by_seed(targets)
                axes.plot(by_seed, np.full(len(by_seed), position + 0.28), "|", color=GREY, markersize=5)
        axes.set_title(f"mean {SYMBOLS[metric]}", fontsize=9, loc="left", color=INK)
        axes.axvline(_CHANCE[metric], color=GREY, linewidth=0.8)
    return figure


def target_forest(results: ReportResults) -> Figure | None:
    """One panel a target, rows in the same order; the first reference row is a dashed line."""
    columns = [column for metric in SYMBOLS for column in results.targets(metric)]
    rows = [row for row in results.rows if row.cells]
    if not columns or not rows:
        return None
    across = min(4, len(columns))
    down = -(-len(columns) // across)
    figure = Figure(figsize=(2.3 * across + 1.6, down * (0.22 * len(rows) + 0.8)), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1, hspace=0.04)
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for position, (axes, column) in enumerate(zip(grid, columns, strict=False)):
        _forest(
            axes,
            rows,
            lambda row, name=column.target: row.cells.get(name),
            named=position % across == 0,
            size=7,
        )
        star = "*" if column.control else ""
        axes.set_title(f"{column.target}{star}  {SYMBOLS[column.metric]}", fontsize=8, loc="left", color=INK)
        axes.axvline(_CHANCE[column.metric], color=GREY, linewidth=0.8)
    for axes in grid[len(columns) :]:
        axes.set_axis_off()
    return figure


def reconstructions(
    original_mv: Float[np.ndarray, "n l t"],
    reconstruction_mv: Float[np.ndarray, "n l t"],
    hidden: Bool[np.ndarray, "n l t"],
    *,
    rate_hz: float,
    leads: Sequence[str],
    examples: int,
) -> list[Figure]:
    """The first ECGs on paper, original against reconstruction, hidden patches shaded."""
    return [
        reconstruction_paper(
            original_mv[i], reconstruction_mv[i], hidden[i], rate_hz=rate_hz, leads=tuple(leads)
        )
        for i in range(min(examples, len(original_mv)))
    ]


def _forest(axes: Axes, rows: Sequence[ScoredRow], value, *, named: bool, size: int = 8) -> None:
    """Dots with bars, first row on top; rows without a value stay empty."""
    for position, row in enumerate(rows):
        interval = value(row)
        if interval is None or math.isnan(interval.value):
            continue
        colour = GREY if row.reference else BLUE
        axes.plot(interval.value, position, "o", color=colour, markersize=size / 2)
        if not math.isnan(interval.low):
            axes.plot([interval.low, interval.high], [position] * 2, color=colour, linewidth=1.4)
    reference = next((row for row in rows if row.reference), None)
    if reference is not None and (bound := value(reference)) is not None and not math.isnan(bound.value):
        axes.axvline(bound.value, color=ORANGE, linestyle="--", linewidth=1)
    clean(axes)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(
        range(len(rows)), [row.name for row in rows] if named else [""] * len(rows), fontsize=size
    )
    axes.grid(axis="x", color="#e6e9ed", linewidth=0.6)
    axes.set_axisbelow(True)


def clean(axes: Axes) -> None:
    """Light axes: no frame above and to the right, small ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c5ccd4")
    axes.tick_params(labelsize=7, colors=INK, length=2)
