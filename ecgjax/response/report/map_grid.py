"""Grad-CAM maps over the time-frequency images of beats, in seconds from the R peak and hertz."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from ecgjax.reports.figures import clean, head


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """A map, black at 0 and bright at `largest`."""

    title: str
    values: Float[np.ndarray, "f t"]
    largest: float


def map_grid(
    rows: Sequence[Sequence[Panel]], axis: Mapping[str, np.ndarray], *, inches: tuple[float, float]
) -> Figure:
    """Rows of as many maps, which share the axes `time_s` and `frequency_hz`."""
    figure = Figure(figsize=inches, layout="constrained")
    grid = figure.subplots(len(rows), len(rows[0]), squeeze=False, sharex=True, sharey=True)
    for axes, panel in zip(grid.ravel(), (panel for row in rows for panel in row), strict=True):
        axes.imshow(panel.values, cmap="magma", vmin=0, vmax=max(panel.largest, 1e-12), **pixels(axis))
        head(axes, panel.title)
        clean(axes)
    figure.supxlabel("seconds from the R peak", fontsize=8)
    figure.supylabel("Hz", fontsize=8)
    return figure


def pixels(axis: Mapping[str, np.ndarray]) -> dict[str, object]:
    """Options of `imshow`: the pixels cover the image whose frames `time_s` and rows `frequency_hz` are the centres of.

    A map may have fewer pixels than that.
    """
    edges: list[float] = []
    for centres in (axis["time_s"], axis["frequency_hz"]):
        half = (centres[1] - centres[0]) / 2
        edges += [float(centres[0] - half), float(centres[-1] + half)]
    return {"extent": tuple(edges), "origin": "lower", "aspect": "auto", "interpolation": "nearest"}
