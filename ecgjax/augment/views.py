"""Views of a batch, made on the device: by a preset, or by a chain that a config composes."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.augment import colour as colour_ops
from ecgjax.augment import ecg as ecg_ops
from ecgjax.augment import image as image_ops
from ecgjax.augment import spectral as spectral_ops
from ecgjax.augment import time_axis as time_ops
from ecgjax.augment.chains import ECG_STEPS, IMAGE_STEPS, Chain, apply_chain, compose
from ecgjax.augment.presets import ECG_PRESETS, IMAGE_PRESETS, EcgStrength, ImageStrength
from ecgjax.core import config as configs
from ecgjax.core.spec import InputSpec

Views = str | Mapping[str, Any] | Sequence[Any]
"""What a config gives: a preset by name, the fields of a strength, or steps by name, in their order (`chains`)."""
Augmentation = EcgStrength | ImageStrength | Chain
"""What that comes to."""

_HOLTER_STREAM = 0x686F6C74
"""Steps that were added after the others draw apart from them, so that no older chain changed."""
_CHAIN_STREAM = 0x63686169


def choose_views(
    views: Views, modality: Literal["ecg", "cmr"], spec: InputSpec, path: str, *, length: int
) -> Augmentation:
    """What the `views` of a config mean for inputs of this spec, an ECG being cut to `length` samples.

    Raises ValueError, with the place in the config, where they mean nothing.
    """
    if isinstance(views, str):
        return _named(views, modality, path)
    if isinstance(views, Mapping):
        return configs.call(EcgStrength if modality == "ecg" else ImageStrength, views, path)
    if modality == "ecg":
        shape = (len(spec.ecg.leads), length)
        return compose(ECG_STEPS, views, path, shape=shape, rate_hz=spec.ecg.rate_hz)
    shape = (spec.cmr.height, spec.cmr.width, len(spec.cmr.frames))
    return compose(IMAGE_STEPS, views, path, shape=shape)


def view_ecg(
    key: PRNGKeyArray,
    ecg: Float[Array, "b l t"],
    *,
    preset: str | EcgStrength | Chain,
    rate: float = 1.0,
    length: int | None = None,
) -> Float[Array, "b l t2"]:
    """Changes each record on its own; with `1 - rate` a record stays as it is (0.95 in the reference).

    `length` first cuts as many samples from a random start of each record, whatever the rate.
    """
    strength = _named(preset, "ecg") if isinstance(preset, str) else preset

    def view(key, record):
        gate, phase, jitter, rescale, time, sign, spec, crop = jax.random.split(key, 8)
        if length is not None:
            record = time_ops.random_crop(crop, record, length=length)
        if isinstance(strength, tuple):
            changed = apply_chain(jax.random.fold_in(key, _CHAIN_STREAM), record, strength)
            return _gate(gate, changed, record, rate=rate)
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
    preset: str | ImageStrength | Chain,
    rate: float = 1.0,
) -> Float[Array, "b y x c"]:
    """Changes each image on its own; with `1 - rate` an image stays as it is (0.95 in the reference).

    The crop to the heart is `image.roi`, which validation needs as well.
    """
    strength = _named(preset, "cmr") if isinstance(preset, str) else preset

    def view(key, original):
        gate, flip, rotate, move, light, tint, crop, gray, blur, gamma = jax.random.split(key, 10)
        if isinstance(strength, tuple):
            changed = apply_chain(jax.random.fold_in(key, _CHAIN_STREAM), original, strength)
            return _gate(gate, changed, original, rate=rate)
        affine = (strength.affine_degrees, strength.affine_shift, strength.affine_scale)
        colour = (strength.colour_brightness, strength.colour_contrast, strength.colour_saturation)
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
    preset: str | Augmentation,
    rate: float = 1.0,
    length: int | None = None,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Two views of each ECG or image, drawn independently; the first is always changed, the second at `rate`.

    `length` is for ECGs: each view cuts its own random stretch of as many samples, changed or not.
    """
    first, second = jax.random.split(key)
    if x.ndim == 4:
        if length is not None:
            raise ValueError(f"views of images with a length of {length} samples; leave the length out.")
        return tuple(view_image(key, x, preset=preset, rate=r) for key, r in ((first, 1.0), (second, rate)))
    return tuple(
        view_ecg(key, x, preset=preset, rate=r, length=length) for key, r in ((first, 1.0), (second, rate))
    )


def _gate(key, changed, original, *, rate):
    if rate == 1:
        return changed
    return jnp.where(jax.random.bernoulli(key, rate), changed, original)


def _named(preset, modality, path=None):
    presets, kind = (ECG_PRESETS, "ECG") if modality == "ecg" else (IMAGE_PRESETS, "image")
    if preset not in presets:
        where = "" if path is None else f"{path}: "
        raise ValueError(f"{where}unknown {kind} preset {preset!r}; choose from {', '.join(presets)}.")
    return presets[preset]
