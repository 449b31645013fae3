"""Figures of a cross-validation: ROC curves, calibration, AUROCs with intervals, and what more patients bring."""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from ecgjax.reports.figures import (
    BLUE,
    CHANCE,
    COLOURS,
    INK,
    PLANTED,
    RIVAL,
    SLATE,
    STYLES,
    Mark,
    clean,
    forest,
    head,
    panels,
)
from ecgjax.reports.tables import number
from ecgjax.response.report.contenders import Contender, CrossValidated

_GRID = np.linspace(0, 1, 201)
_CURVE = re.compile(r"auroc@(?P<percent>[0-9.e+-]+)_percent$")


def roc_curves(found: CrossValidated, names: Sequence[str]) -> Figure:
    """Sensitivity against 1 - specificity, averaged over repeats at equal specificity."""
    figure = Figure(figsize=(5.4, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], **CHANCE)
    # Of whoever can be evaluated in nobody, or in one outcome only, there is no curve.
    chosen = [c for c in _chosen(found, names) if not np.isnan(c.metric("auroc").value)]
    for position, contender in enumerate(chosen):
        keep = ~np.isnan(contender.score).any(axis=0)
        axes.plot(
            np.append(0, _GRID),
            np.append(0, mean_roc(found.truth[keep], contender.score[:, keep])),
            color=COLOURS[position % len(COLOURS)],
            linestyle=STYLES[position % len(STYLES)],
            linewidth=1.6,
            label=f"{contender.name}  {contender.metric('auroc').value:.2f}",
        )
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    clean(axes, "1 − specificity", "sensitivity")
    if chosen:
        axes.legend(fontsize=8, frameon=False, loc="lower right", title="pooled AUROC", title_fontsize=8)
    return figure


def mean_roc(
    truth: Float[np.ndarray, " n"], score: Float[np.ndarray, "repeat n"]
) -> Float[np.ndarray, " points"]:
    """Mean over repeats of the sensitivity at each of 201 false positive rates; equal scores are one step."""
    return np.mean([_roc(truth, row) for row in score], axis=0)


def calibration_plot(found: CrossValidated, names: Sequence[str], *, groups: int = 5) -> Figure | None:
    """Outcome by predicted probability (mean of a patient's repeats), in groups of equal size with 95 % intervals.

    None where none of `names` gives probabilities.
    """
    chosen = [c for c in _chosen(found, names) if not np.isnan(c.probability).all()]
    if not chosen:
        return None
    figure, grid = panels(len(chosen), across=3, inches=(2.9, 3.0), shared=True)
    for axes, contender in zip(grid, chosen, strict=True):
        keep = ~np.isnan(contender.probability).any(axis=0)
        p, truth = contender.probability[:, keep].mean(axis=0), found.truth[keep]
        axes.plot([0, 1], [0, 1], **CHANCE)
        for rows in np.array_split(np.argsort(p, kind="stable"), min(groups, len(p))):
            share, low, high = wilson(float(truth[rows].sum()), len(rows))
            axes.plot([p[rows].mean()] * 2, [low, high], color=BLUE, linewidth=1.2)
            axes.plot(p[rows].mean(), share, "o", color=BLUE, markersize=4)
        axes.plot(p, np.full(len(p), -0.04), "|", color=INK, markersize=4, alpha=0.4)
        slope, intercept = (contender.metric(f"calibration_{name}").value for name in ("slope", "intercept"))
        head(axes, f"{contender.name}\nslope {number(slope)}, intercept {number(intercept)}")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.08, 1.02), aspect="equal")
        clean(axes)
    figure.supxlabel("predicted probability", fontsize=8)
    figure.supylabel("share with the outcome", fontsize=8)
    return figure


def auroc_forest(
    found: CrossValidated, *, judged: str, reference: str | None, planted: float | None = None
) -> Figure:
    """Pooled AUROC of every contender with its interval, `judged` marked; `reference` is dashed, `planted` dotted."""
    rows = [c for c in found.contenders if not np.isnan(c.metric("auroc").value)]
    marks = [Mark(c.name, c.metric("auroc"), BLUE if c.name == judged else SLATE) for c in rows]
    figure = Figure(figsize=(6.4, 0.3 * len(rows) + 0.9), layout="constrained")
    axes = figure.subplots()
    forest(axes, marks, dot=4.5)
    axes.set_xlabel("pooled AUROC", fontsize=8)
    rival = next((mark.interval.value for mark in marks if mark.name == reference), None)
    if rival is not None:
        axes.axvline(rival, **RIVAL)
    if planted is not None:
        axes.axvline(planted, **PLANTED)
    axes.axvline(0.5, **CHANCE)
    return figure


def learning_curves(found: CrossValidated) -> Figure | None:
    """Pooled AUROC by share of each training set, for contenders trained on several; None where there are none."""
    drawn = [(contender, _curve(contender)) for contender in found.contenders]
    drawn = [(contender, points) for contender, points in drawn if len(points) > 1]
    if not drawn:
        return None
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    axes = figure.subplots()
    patients = len(found.truth) * (1 - 1 / len(np.unique(found.fold[0])))
    for position, (contender, points) in enumerate(drawn):
        shift = 0.15 * (position - (len(drawn) - 1) / 2)  # Intervals beside each other, not over.
        at = np.array([percent / 100 * patients for percent, _ in points]) * (1 + 0.1 * shift)
        value, low, high = np.array([[v.value, v.low, v.high] for _, v in points]).T
        colour = COLOURS[position % len(COLOURS)]
        axes.vlines(at, low, high, color=colour, linewidth=1.2)
        style = STYLES[position % len(STYLES)]
        axes.plot(
            at, value, "o", linestyle=style, color=colour, markersize=4, linewidth=1.2, label=contender.name
        )
    axes.axhline(0.5, **CHANCE)
    axes.set_xlim(left=0)
    clean(axes, "patients in a training set", "pooled AUROC")
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=3)
    return figure


def wilson(hits: float | int, n: int) -> tuple[float, float, float]:
    """A share with its 95 % interval (Wilson 1927)."""
    z = 1.959964
    share = hits / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return float(share), float(middle - half), float(middle + half)


def _roc(truth: Float[np.ndarray, " n"], score: Float[np.ndarray, " n"]) -> Float[np.ndarray, " points"]:
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.diff(score[order]) != 0, True)
    hits = np.cumsum(truth[order] == 1)[last_of_tie] / max(1, np.sum(truth == 1))
    alarms = np.cumsum(truth[order] == 0)[last_of_tie] / max(1, np.sum(truth == 0))
    return np.interp(_GRID, np.append(0, alarms), np.append(0, hits))


def _curve(contender: Contender) -> list[tuple[float, object]]:
    points = [
        (float(match["percent"]), value)
        for metric, value in contender.metrics.items()
        if (match := _CURVE.match(metric))
    ]
    return sorted([*points, (100.0, contender.metric("auroc"))], key=lambda point: point[0])


def _chosen(found: CrossValidated, names: Sequence[str]) -> list[Contender]:
    return [contender for name in names if (contender := found.find(name)) is not None]
