"""Views of a batch: named strengths, and the chains that apply them on the device."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.augment import ecg as ecg_ops
from ecgjax.augment import image as image_ops


@dataclasses.dataclass(frozen=True)
class EcgStrength:
    """How much an ECG is changed; 0 leaves a step out."""

    phase: float = 0.0
    phase_probability: float = 1.0
    jitter: float = 0.0
    rescale: float = 0.0
    time_flip: float = 0.0
    sign_flip: float = 0.0


@dataclasses.dataclass(frozen=True)
class ImageStrength:
    """How much an image is changed; 0 leaves a step out.

    `crop_area` is the smallest share of the area that a random resized crop keeps, None for no crop.
    `nearest_rotation` and `colour` follow the reference; `affine_*`, `brightness` and `contrast` are the
    cheaper weak chain.
    """

    flip: float = 0.0
    nearest_rotation_degrees: float = 0.0
    affine_degrees: float = 0.0
    affine_shift: float = 0.0
    affine_scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    colour_brightness: float = 0.0
    colour_contrast: float = 0.0
    colour_saturation: float = 0.0
    crop_area: float | None = None


ECG_PRESETS: Mapping[str, EcgStrength] = {
    "none": EcgStrength(),
    # Five per cent of each sample, the reference's constant 0.6 divided out.
    "weak": EcgStrength(jitter=0.05 / ecg_ops.JITTER_AMPLITUDE),
    "light": EcgStrength(phase=0.05, jitter=0.1, rescale=0.075),
    "medium": EcgStrength(phase=0.1, jitter=0.25, rescale=0.3),
    "default": EcgStrength(phase=0.1, jitter=0.25, rescale=0.5),
    "heavy": EcgStrength(phase=0.125, jitter=0.4, rescale=0.65),
    "masked": EcgStrength(phase=0.1, phase_probability=0.5, jitter=0.25, rescale=0.5),
    "finetune": EcgStrength(phase=0.075, phase_probability=0.5, jitter=0.2, rescale=0.5),
}
"""`light` to `heavy` are the reference's for contrastive training, `masked` and `finetune` its other chains.

`weak` is ours, for small budgets.
"""

IMAGE_PRESETS: Mapping[str, ImageStrength] = {
    "none": ImageStrength(),
    "weak": ImageStrength(
        affine_degrees=20.0, affine_shift=0.06, affine_scale=0.03, brightness=0.15, contrast=0.15
    ),
    "reference": ImageStrength(
        flip=0.5,
        nearest_rotation_degrees=45.0,
        colour_brightness=0.5,
        colour_contrast=0.5,
        colour_saturation=0.5,
        crop_area=0.6,
    ),
}
"""`reference` is the released contrastive chain; `weak` is ours, for small budgets."""


def view_ecg(
    key: PRNGKeyArray,
    ecg: Float[Array, "b l t"],
    *,
    preset: str | EcgStrength = "default",
    rate: float = 1.0,
) -> Float[Array, "b l t"]:
    """Changes each record on its own; with `1 - rate` a record stays as it is (0.95 in the reference)."""
    strength = _strength(preset, ECG_PRESETS, "ECG")

    def view(key, record):
        gate, phase, jitter, rescale, time, sign = jax.random.split(key, 6)
        changed = record
        if strength.phase:
            changed = ecg_ops.ft_surrogate(
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
        return _gate(gate, changed, record, rate=rate)

    return jax.vmap(view)(jax.random.split(key, len(ecg)), ecg)


def view_image(
    key: PRNGKeyArray,
    image: Float[Array, "b y x c"],
    *,
    preset: str | ImageStrength = "reference",
    rate: float = 1.0,
) -> Float[Array, "b y x c"]:
    """Changes each image on its own; with `1 - rate` an image stays as it is (0.95 in the reference)."""
    strength = _strength(preset, IMAGE_PRESETS, "image")
    affine = (strength.affine_degrees, strength.affine_shift, strength.affine_scale)
    colour = (strength.colour_brightness, strength.colour_contrast, strength.colour_saturation)

    def view(key, original):
        gate, flip, rotate, move, light, tint, crop = jax.random.split(key, 7)
        changed = original
        # Before the resampling: its mean then costs a pass over pixels, not a second resampling.
        if strength.brightness or strength.contrast:
            changed = image_ops.brightness_contrast(
                light, changed, brightness=strength.brightness, contrast=strength.contrast
            )
        if strength.flip:
            changed = image_ops.horizontal_flip(flip, changed, probability=strength.flip)
        if strength.nearest_rotation_degrees:
            changed = image_ops.rotate(rotate, changed, degrees=strength.nearest_rotation_degrees)
        if any(affine):
            degrees, shift, scale = affine
            changed = image_ops.random_affine(move, changed, degrees=degrees, shift=shift, scale=scale)
        if any(colour):
            brightness, contrast, saturation = colour
            changed = image_ops.colour_jitter(
                tint, changed, brightness=brightness, contrast=contrast, saturation=saturation
            )
        if strength.crop_area is not None:
            changed = image_ops.random_resized_crop(crop, changed, area=(strength.crop_area, 1.0))
        return _gate(gate, changed, original, rate=rate)

    return jax.vmap(view)(jax.random.split(key, len(image)), image)


def _gate(key, changed, original, *, rate):
    if rate == 1:
        return changed
    return jnp.where(jax.random.bernoulli(key, rate), changed, original)


def _strength(preset, presets, modality):
    if not isinstance(preset, str):
        return preset
    if preset not in presets:
        raise ValueError(f"unknown {modality} preset {preset!r}; choose from {', '.join(presets)}.")
    return presets[preset]
