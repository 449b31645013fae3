"""CMR frames as strips: one row a subject, one column a frame."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

WINDOW_PERCENTILE = 99.0
INCHES = 1.6


def cine_figure(
    frames: Float[np.ndarray, "n f y x"], *, row_names: Sequence[str] = (), frame_names: Sequence[str] = ()
) -> Figure:
    """Grey images of n subjects; every row has its own window, black at 0, white at its 99th percentile."""
    rows, columns = frames.shape[:2]
    for names, count, what in ((row_names, rows, "rows"), (frame_names, columns, "frames")):
        if names and len(names) != count:
            raise ValueError(f"{len(names)} names for {count} {what}; give one name each, or none.")
    figure = Figure(figsize=(columns * INCHES, rows * (INCHES + (0.22 if row_names else 0))), dpi=110)
    grid = figure.subplots(rows, columns, squeeze=False)
    for row, images in enumerate(frames):
        white = np.percentile(images, WINDOW_PERCENTILE)
        for column, image in enumerate(images):
            axes = grid[row, column]
            axes.imshow(image, cmap="gray", vmin=0, vmax=white, interpolation="bilinear")
            axes.set_axis_off()
            if frame_names:
                axes.text(
                    0.03, 0.04, frame_names[column], color="white", fontsize=7, transform=axes.transAxes
                )
        if row_names:
            grid[row, 0].set_title(row_names[row], fontsize=7, loc="left", pad=2)
    figure.subplots_adjust(
        left=0, right=1, bottom=0, top=0.97, wspace=0.02, hspace=0.16 if row_names else 0.02
    )
    return figure
