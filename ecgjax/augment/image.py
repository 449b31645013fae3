"""Random changes of one image in [0, 1], channels last; mapped over the batch by `views`.

Colour operations treat the three heart phases as red, green and blue, as the reference does.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in brightness."""


def horizontal_flip(
    key: PRNGKeyArray, image: Float[Array, "y x c"], *, probability: float
) -> Float[Array, "y x c"]:
    """Mirrors left and right with `probability`."""
    return jnp.where(jax.random.bernoulli(key, probability), image[:, ::-1], image)


def rotate(key: PRNGKeyArray, image: Float[Array, "y x c"], *, degrees: float) -> Float[Array, "y x c"]:
    """Rotates about the centre by U(-degrees, degrees): nearest pixel, what enters from outside is 0."""
    angle = jnp.deg2rad(jax.random.uniform(key, (), minval=-degrees, maxval=degrees))
    return sample_nearest(image, *source_grid(image.shape, angle=angle))


def random_affine(
    key: PRNGKeyArray, image: Float[Array, "y x c"], *, degrees: float, shift: float, scale: float
) -> Float[Array, "y x c"]:
    """Rotates, shifts and scales at once, in one bilinear resampling; what enters from outside is 0.

    Angle U(-degrees, degrees), shift U(-shift, shift) of the size on each axis, magnification
    U(1 - scale, 1 + scale).
    """
    key_angle, key_shift, key_scale = jax.random.split(key, 3)
    angle = jnp.deg2rad(jax.random.uniform(key_angle, (), minval=-degrees, maxval=degrees))
    offset = jax.random.uniform(key_shift, (2,), minval=-shift, maxval=shift)
    magnification = jax.random.uniform(key_scale, (), minval=1 - scale, maxval=1 + scale)
    grid = source_grid(image.shape, angle=angle, shift=offset, magnification=magnification)
    return sample_bilinear(image, *grid)


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
    return jnp.where(inside, upper * (1 - down) + lower * down, 0)


def _pixel(image, row: Int[Array, "y x"], column: Int[Array, "y x"]):
    height, width, channels = image.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
    values = image.reshape(-1, channels).at[index].get(mode="promise_in_bounds")
    return jnp.where(inside[..., None], values, 0)


def colour_jitter(
    key: PRNGKeyArray,
    image: Float[Array, "y x 3"],
    *,
    brightness: float,
    contrast: float,
    saturation: float,
) -> Float[Array, "y x 3"]:
    """Blends the image with black, its mean luma and its luma, in random order, clamping to [0, 1] each time.

    Each factor is U(1 - strength, 1 + strength); 1 leaves the image as it is.
    """
    key_order, key_factor = jax.random.split(key)
    strength = jnp.array([brightness, contrast, saturation])
    factors = 1 + strength * jax.random.uniform(key_factor, (3,), minval=-1.0)
    return colour_jitter_by(image, factors, jax.random.permutation(key_order, 3))


def colour_jitter_by(
    image: Float[Array, "y x 3"], factors: Float[Array, "3"], order: Int[Array, "3"]
) -> Float[Array, "y x 3"]:
    """Applies brightness (0), contrast (1) and saturation (2) with their `factors` in `order`."""

    def step(image, operation):
        luma = image @ jnp.array(LUMA, image.dtype)
        # What the image is blended with tells the three operations apart.
        other = jnp.where(operation == 0, 0, jnp.where(operation == 1, luma.mean(), luma))
        factor = factors[operation]
        return jnp.clip(factor * image + (1 - factor) * other[..., None], 0, 1), None

    # A loop keeps XLA from fusing, and so repeating, whatever made the image into each of its readers.
    return jax.lax.scan(step, image, order)[0]


def brightness_contrast(
    key: PRNGKeyArray, image: Float[Array, "y x c"], *, brightness: float, contrast: float
) -> Float[Array, "y x c"]:
    """Scales the image about its own mean and then as a whole, clamping once to [0, 1]; any channels.

    Factors are U(1 - strength, 1 + strength). Cheaper than `colour_jitter`: one mean, one pass.
    """
    factors = jax.random.uniform(key, (2,), minval=-1.0)
    bright, stretch = 1 + brightness * factors[0], 1 + contrast * factors[1]
    mean = image.mean()
    return jnp.clip(bright * (mean + stretch * (image - mean)), 0, 1)


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
    keys = jax.random.split(key, 4)
    share = jax.random.uniform(keys[0], (tries,), minval=area[0], maxval=area[1])
    log_ratio = jax.random.uniform(keys[1], (tries,), minval=math.log(ratio[0]), maxval=math.log(ratio[1]))
    wide = jnp.round(jnp.sqrt(share * height * width * jnp.exp(log_ratio)))
    high = jnp.round(jnp.sqrt(share * height * width * jnp.exp(-log_ratio)))
    fits = (wide >= 1) & (wide <= width) & (high >= 1) & (high <= height)
    first, found = jnp.argmax(fits), fits.any()
    central_high, central_wide = _largest_box(height, width, ratio)
    high = jnp.where(found, high[first], central_high)
    wide = jnp.where(found, wide[first], central_wide)
    top = jnp.floor(jax.random.uniform(keys[2]) * (height - high + 1))
    left = jnp.floor(jax.random.uniform(keys[3]) * (width - wide + 1))
    top = jnp.where(found, top, (height - central_high) // 2)
    left = jnp.where(found, left, (width - central_wide) // 2)
    return resize_box(image, top=top, left=left, high=high, wide=wide)


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
    return _resize_rows(rows.swapaxes(0, 1), start=left, length=wide, size=width).swapaxes(0, 1)


def _resize_rows(image, *, start, length, size):
    source = jnp.clip((jnp.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    lower = jnp.floor(source)
    weight = (source - lower)[:, None, None]
    upper = jnp.minimum(lower + 1, length - 1)
    low = image[(start + lower).astype(jnp.int32)]
    high = image[(start + upper).astype(jnp.int32)]
    return low * (1 - weight) + high * weight
