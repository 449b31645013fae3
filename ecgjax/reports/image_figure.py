"""Time-frequency images with their axes in seconds and hertz."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from ecgjax.core.spec import ImageSpec


def image_figure(
    images: Float[np.ndarray, "n l y x"],
    *,
    spec: ImageSpec,
    rate_hz: float,
    row_names: Sequence[str],
    leads: Sequence[str],
) -> Figure:
    """A row an example and a column a lead, low frequencies below; one scale of colours for all."""
    if images.shape[:2] != (len(row_names), len(leads)):
        raise ValueError(
            f"{images.shape[:2]} images for {len(row_names)} names of rows and {len(leads)} leads; give one each."
        )
    rows, columns = images.shape[:2]
    figure = Figure(figsize=(0.6 + 3.2 * columns, 0.4 + 2.4 * rows), dpi=110, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    half_hop, half_bin = spec.hop / rate_hz / 2, rate_hz / spec.n_fft / 2
    extent = (-half_hop, (2 * spec.frames - 1) * half_hop, -half_bin, (2 * spec.bins - 1) * half_bin)
    low, high = np.percentile(images, (1, 99))
    for row, name in enumerate(row_names):
        for column, lead in enumerate(leads):
            axes = grid[row, column]
            shown = axes.imshow(
                images[row, column], origin="lower", aspect="auto", extent=extent, vmin=low, vmax=high
            )
            axes.set_title(f"{name}, {lead}" if name else lead, fontsize=9, loc="left")
            axes.set_xlabel("time / s", fontsize=8)
            axes.set_ylabel("frequency / Hz", fontsize=8)
            axes.tick_params(labelsize=7)
    figure.colorbar(shown, ax=grid, label="log amplitude, standardised", shrink=0.6)
    return figure
