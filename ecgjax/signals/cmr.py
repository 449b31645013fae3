"""CMR conditioning: the three frames of the middle slice, and a fixed grid in millimetres."""

import numpy as np
from jaxtyping import Float, Float32, Float64, Shaped

from ecgjax.signals.quality import QualityError

FRAMES = ("ES", "mid", "ED")
"""Channels of a conditioned CMR, in order."""


def three_phases(
    intensity: Shaped[np.ndarray, "frame slice y x"],
    *,
    ed: int,
    es: int,
    clip_percentile: float = 99.0,
    min_slices: int = 8,
) -> Float32[np.ndarray, "y x 3"]:
    """End-systole, the frame halfway to it, and end-diastole of slice n // 2, in [0, 1].

    "Halfway" goes forward in the cycle from ED to ES, rounding down; with ED at frame 0 that is the
    reference's ES // 2. Intensities are divided by the `clip_percentile`-th percentile of the whole volume
    and clipped to [0, 1]; the reference clips its middle frame alone, at that percentile, and does not say
    how it scales. `min_slices` 8 drops what the reference drops; set 1 where a cohort stores one slice.
    Raises QualityError ("nan", "flat", "slices", "phases").
    """
    frames, slices = intensity.shape[:2]
    if not 0 < clip_percentile <= 100:
        raise ValueError(f"clip_percentile is {clip_percentile}, must be above 0 and at most 100.")
    if 0 in intensity.shape:
        raise QualityError("flat", f"the volume of shape {intensity.shape} is empty")
    if slices < min_slices:
        raise QualityError(
            "slices", f"{slices} slices, at least {min_slices} are needed to trust the middle one"
        )
    if not (0 <= ed < frames and 0 <= es < frames) or ed == es:
        raise QualityError(
            "phases", f"ED frame {ed} and ES frame {es} must differ and lie in 0 to {frames - 1}"
        )
    if not np.isfinite(intensity).all():
        raise QualityError("nan", f"{(~np.isfinite(intensity)).sum()} voxels are not finite")
    top = float(np.percentile(intensity, clip_percentile))
    if intensity.min() == intensity.max() or top <= 0:
        raise QualityError(
            "flat", f"percentile {clip_percentile} of the volume is {top}: there is no image in it"
        )
    mid = (ed + (es - ed) % frames // 2) % frames
    image = np.stack([intensity[frame, slices // 2] for frame in (es, mid, ed)], axis=-1)
    image = np.clip(image.astype(np.float64) / top, 0, 1).astype(np.float32)
    if image.min() == image.max():
        raise QualityError("flat", f"the middle slice {slices // 2} is {image.min()} throughout")
    return image


def to_grid(
    image: Float[np.ndarray, "y x c"],
    spacing_mm: tuple[float, float],
    *,
    pixel_mm: float,
    height: int,
    width: int,
) -> Float32[np.ndarray, "height width c"]:
    """Brings an image to `height` x `width` pixels of `pixel_mm` about its centre; outside its field is 0.

    `spacing_mm` is (row, column). Shrinking averages over the area of the new pixel, exactly the block mean
    where the ratio is an integer that divides the size; enlarging interpolates linearly. Values stay in the
    range of the input and 0. Where an odd number of pixels is cropped or padded, the extra one is at the end.
    """
    if min(*spacing_mm, pixel_mm) <= 0 or min(height, width) <= 0:
        raise ValueError(
            f"spacing_mm {spacing_mm}, pixel_mm {pixel_mm}, height {height}, width {width} must be above 0."
        )
    rows = _axis_weights(image.shape[0], spacing_mm[0], height, pixel_mm)
    columns = _axis_weights(image.shape[1], spacing_mm[1], width, pixel_mm)
    return np.einsum("hy,yxc,wx->hwc", rows, image, columns, optimize=True).astype(np.float32)


def _axis_weights(
    size: int, spacing: float, out_size: int, out_spacing: float
) -> Float64[np.ndarray, "out in"]:
    """Weights of input pixels in every output pixel along one axis."""
    ratio = out_spacing / spacing  # Input pixels in an output pixel.
    if abs(ratio - round(ratio)) < 1e-6 * ratio:
        ratio = round(ratio)  # Headers round millimetres; 0.9999999 is meant to be 1.
    whole = max(int(size / ratio + 1e-6), 1)  # Output pixels that the field of view holds.
    first = (out_size - whole) // 2  # Of them, the first lies here; negative crops.
    start = (size - whole * ratio) / 2 + (np.arange(out_size) - first) * ratio
    if ratio >= 1:
        cell = np.arange(size)
        overlap = np.minimum(start[:, None] + ratio, cell + 1) - np.maximum(start[:, None], cell)
        weights = np.clip(overlap, 0, None) / ratio
    else:
        centre = start + ratio / 2 - 0.5
        inside = (start > -ratio / 2) & (start + ratio / 2 < size)
        # Half a pixel beyond the outermost centres repeats their value.
        centre = np.clip(centre, 0, size - 1)
        weights = np.clip(1 - np.abs(centre[:, None] - np.arange(size)), 0, None) * inside[:, None]
    return np.where(weights < 1e-9, 0.0, weights)
