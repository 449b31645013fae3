"""Time-frequency image of one lead, made on the device, and the masks that training hides parts of it with."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.core.precision import wide
from ecgjax.core.spec import ImageSpec


def stft_image(
    x: Float[Array, "*b span"], image: ImageSpec
) -> Float[Array, "*b {image.bins} {image.frames}"]:
    """(log(|X| + log_eps) - mean) / std of X = rfft(w x) / sum(w), w a periodic Hann window.

    Frame i is centred on sample i * hop, zeros beyond the ends; a sinusoid of amplitude A at a bin has |X| = A / 2, as
    in scipy.signal.stft. Frequency first, the lowest first; never narrower than float32. `signals.stft` is its twin.
    """
    check_standardised(image)
    if x.shape[-1] != image.span:
        raise ValueError(f"{x.shape[-1]} samples; the image spans {image.span} (config.ecg.image.span).")
    return (jnp.log(_magnitude(wide(x), image) + image.log_eps) - image.mean) / image.std


def check_standardised(image: ImageSpec) -> None:
    """Raises where the image's mean and deviation have not been measured."""
    if image.mean is None or image.std is None:
        raise ValueError(
            "config.ecg.image has no mean and std, by which the image is standardised; `prepare` measures them over "
            "the train split of a data set and stores them in its manifest."
        )


def _magnitude(x: Float[Array, "*b span"], image: ImageSpec) -> Float[Array, "*b y x"]:
    """|X|, as a convolution with the windowed waves of the frequencies that are kept.

    An FFT would compute all n_fft / 2 + 1 frequencies of zero-padded windows, of which an image keeps a few: it takes
    several times as long on a CPU (tests/benchmarks/stft.py), and accelerators are better at products. The samples of
    a hop are the channels, so that none is copied and the product contracts more than one of them at a time.
    """
    rows = -(-image.win // image.hop)
    chunks = image.frames + rows - 1
    half = image.win // 2
    behind = max(chunks * image.hop - half - image.span, 0)
    padded = jnp.pad(x.reshape(-1, image.span), [(0, 0), (half, behind)])[:, : chunks * image.hop]
    waves = jax.lax.conv_general_dilated(
        padded.reshape(-1, chunks, image.hop),
        jnp.asarray(_waves(image).reshape(rows, image.hop, -1), x.dtype),
        window_strides=(1,),
        padding="VALID",
        dimension_numbers=("NHC", "HIO", "NHC"),
        precision=jax.lax.Precision.HIGHEST,  # The bfloat16 or TF32 of accelerators is noise at -50 dB.
    )
    power = jnp.square(waves[..., : image.bins]) + jnp.square(waves[..., image.bins :])
    # The root has no slope at 0, where flat lines are.
    magnitude = jnp.where(power > 0, jnp.sqrt(jnp.where(power > 0, power, 1)), 0)
    return magnitude.swapaxes(1, 2).reshape(*x.shape[:-1], image.bins, image.frames)


def _waves(image: ImageSpec) -> Float[np.ndarray, "samples waves"]:
    """Cosines, then sines, under the window of sum 1; zeros up to a whole number of hops."""
    time = np.arange(image.win)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * time / image.win)
    angle = 2 * np.pi * time[:, None] * np.arange(image.bins) / image.n_fft
    waves = np.concatenate([np.cos(angle), np.sin(angle)], axis=1) * (window / window.sum())[:, None]
    return np.pad(waves, [(0, -image.win % image.hop), (0, 0)])


def mask_bands(
    key: PRNGKeyArray, image: Float[Array, "b y x"], *, frequencies: int, times: int
) -> Float[Array, "b y x"]:
    """Sets one band of frequencies and one of times of every image to 0, the mean of standardised images.

    Their widths are uniform from none to `frequencies` and to `times`, their places uniform (SpecAugment, arXiv
    1904.08779, with one mask each and no warping).
    """
    key_y, key_x = jax.random.split(key)
    rows = _band(key_y, batch=len(image), size=image.shape[1], widest=frequencies)
    columns = _band(key_x, batch=len(image), size=image.shape[2], widest=times)
    return jnp.where(rows[:, :, None] | columns[:, None, :], 0, image)


def _band(key, *, batch, size, widest):
    key_width, key_start = jax.random.split(key)
    width = jax.random.randint(key_width, (batch, 1), 0, widest + 1)
    start = jax.random.randint(key_start, (batch, 1), 0, size - width + 1)
    place = jnp.arange(size)
    return (place >= start) & (place < start + width)


class LeadImage(nnx.Module):
    """What an encoder of time-frequency images begins with: the image of one lead and, in training, masks.

    It has no parameters. `mask_frequencies` and `mask_times` are the widest bands that `mask_bands` hides, in pixels.
    """

    def __init__(
        self, *, leads: int, length: int, image: ImageSpec, mask_frequencies: int = 0, mask_times: int = 0
    ):
        if leads != 1:
            raise ValueError(
                f"the data have {leads} leads, the image is that of one; prepare one, or read several through an "
                f"encoder 'leadwise'."
            )
        if length != image.span:
            raise ValueError(
                f"the image spans {image.span} samples, the encoder is given {length}; set config.data.crop to "
                f"{image.span}."
            )
        for name, value, size in (
            ("mask_frequencies", mask_frequencies, image.bins),
            ("mask_times", mask_times, image.frames),
        ):
            if not 0 <= value < size:
                raise ValueError(
                    f"{name} is {value}; it must be at least 0 and below the {size} of the image."
                )
        check_standardised(image)
        self.image, self.mask_frequencies, self.mask_times = image, mask_frequencies, mask_times

    def __call__(
        self, x: Float[Array, "b 1 span"], *, train: bool, key: PRNGKeyArray | None
    ) -> Float[Array, "b y x"]:
        """Makes the images; masks them in training, drawn with `key`."""
        image = stft_image(x[:, 0], self.image)
        if not (train and (self.mask_frequencies or self.mask_times)):
            return image
        return mask_bands(key, image, frequencies=self.mask_frequencies, times=self.mask_times)
