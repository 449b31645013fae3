"""Views of a batch: the chains that apply a named strength on the device."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.augment import colour as colour_ops
from ecgjax.augment import ecg as ecg_ops
from ecgjax.augment import image as image_ops
from ecgjax.augment import spectral as spectral_ops
from ecgjax.augment import time_axis as time_ops
from ecgjax.augment.presets import ECG_PRESETS, IMAGE_PRESETS, EcgStrength, ImageStrength

_HOLTER_STREAM = 0x686F6C74
"""Steps that were added after the others draw apart from them, so that no older chain changed."""


def view_ecg(
    key: PRNGKeyArray,
    ecg: Float[Array, "b l t"],
    *,
    preset: str | EcgStrength = "default",
    rate: float = 1.0,
    length: int | None = None,
    path: str | None = None,
) -> Float[Array, "b l t2"]:
    """Changes each record on its own; with `1 - rate` a record stays as it is (0.95 in the reference).

    `length` first cuts as many samples from a random start of each record, whatever the rate. `path` is where a
    config names the preset, for the error.
    """
    strength = _strength(preset, ECG_PRESETS, "ECG", path)

    def view(key, record):
        gate, phase, jitter, rescale, time, sign, spec, crop = jax.random.split(key, 8)
        if length is not None:
            record = time_ops.random_crop(crop, record, length=length)
        move, gain, drift, noise = jax.random.split(jax.random.fold_in(key, _HOLTER_STREAM), 4)
        changed = record
        if strength.shift:
            changed = time_ops.nudge(move, changed, samples=strength.shift)
        if strength.gain:
            changed = ecg_ops.gain(gain, changed, deviation=strength.gain)
        if strength.drift:
            changed = ecg_ops.drift(drift, changed, amplitude=strength.drift)
        if strength.noise:
            changed = ecg_ops.noise(noise, changed, deviation=strength.noise)
        if strength.phase:
            changed = spectral_ops.ft_surrogate(
                phase, changed, magnitude=strength.phase, probability=strength.phase_probability
            )
        if strength.jitter:
            changed = ecg_ops.jitter(jitter, changed, deviation=strength.jitter)
        if strength.rescale:
            changed = ecg_ops.rescale(rescale, changed, deviation=strength.rescale)
        if strength.time_flip:
            changed = ecg_ops.time_flip(time, changed, probability=strength.time_flip)
        if strength.sign_flip:
            changed = ecg_ops.sign_flip(sign, changed, probability=strength.sign_flip)
        if strength.spec_ratio:
            changed = spectral_ops.spec_augment(
                spec, changed, ratio=strength.spec_ratio, window=strength.spec_window
            )
        return _gate(gate, changed, record, rate=rate)

    return jax.vmap(view)(jax.random.split(key, len(ecg)), ecg)


def view_image(
    key: PRNGKeyArray,
    image: Float[Array, "b y x c"],
    *,
    preset: str | ImageStrength = "reference",
    rate: float = 1.0,
    path: str | None = None,
) -> Float[Array, "b y x c"]:
    """Changes each image on its own; with `1 - rate` an image stays as it is (0.95 in the reference).

    `path` as in `view_ecg`. The crop to the heart is `image.roi`, which validation needs as well.
    """
    strength = _strength(preset, IMAGE_PRESETS, "image", path)
    affine = (strength.affine_degrees, strength.affine_shift, strength.affine_scale)
    colour = (strength.colour_brightness, strength.colour_contrast, strength.colour_saturation)

    def view(key, original):
        gate, flip, rotate, move, light, tint, crop, gray, blur, gamma = jax.random.split(key, 10)
        changed = original
        # Before the resampling: its mean then costs a pass over pixels, not a second resampling.
        if strength.brightness or strength.contrast:
            changed = colour_ops.brightness_contrast(
                light, changed, brightness=strength.brightness, contrast=strength.contrast
            )
        # The reference's cars are flipped last; every other step is symmetric, so that the views are as likely.
        if strength.flip:
            changed = image_ops.horizontal_flip(flip, changed, probability=strength.flip)
        if strength.nearest_rotation_degrees:
            changed = image_ops.rotate(
                rotate,
                changed,
                degrees=strength.nearest_rotation_degrees,
                probability=strength.rotation_probability,
            )
        if any(affine):
            degrees, shift, scale = affine
            changed = image_ops.random_affine(move, changed, degrees=degrees, shift=shift, scale=scale)
        if any(colour):
            brightness, contrast, saturation = colour
            changed = colour_ops.colour_jitter(
                tint,
                changed,
                brightness=brightness,
                contrast=contrast,
                saturation=saturation,
                probability=strength.colour_probability,
            )
        if strength.grayscale:
            changed = colour_ops.grayscale(gray, changed, probability=strength.grayscale)
        if strength.blur:
            changed = colour_ops.gaussian_blur(
                blur,
                changed,
                kernel=strength.blur_kernel,
                deviation=strength.blur_deviation,
                probability=strength.blur,
            )
        if strength.gamma is not None:
            changed = colour_ops.random_gamma(gamma, changed, exponent=strength.gamma)
        if strength.crop_area is not None:
            changed = image_ops.random_resized_crop(crop, changed, area=(strength.crop_area, 1.0))
        return _gate(gate, changed, original, rate=rate)

    return jax.vmap(view)(jax.random.split(key, len(image)), image)


def two_views(
    key: PRNGKeyArray,
    x: Float[Array, "b l t"] | Float[Array, "b y x c"],
    *,
    preset: str | EcgStrength | ImageStrength,
    rate: float = 1.0,
    length: int | None = None,
    path: str | None = None,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Two views of each ECG or image, drawn independently; the first is always changed, the second at `rate`.

    `length` is for ECGs: each view cuts its own random stretch of as many samples, changed or not.
    """
    first, second = jax.random.split(key)
    if x.ndim == 4:
        if length is not None:
            raise ValueError(f"views of images with a length of {length} samples; leave the length out.")
        return tuple(
            view_image(key, x, preset=preset, rate=r, path=path) for key, r in ((first, 1.0), (second, rate))
        )
    return tuple(
        view_ecg(key, x, preset=preset, rate=r, length=length, path=path)
        for key, r in ((first, 1.0), (second, rate))
    )


def _gate(key, changed, original, *, rate):
    if rate == 1:
        return changed
    return jnp.where(jax.random.bernoulli(key, rate), changed, original)


def _strength(preset, presets, modality, path):
    if not isinstance(preset, str):
        return preset
    if preset not in presets:
        where = "" if path is None else f"{path}: "
        raise ValueError(f"{where}unknown {modality} preset {preset!r}; choose from {', '.join(presets)}.")
    return presets[preset]
