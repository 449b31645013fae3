"""Sine-cosine positions of lead x time patches, and their change to another number of time columns."""

import numpy as np
from jaxtyping import Float


def sincos_positions(
    *, leads: int, columns: int, width: int, frequencies: str = "float64"
) -> Float[np.ndarray, "n d"]:
    """Table with a zero row for the class token, then lead-major tokens.

    The first half of the width encodes the time column, the second half the lead; each half holds sines,
    then cosines of position / 10000^(i / (width / 4)). The release that made the published weights computes in
    float64, the newest one in float32 (up to 1.5e-6 away); the table is float32 either way.
    """
    if width % 4:
        raise ValueError(f"width {width} is not a multiple of 4; two axes of sines and cosines need that.")
    lead, column = np.divmod(np.arange(leads * columns), columns)
    halves = [_encode(axis, width // 2, frequencies) for axis in (column, lead)]
    return _with_class_row(np.concatenate(halves, axis=1))


def _encode(position, width, precision):
    if precision not in ("float64", "float32"):
        raise ValueError(f"unknown frequencies {precision!r}; choose from float64, float32.")
    frequency = 1 / 10000 ** (np.arange(width // 2, dtype=precision) / (width / 2))
    angle = position[:, None].astype(precision) * frequency
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def _with_class_row(table):
    return np.concatenate([np.zeros((1, table.shape[1])), table]).astype(np.float32)


def resize_positions(
    table: Float[np.ndarray, "n d"], *, leads: int, columns: int
) -> Float[np.ndarray, "n_new d"]:
    """Interpolates the time axis of a table with class row to `columns`: bicubic, half-pixel centres.

    The cubic kernel has a = -0.75 and is not widened when shrinking, as in torch's bicubic mode.
    """
    old = (len(table) - 1) // leads
    if old * leads != len(table) - 1:
        raise ValueError(f"{len(table) - 1} positions are not a whole number of columns for {leads} leads.")
    if old == columns:
        return table
    grid = table[1:].reshape(leads, old, -1)
    resized = np.einsum("co,lod->lcd", _bicubic_weights(old, columns), grid)
    return np.concatenate([table[:1], resized.reshape(leads * columns, -1)]).astype(table.dtype)


def _bicubic_weights(old, new, a=-0.75):
    # torch holds scale and coordinates in float32, in any precision of the table: up to 5e-6 in the result.
    scale = float(np.float32(old / new))
    source = ((np.arange(new) + 0.5) * scale - 0.5).astype(np.float32).astype(np.float64)
    first = np.floor(source).astype(int) - 1
    weights = np.zeros((new, old))
    for tap in range(4):
        x = np.abs(source - (first + tap))
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        far = a * (x**3 - 5 * x**2 + 8 * x - 4)
        column = np.clip(first + tap, 0, old - 1)  # Edges repeat.
        np.add.at(weights, (np.arange(new), column), np.where(x <= 1, near, far))
    return weights
