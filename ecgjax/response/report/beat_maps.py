"""Where in the time-frequency image of a beat an encoder sees what it names: mean maps, and some beats with theirs."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.figure import Figure

from ecgjax.core.files import read_json
from ecgjax.core.result_files import missing_below, read_results
from ecgjax.reports.figures import INK, clean
from ecgjax.reports.page import Picture, Section
from ecgjax.reports.specs import check_keys
from ecgjax.reports.tables import Cell, Line, Table, number, value_cell
from ecgjax.response.report.map_grid import Panel, map_grid, pixels

TITLE = "Grad-CAM of the beats"
_KEYS = {"workdir", "step", "examples", "leads"}
_CAUTION = (
    "A map shows where the answer hangs on the image, in the unit of the logit. It is no evidence that the answer is "
    "right, nor of where a finding lies. Where maps of those with and without a class cannot be told apart (AUROC near "
    ".5), they show what all images have in common."
)


def grad_cam_section(spec: Mapping[str, Any], root: epath.Path) -> Section:
    """Scores and figures of the evaluator's results under `{"workdir", "step", "examples", "leads"}`.

    `leads` names the leads of the maps, in their order; without it those of the run's input are taken where they are
    as many.
    """
    check_keys(spec, "grad_cam", _KEYS)
    try:
        tree, arrays = read_results(root / spec["workdir"], "grad_cam", spec.get("step", "last"))
    except FileNotFoundError as error:
        return Section(TITLE, warnings=[f"missing: {missing_below(root, error)}"])
    caption = (
        f"Mean maps over the split, {tree['scalars']['n']:.0f} examples; 0 s is the R peak. With and without a class "
        "share a scale; maps of several leads are averaged."
    )
    pictures = [Picture(mean_maps(arrays), caption, "mean Grad-CAM", vector=False)]
    leads = spec.get("leads") or _leads(root / spec["workdir"], arrays)
    for shown in range(min(spec.get("examples", 3), len(arrays.get("example/record", ())))):
        one = {
            name.removeprefix("example/"): v[shown]
            for name, v in arrays.items()
            if name.startswith("example/")
        }
        caption = (
            f"Record {str(one['record'])[:8]}, which has {one['target']} (logit {one['logit']:+.2f}): image in grey, "
            "map in orange."
        )
        figure = example_maps(one, arrays, rate_hz=tree["scalars"]["rate_hz"], leads=leads)
        pictures.append(Picture(figure, caption, f"Grad-CAM of {one['target']}", vector=False))
    return Section(TITLE, text=[_CAUTION], tables=[_table(tree["scalars"], arrays)], pictures=pictures)


def mean_maps(arrays: Mapping[str, np.ndarray]) -> Figure:
    """A column a target: the mean map of those who have it over that of those who do not."""
    names = _targets(arrays)
    columns = []
    for name in names:
        maps = [arrays[f"mean/{name}/{side}"].mean(axis=0) for side in ("positive", "negative")]
        largest = max((float(np.nanmax(found)) for found in maps if not np.isnan(found).all()), default=1.0)
        nobody = [", nobody" if np.isnan(found).all() else "" for found in maps]
        titles = (f"with {name}{nobody[0]}", f"without {name}{nobody[1]}")
        columns.append([Panel(title, found, largest) for title, found in zip(titles, maps, strict=True)])
    return map_grid(list(zip(*columns, strict=True)), arrays, inches=(1.0 + 1.9 * len(names), 4.0))


def example_maps(
    one: Mapping[str, Any], axis: Mapping[str, np.ndarray], *, rate_hz: float, leads: Sequence[str]
) -> Figure:
    """Image and map of one example, a column a lead; the ECG above where it is the window of the image."""
    count, signal = len(one["map"]), one["signal_mv"]
    # A window round one beat has as many leads as maps; a whole recording, of which a map sums up beats, has more.
    above = len(signal) == count
    rows = 2 if above else 1
    figure = Figure(figsize=(1.0 + 2.6 * count, 1.1 * above + 2.4), layout="constrained")
    heights = [1, 2.2] if above else [1]
    grid = figure.subplots(rows, count, squeeze=False, sharex=True, height_ratios=heights)
    largest = max(float(one["map"].max()), 1e-12)
    for column in range(count):
        axes = grid[-1, column]
        axes.imshow(one["image"][column], cmap="Greys", **pixels(axis))
        share = np.clip(one["map"][column] / largest, 0, 1)
        axes.imshow(np.ones_like(share), cmap="autumn", vmin=0, vmax=2, alpha=0.65 * share, **pixels(axis))
        axes.set_xlabel("s from the R peak" if above else "s from R peaks", fontsize=7)
        clean(axes)
        if above:
            seconds = (np.arange(signal.shape[1]) - signal.shape[1] // 2) / rate_hz
            grid[0, column].plot(seconds, signal[column], color=INK, linewidth=0.8)
            clean(grid[0, column])
        grid[0, column].set_title(
            leads[column] if column < len(leads) else f"lead {column + 1}", fontsize=8, loc="left"
        )
    grid[-1, 0].set_ylabel("Hz", fontsize=7)
    if above:
        grid[0, 0].set_ylabel("mV", fontsize=7)
    return figure


def _table(scalars: Mapping[str, float], arrays: Mapping[str, np.ndarray]) -> Table:
    def value(name: str, digits: int) -> Cell:
        return value_cell(scalars.get(name, math.nan), functools.partial(number, digits=digits))

    lines = []
    for name in _targets(arrays):
        digits = {"peak_hz": 1, "peak_s": 2, "told_apart": 3}
        lines.append(Line((Cell(name), *(value(f"{name}/{key}", d) for key, d in digits.items()))))
    header = ("class", "peak, Hz", "peak, s from R", "maps told apart, AUROC")
    return Table("Where mean maps peak", header, tuple(lines))


def _targets(arrays: Mapping[str, np.ndarray]) -> list[str]:
    return [name.split("/")[1] for name in arrays if name.startswith("mean/") and name.endswith("/positive")]


def _leads(workdir: epath.Path, arrays: Mapping[str, np.ndarray]) -> Sequence[str]:
    path = workdir / "input_spec.json"
    named = read_json(path)["ecg"]["leads"] if path.exists() else []
    return named if "example/map" in arrays and len(named) == arrays["example/map"].shape[1] else []
