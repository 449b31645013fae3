"""Where in the beats' time-frequency images frozen encoders see the response, lead by lead: mean maps out of fold."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ecgjax.reports.page import Picture, Section
from ecgjax.reports.tables import Cell, Line, Table, fine, value_cell
from ecgjax.response.report.contenders import Contender, CrossValidated
from ecgjax.response.report.map_grid import Panel, map_grid

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
    largest = max(float(np.max(found)) for found in sides.values())
    rows = [
        [Panel(f"{lead}, {side}", one, largest) for lead, one in zip(leads, found, strict=True)]
        for side, found in sides.items()
    ]
    return map_grid(rows, maps, inches=(1.0 + 1.5 * len(leads), 3.6))
