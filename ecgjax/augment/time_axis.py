"""Random changes of when an ECG's samples come: crops, shifts, masked windows, interpolation.

Each function changes one record; a function that ends in `_by` takes the draws instead of a key.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ecgjax.core.precision import wide


def random_crop(key: PRNGKeyArray, ecg: Float[Array, "l t"], *, length: int) -> Float[Array, "l t2"]:
    """Cuts `length` samples from a uniformly random start.

    Every start that fits can be drawn; the reference never draws the last one.
    """
    time = ecg.shape[1]
    if length > time:
        raise ValueError(f"crop of {length} samples from an ECG of {time}; choose a crop of at most {time}.")
    return crop(ecg, jax.random.randint(key, (), 0, time - length + 1), length=length)


def crop(ecg: Float[Array, "l t"], start: Int[Array, ""], *, length: int) -> Float[Array, "l t2"]:
    """Cuts `length` samples from `start`."""
    return jax.lax.dynamic_slice_in_dim(ecg, start, length, axis=1)


def crop_resize(
    key: PRNGKeyArray, ecg: Float[Array, "l t"], *, share: tuple[float, float] = (0.75, 0.75)
) -> Float[Array, "l t"]:
    """Cuts int(T U(share)) samples from a uniformly random start, and stretches them to T.

    Every start that fits can be drawn; the reference never draws the last one.
    """
    if not 0 < share[0] <= share[1] <= 1:
        raise ValueError(f"crop to a share in {share}; choose 0 < lower <= upper <= 1.")
    time = ecg.shape[1]
    if int(time * share[0]) < 1:
        raise ValueError(f"crop to a share of {share[0]} of {time} samples leaves none; choose a larger one.")
    key_share, key_start = jax.random.split(key)
    lower, upper = share
    drawn = jax.random.uniform(key_share, (), wide(ecg).dtype, minval=lower, maxval=upper)
    # Rounding may end just beside the bounds, where a whole number of samples begins.
    length = jnp.clip(jnp.floor(time * drawn).astype(jnp.int32), int(time * lower), int(time * upper))
    start = jax.random.randint(key_start, (), 0, time - length + 1)
    return crop_resize_by(ecg, start, length, size=time)


def crop_resize_by(
    ecg: Float[Array, "l t"], start: Int[Array, ""], length: Int[Array, ""], *, size: int
) -> Float[Array, "l t2"]:
    """Interpolates linearly at `size` even places from `start` to `start + length`, both ends among them.

    The end lies one sample past the last one cut, whose value it takes, as in the reference.
    """
    if size < 2:
        raise ValueError(f"resize to {size} samples; choose 2 or more.")
    if size * ecg.shape[1] >= 2**31:
        raise ValueError(f"resize of {ecg.shape[1]} to {size} samples; choose a product below 2^31.")
    # Whole numbers: float32 places are off by 1e-4 of a sample.
    place = jnp.arange(size) * length
    lower = place // (size - 1)
    weight = (place % (size - 1)).astype(wide(ecg).dtype) / (size - 1)
    low = ecg[:, start + jnp.minimum(lower, length - 1)]
    high = ecg[:, start + jnp.minimum(lower + 1, length - 1)]
    return (low + (high - low) * weight).astype(ecg.dtype)


def shift(
    key: PRNGKeyArray, ecg: Float[Array, "l t"], *, rate_hz: float = 250.0, padding_s: float = 30.0
) -> Float[Array, "l t"]:
    """Pads `padding_s` of zeros, split at random between both sides, and keeps one of two windows of T samples.

    With probability 0.5 the window starts at 0, else at the number of zeros on the right. A record shorter than
    the padding may leave the window altogether.
    """
    key_left, key_late = jax.random.split(key)
    padding = int(rate_hz * padding_s)
    left = jax.random.randint(key_left, (), 0, max(padding, 1))
    return shift_by(ecg, left, jax.random.bernoulli(key_late), padding=padding)


def shift_by(
    ecg: Float[Array, "l t"], left: Int[Array, ""], late: Bool[Array, ""], *, padding: int
) -> Float[Array, "l t"]:
    """Puts `left` of `padding` zeros before the record, the rest behind; `late` windows start at that rest."""
    right = padding - left
    padded = jnp.pad(ecg, ((0, 0), (padding, padding)))
    return crop(padded, jnp.where(late, 2 * right, right), length=ecg.shape[1])


def nudge(key: PRNGKeyArray, ecg: Float[Array, "l t"], *, samples: int) -> Float[Array, "l t"]:
    """Moves the record by a whole number of samples, uniform from -samples to samples, the same in all leads."""
    if not 0 <= samples < ecg.shape[1]:
        raise ValueError(
            f"nudge by up to {samples} samples of {ecg.shape[1]}; choose 0 to {ecg.shape[1] - 1}."
        )
    return nudge_by(ecg, jax.random.randint(key, (), -samples, samples + 1))


def nudge_by(ecg: Float[Array, "l t"], later: Int[Array, ""]) -> Float[Array, "l t"]:
    """Moves the record `later` by so many samples; the sample at the edge that it leaves is repeated."""
    time = ecg.shape[1]
    return ecg[:, jnp.clip(jnp.arange(time) - later, 0, time - 1)]


def mask_windows(
    key: PRNGKeyArray,
    ecg: Float[Array, "l t"],
    *,
    factor: float = 0.75,
    length: int = 200,
    leads: Literal["together", "apart"] = "together",
) -> Float[Array, "l t"]:
    """Zeroes round(factor T / length) windows of `length` samples, the same in all leads or drawn for each."""
    time = ecg.shape[1]
    count = round(factor * time / length)
    rows = 1 if leads == "together" else len(ecg)
    weights = jax.random.uniform(key, (rows, count + 1), wide(ecg).dtype)
    return mask_windows_by(ecg, weights, length=length)


def mask_windows_by(
    ecg: Float[Array, "l t"], weights: Float[Array, "r gaps"], *, length: int
) -> Float[Array, "l t"]:
    """Zeroes windows of `length` that lie between gaps in proportion to `weights`; one row, or one for each lead.

    Each gap is rounded for itself, as in the reference: the last window may lose a few samples at the end.
    """
    time, count = ecg.shape[1], weights.shape[1] - 1
    free = time - count * length
    if free < 0:
        raise ValueError(
            f"{count} windows of {length} samples do not fit into {time}; choose a smaller factor or length."
        )
    gaps = jnp.round(free * weights / weights.sum(1, keepdims=True))
    starts = jnp.cumsum(gaps[:, :-1], axis=1) + length * jnp.arange(count)
    since = jnp.arange(time)[:, None] - starts[:, None].astype(jnp.int32)
    return jnp.where(((since >= 0) & (since < length)).any(-1), 0, ecg)


def thin(ecg: Float[Array, "l t"], *, step: int = 2) -> Float[Array, "l t"]:
    """Keeps every `step`-th sample and interpolates linearly between them; the last one kept stays to the end."""
    time = ecg.shape[1]
    place = np.arange(time)
    lower = place // step * step
    upper = np.where(lower + step < time, lower + step, lower)
    weight = jnp.asarray(place % step / step, wide(ecg).dtype)
    low = ecg[:, lower]
    return (low + (ecg[:, upper] - low) * weight).astype(ecg.dtype)
