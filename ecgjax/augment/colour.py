"""Random changes of an image's values in [0, 1], channels last; mapped over the batch by `views`.

Luma treats the three heart phases as red, green and blue, as the reference does; what needs it refuses other images.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ecgjax.core.precision import wide

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in brightness."""


def colour_jitter(
    key: PRNGKeyArray,
    image: Float[Array, "y x c"],
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    probability: float = 1.0,
) -> Float[Array, "y x c"]:
    """Blends the image with black, its mean luma and its luma, in random order, clamping to [0, 1] each time.

    Each factor is U(1 - strength, 1 + strength); 1 leaves the image as it is. With `1 - probability` nothing
    happens.
    """
    key_order, key_factor, key_gate = jax.random.split(key, 3)
    strength = jnp.array([brightness, contrast, saturation], wide(image).dtype)
    factors = 1 + strength * jax.random.uniform(key_factor, (3,), strength.dtype, minval=-1.0)
    changed = colour_jitter_by(image, factors, jax.random.permutation(key_order, 3))
    if probability == 1:
        return changed
    return jnp.where(jax.random.bernoulli(key_gate, probability), changed, image)


def colour_jitter_by(
    image: Float[Array, "y x c"], factors: Float[Array, "3"], order: Int[Array, "3"]
) -> Float[Array, "y x c"]:
    """Applies brightness (0), contrast (1) and saturation (2) with their `factors` in `order`."""
    _check_channels(image, "colour jitter")

    def step(image, operation):
        luma = _luma(image)
        # What the image is blended with tells the three operations apart.
        other = jnp.where(operation == 0, 0, jnp.where(operation == 1, luma.mean(), luma))
        factor = factors[operation]
        return jnp.clip(factor * image + (1 - factor) * other[..., None], 0, 1), None

    # A loop keeps XLA from fusing, and so repeating, whatever made the image into each of its readers.
    return jax.lax.scan(step, wide(image), order)[0].astype(image.dtype)


def grayscale(
    key: PRNGKeyArray, image: Float[Array, "y x c"], *, probability: float
) -> Float[Array, "y x c"]:
    """Replaces every channel by the luma with `probability`."""
    _check_channels(image, "grayscale")
    gray = jnp.broadcast_to(_luma(wide(image))[..., None], image.shape).astype(image.dtype)
    return jnp.where(jax.random.bernoulli(key, probability), gray, image)


def _luma(image):
    return jnp.matmul(image, jnp.array(LUMA, image.dtype), precision=jax.lax.Precision.HIGHEST)


def _check_channels(image, name):
    if image.shape[-1] != 3:
        raise ValueError(
            f"{name} needs 3 channels, the image has {image.shape[-1]}; choose a preset without colour"
            " (weak), or brightness_contrast."
        )


def brightness_contrast(
    key: PRNGKeyArray, image: Float[Array, "y x c"], *, brightness: float, contrast: float
) -> Float[Array, "y x c"]:
    """Scales the image about its own mean and then as a whole, clamping once to [0, 1]; any channels.

    Factors are U(1 - strength, 1 + strength). Cheaper than `colour_jitter`: one mean, one pass.
    """
    values = wide(image)
    factors = jax.random.uniform(key, (2,), values.dtype, minval=-1.0)
    bright, stretch = 1 + brightness * factors[0], 1 + contrast * factors[1]
    mean = values.mean()
    return jnp.clip(bright * (mean + stretch * (values - mean)), 0, 1).astype(image.dtype)


def gaussian_blur(
    key: PRNGKeyArray,
    image: Float[Array, "y x c"],
    *,
    kernel: int = 29,
    deviation: tuple[float, float] = (0.1, 2.0),
    probability: float = 1.0,
) -> Float[Array, "y x c"]:
    """Blurs with `probability` by a Gaussian of U(deviation) pixels, cut to `kernel` pixels."""
    key_gate, key_deviation = jax.random.split(key)
    low, high = deviation
    drawn = jax.random.uniform(key_deviation, (), wide(image).dtype, minval=low, maxval=high)
    blurred = gaussian_blur_by(image, drawn, kernel=kernel)
    if probability == 1:
        return blurred
    return jnp.where(jax.random.bernoulli(key_gate, probability), blurred, image)


def gaussian_blur_by(
    image: Float[Array, "y x c"], deviation: Float[Array, ""], *, kernel: int
) -> Float[Array, "y x c"]:
    """Blurs by a Gaussian of `deviation` pixels, cut to `kernel` pixels; edges are mirrored."""
    height, width, _ = image.shape
    half = kernel // 2
    if kernel % 2 == 0 or half >= min(height, width):
        raise ValueError(
            f"blur with a kernel of {kernel} pixels on an image of {height} x {width}; choose an odd kernel"
            " of less than twice the side."
        )
    rows, columns = (_blur_matrix(size, deviation, half) for size in (height, width))
    # One kernel per image would be a grouped convolution, which is slow everywhere.
    out = jnp.einsum("vy,yxc,wx->vwc", rows, wide(image), columns, precision=jax.lax.Precision.HIGHEST)
    return out.astype(image.dtype)


def _blur_matrix(size, deviation, half):
    to, source = jnp.arange(size)[:, None], jnp.arange(size)

    def weight(offset, counts):
        near = counts & (jnp.abs(offset) <= half)
        return jnp.where(near, jnp.exp(-0.5 * (offset / deviation) ** 2), 0)

    # A pixel also stands for its mirror images beyond either edge; the edge pixel itself is not repeated.
    total = (
        weight(to - source, True)
        + weight(to + source, source > 0)
        + weight(2 * (size - 1) - to - source, source < size - 1)
    )
    return total / weight(jnp.arange(-half, half + 1), True).sum()


def random_gamma(
    key: PRNGKeyArray, image: Float[Array, "..."], *, exponent: tuple[float, float] = (0.25, 1.75)
) -> Float[Array, "..."]:
    """Raises the values to the power U(exponent), keeping their signs."""
    low, high = exponent
    drawn = jax.random.uniform(key, (), wide(image).dtype, minval=low, maxval=high)
    return gamma_by(image, drawn)


def gamma_by(image: Float[Array, "..."], exponent: Float[Array, ""]) -> Float[Array, "..."]:
    """Raises the values to the power `exponent`, keeping their signs."""
    values = wide(image)
    return (jnp.sign(values) * jnp.abs(values) ** exponent).astype(image.dtype)
