"""Figures of a report of probes: loss curves, forests of scores, reconstructions."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecgjax.metrics.bootstrap import Interval
from ecgjax.reports.curves import Curve
from ecgjax.reports.ecg_paper import reconstruction_paper
from ecgjax.reports.figures import BLUE, CHANCE, GREY, ORANGE, REFERENCE, Mark, clean, forest, head, panels
from ecgjax.reports.probe_scores import SYMBOLS, ReportResults, ScoredRow

_CHANCE = {"r2": 0.0, "auroc": 0.5}


def loss_curves(groups: Mapping[str, Sequence[Curve]]) -> Figure:
    """One panel a group of seeds: training loss as lines, validation as dots, ln(batch) dashed for InfoNCE."""
    figure, grid = panels(len(groups), across=3, inches=(3.4, 2.5))
    for axes, (name, curves) in zip(grid, groups.items(), strict=True):
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
        clean(axes, "step")
        head(axes, name, size=9)
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
        _score_forest(axes, rows, [row.mean(targets) for row in rows], named=metric == metrics[0])
        for position, row in enumerate(rows):
            if row.seeds > 1 and not math.isnan(row.mean(targets).value):
                by_seed = row.mean_by_seed(targets)
                axes.plot(by_seed, np.full(len(by_seed), position + 0.28), "|", color=GREY, markersize=5)
        head(axes, f"mean {SYMBOLS[metric]}", size=9)
        axes.axvline(_CHANCE[metric], **CHANCE)
    return figure


def target_forest(results: ReportResults) -> Figure | None:
    """One panel a target, rows in the same order; the first reference row is a dashed line."""
    columns = [column for metric in SYMBOLS for column in results.targets(metric)]
    rows = [row for row in results.rows if row.cells]
    if not columns or not rows:
        return None
    figure, grid = panels(len(columns), across=4, inches=(2.3, 0.22 * len(rows) + 0.8), margin=1.6)
    figure.get_layout_engine().set(h_pad=0.1, hspace=0.04)
    for axes, column in zip(grid, columns, strict=True):
        found = [row.cells.get(column.target) for row in rows]
        named = axes.get_subplotspec().is_first_col()
        _score_forest(axes, rows, found, named=named, size=7, dot=3.5)
        star = "*" if column.control else ""
        head(axes, f"{column.target}{star}  {SYMBOLS[column.metric]}")
        axes.axvline(_CHANCE[column.metric], **CHANCE)
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


def _score_forest(
    axes: Axes, rows: Sequence[ScoredRow], found: Sequence[Interval | None], *, named: bool, **options
) -> None:
    """Rows with what was found of them; the first reference row is a line as well."""
    colours = [GREY if row.reference else BLUE for row in rows]
    marks = [Mark(row.name, *rest) for row, *rest in zip(rows, found, colours, strict=True)]
    forest(axes, marks, named=named, **options)
    bound = next((interval for row, interval in zip(rows, found, strict=True) if row.reference), None)
    if bound is not None and not math.isnan(bound.value):
        axes.axvline(bound.value, **REFERENCE)
