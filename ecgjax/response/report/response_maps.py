"""Where in the beats' time-frequency images frozen encoders see the response, lead by lead: mean maps out of fold."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ecgjax.reports.page import Picture, Section
from ecgjax.reports.probe_figures import INK, clean
from ecgjax.reports.tables import Cell, Line, Table, fine, value_cell
from ecgjax.response.report.contenders import Contender, CrossValidated

_CAUTION = (
    "Grad-CAM of the readout of a frozen encoder, each patient's by a fit that did not see the patient, averaged over "
    "responders and over others: where in the image the answer hangs, not why hearts respond. Where maps of the two "
    "cannot be told apart (AUROC near .5), or an untrained encoder has the same ones, they show what all images have "
    "in common."
)


def response_maps_section(found: CrossValidated, names: Sequence[str]) -> list[Section]:
    """Figures of those of `names` that have maps, and how well maps tell the responders; nothing where none has."""
    chosen = [c for name in names if (c := found.find(name)) is not None and c.maps]
    if not chosen:
        return []
    lines = [Line((Cell(c.name), value_cell(c.told_apart, fine))) for c in chosen]
    table = Table("Maps of responders and of others", ("contender", "told apart, AUROC"), tuple(lines))
    pictures = [
        Picture(
            mean_map_figure(contender),
            f"{contender.name}: mean maps of responders (above) and others (below), in one scale; 0 s is the R peak.",
            f"Grad-CAM of the response, {contender.name}",
            vector=False,
        )
        for contender in chosen
    ]
    return [Section("Grad-CAM of the response", text=[_CAUTION], tables=[table], pictures=pictures)]


def mean_map_figure(contender: Contender) -> Figure:
    """A column a lead: the mean map of those who respond over that of those who do not."""
    maps = contender.maps
    sides = {"responders": maps["with"], "others": maps["without"]}
    leads = [str(lead) for lead in maps["leads"]]
    figure = Figure(figsize=(1.0 + 1.5 * len(leads), 3.6), layout="constrained")
    grid = figure.subplots(2, len(leads), squeeze=False, sharex=True, sharey=True)
    largest = max(float(np.max(found)) for found in sides.values())
    for row, (side, found) in zip(grid, sides.items(), strict=True):
        for axes, lead, one in zip(row, leads, found, strict=True):
            axes.imshow(one, cmap="magma", vmin=0, vmax=max(largest, 1e-12), **_extent(maps))
            axes.set_title(f"{lead}, {side}", fontsize=8, loc="left", color=INK)
            clean(axes)
    figure.supxlabel("seconds from the R peak", fontsize=8)
    figure.supylabel("Hz", fontsize=8)
    return figure


def _extent(maps: Mapping[str, np.ndarray]) -> dict[str, object]:
    """The few pixels of a map cover the image whose frames and rows the axes are of."""
    edges: list[float] = []
    for axis in (maps["time_s"], maps["frequency_hz"]):
        half = (axis[1] - axis[0]) / 2
        edges += [float(axis[0] - half), float(axis[-1] + half)]
    return {"extent": tuple(edges), "origin": "lower", "aspect": "auto", "interpolation": "nearest"}
