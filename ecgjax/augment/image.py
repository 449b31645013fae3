"""Random changes of where an image's pixels lie, channels last; mapped over the batch by `views`."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ecgjax.core.precision import wide

HEART = (0.21, 0.325, 0.375)
"""Top, left and side of the heart's box, as shares of the height, the width and both: the reference's crop."""


def horizontal_flip(
    key: PRNGKeyArray, image: Float[Array, "y x c"], *, probability: float
) -> Float[Array, "y x c"]:
    """Mirrors left and right with `probability`."""
    return jnp.where(jax.random.bernoulli(key, probability), image[:, ::-1], image)


def rotate(
    key: PRNGKeyArray, image: Float[Array, "y x c"], *, degrees: float, probability: float = 1.0
) -> Float[Array, "y x c"]:
    """Rotates about the centre by U(-degrees, degrees): nearest pixel, what enters from outside is 0."""
    key_gate, key_angle = jax.random.split(key)
    angle = _draw_angle(image, key_angle, degrees)
    if probability < 1:
        angle = jnp.where(jax.random.bernoulli(key_gate, probability), angle, 0)
    return rotate_by(image, angle)


def rotate_by(image: Float[Array, "y x c"], angle: Float[Array, ""]) -> Float[Array, "y x c"]:
    """Rotates anticlockwise about the centre by `angle` (radians): nearest pixel, zeros from outside."""
    return sample_nearest(image, *source_grid(image.shape, angle=angle))


def random_affine(
    key: PRNGKeyArray, image: Float[Array, "y x c"], *, degrees: float, shift: float, scale: float
) -> Float[Array, "y x c"]:
    """Rotates, shifts and scales at once, in one bilinear resampling; what enters from outside is 0.

    Angle U(-degrees, degrees), shift U(-shift, shift) of the size on each axis, magnification
    U(1 - scale, 1 + scale).
    """
    key_angle, key_shift, key_scale = jax.random.split(key, 3)
    dtype = wide(image).dtype
    offset = jax.random.uniform(key_shift, (2,), dtype, minval=-shift, maxval=shift)
    magnification = jax.random.uniform(key_scale, (), dtype, minval=1 - scale, maxval=1 + scale)
    angle = _draw_angle(image, key_angle, degrees)
    grid = source_grid(image.shape, angle=angle, shift=offset, magnification=magnification)
    return sample_bilinear(image, *grid)


def _draw_angle(image, key, degrees):
    return jnp.deg2rad(jax.random.uniform(key, (), wide(image).dtype, minval=-degrees, maxval=degrees))


def source_grid(
    shape: tuple[int, int, int],
    *,
    angle: Float[Array, ""],
    shift: Float[Array, "2"] | None = None,
    magnification: Float[Array, ""] | None = None,
) -> tuple[Float[Array, "y x"], Float[Array, "y x"]]:
    """Source row and column of each pixel after rotation (anticlockwise), scaling, then shift (y, x)."""
    height, width, _ = shape
    row = jnp.arange(height)[:, None] - (height - 1) / 2
    column = jnp.arange(width)[None] - (width - 1) / 2
    if shift is not None:
        row, column = row - shift[0] * height, column - shift[1] * width
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    if magnification is not None:
        sine, cosine = sine / magnification, cosine / magnification
    return (
        cosine * row + sine * column + (height - 1) / 2,
        cosine * column - sine * row + (width - 1) / 2,
    )


def sample_nearest(
    image: Float[Array, "y x c"], row: Float[Array, "y2 x2"], column: Float[Array, "y2 x2"]
) -> Float[Array, "y2 x2 c"]:
    """Nearest pixel at each position; 0 outside."""
    return _pixel(image, jnp.round(row).astype(jnp.int32), jnp.round(column).astype(jnp.int32))


def sample_bilinear(
    image: Float[Array, "y x c"], row: Float[Array, "y2 x2"], column: Float[Array, "y2 x2"]
) -> Float[Array, "y2 x2 c"]:
    """Bilinear interpolation at each position; pixels outside count as 0."""
    top, left = jnp.floor(row), jnp.floor(column)
    down, right = (row - top)[..., None], (column - left)[..., None]
    # One border of zeros serves all four taps, so that only the first needs its index checked.
    height, width, channels = image.shape
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0))).reshape(-1, channels)
    top = jnp.clip(top.astype(jnp.int32) + 1, 0, height)
    left = jnp.clip(left.astype(jnp.int32) + 1, 0, width)
    first = top * (width + 2) + left
    inside = ((row > -1) & (row < height) & (column > -1) & (column < width))[..., None]

    def tap(offset):
        return padded.at[first + offset].get(mode="promise_in_bounds")

    upper = tap(0) * (1 - right) + tap(1) * right
    lower = tap(width + 2) * (1 - right) + tap(width + 3) * right
    return jnp.where(inside, upper * (1 - down) + lower * down, 0).astype(image.dtype)


def _pixel(image, row: Int[Array, "y x"], column: Int[Array, "y x"]):
    height, width, channels = image.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
    values = image.reshape(-1, channels).at[index].get(mode="promise_in_bounds")
    return jnp.where(inside[..., None], values, 0)


def random_resized_crop(
    key: PRNGKeyArray,
    image: Float[Array, "y x c"],
    *,
    area: tuple[float, float],
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    tries: int = 10,
) -> Float[Array, "y x c"]:
    """Cuts a random box and brings it to full size.

    Share of the area U(area), log of width over height U(log ratio); the first of `tries` boxes that fits is
    taken, else the largest central one of permitted ratio.
    """
    height, width, _ = image.shape
    keys, dtype = jax.random.split(key, 4), wide(image).dtype
    share = jax.random.uniform(keys[0], (tries,), dtype, minval=area[0], maxval=area[1])
    log_ratio = jax.random.uniform(
        keys[1], (tries,), dtype, minval=math.log(ratio[0]), maxval=math.log(ratio[1])
    )
    widths = jnp.round(jnp.sqrt(share * height * width * jnp.exp(log_ratio)))
    heights = jnp.round(jnp.sqrt(share * height * width * jnp.exp(-log_ratio)))
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    first, found = jnp.argmax(fits), fits.any()
    central_height, central_width = _largest_box(height, width, ratio)
    box_height = jnp.where(found, heights[first], central_height)
    box_width = jnp.where(found, widths[first], central_width)
    top = jnp.floor(jax.random.uniform(keys[2], (), dtype) * (height - box_height + 1))
    left = jnp.floor(jax.random.uniform(keys[3], (), dtype) * (width - box_width + 1))
    top = jnp.where(found, top, (height - central_height) // 2)
    left = jnp.where(found, left, (width - central_width) // 2)
    return resize_box(image, top=top, left=left, high=box_height, wide=box_width)


def _largest_box(height, width, ratio):
    if width / height < ratio[0]:
        return round(width / ratio[0]), width
    if width / height > ratio[1]:
        return height, round(height * ratio[1])
    return height, width


def resize_box(
    image: Float[Array, "y x c"],
    *,
    top: Float[Array, ""],
    left: Float[Array, ""],
    high: Float[Array, ""],
    wide: Float[Array, ""],
) -> Float[Array, "y x c"]:
    """Bilinear resize of a box of whole pixels to the size of the image: half-pixel centres, edges repeat."""
    height, width, _ = image.shape
    rows = _resize_rows(image, start=top, length=high, size=height)
    both = _resize_rows(rows.swapaxes(0, 1), start=left, length=wide, size=width).swapaxes(0, 1)
    return both.astype(image.dtype)


def _resize_rows(image, *, start, length, size):
    source = jnp.clip((jnp.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    lower = jnp.floor(source)
    weight = (source - lower)[:, None, None]
    upper = jnp.minimum(lower + 1, length - 1)
    image = wide(image)
    low = image[(start + lower).astype(jnp.int32)]
    high = image[(start + upper).astype(jnp.int32)]
    return low * (1 - weight) + high * weight


def roi(
    image: Float[Array, "*b y x c"], *, box: tuple[float, float, float] = HEART
) -> Float[Array, "*b y x c"]:
    """Cuts a fixed box and brings it to full size; `box` is top, left and side as shares, rounded down.

    The same for every image, in training and in validation: 44, 68 and 78 of 210 pixels, which presumes that the
    heart lies there, as in the reference.
    """
    height, width = image.shape[-3:-1]
    top, left, box_height, box_width = (
        int(share * size)
        for share, size in zip((box[0], box[1], box[2], box[2]), (height, width) * 2, strict=True)
    )
    inside = 0 <= top <= height - box_height and 0 <= left <= width - box_width
    if not inside or not box_height or not box_width:
        raise ValueError(f"box {box} of an image of {height} x {width}; choose shares that stay inside.")
    return resize(image[..., top : top + box_height, left : left + box_width, :], height=height, width=width)


def resize(image: Float[Array, "*b y x c"], *, height: int, width: int) -> Float[Array, "*b y2 x2 c"]:
    """Bilinear resize: half-pixel centres, edges repeat, no smoothing before a reduction."""
    rows, columns = (
        jnp.asarray(_weights(old, new), wide(image).dtype)
        for old, new in zip(image.shape[-3:-1], (height, width), strict=True)
    )
    # Fixed weights: two matrix products, where a random box needs gathers.
    out = jnp.einsum("vy,...yxc,wx->...vwc", rows, wide(image), columns, precision=jax.lax.Precision.HIGHEST)
    return out.astype(image.dtype)


def _weights(old, new):
    source = np.clip((np.arange(new)[:, None] + 0.5) * old / new - 0.5, 0, old - 1)
    return np.maximum(0, 1 - np.abs(source - np.arange(old)))
