"""Named strengths of the views."""

import dataclasses
from collections.abc import Mapping

from ecgjax.augment.ecg import JITTER_AMPLITUDE


@dataclasses.dataclass(frozen=True)
class EcgStrength:
    """How much an ECG is changed, in the order of the fields; 0 leaves a step out.

    `shift` counts samples to either side; `gain` is the deviation of its logarithm; `drift` and `noise` are in the
    unit of the signal.
    """

    shift: int = 0
    gain: float = 0.0
    drift: float = 0.0
    noise: float = 0.0
    phase: float = 0.0
    phase_probability: float = 1.0
    jitter: float = 0.0
    rescale: float = 0.0
    time_flip: float = 0.0
    sign_flip: float = 0.0
    spec_ratio: float = 0.0
    spec_window: int = 120


@dataclasses.dataclass(frozen=True)
class ImageStrength:
    """How much an image is changed; 0 (None) leaves a step out.

    `flip`, `grayscale` and `blur` are probabilities. `crop_area` is the smallest share of the area that a random
    resized crop keeps. `nearest_rotation` and `colour` follow the reference; `affine_*`, `brightness` and
    `contrast` are the cheaper weak chain.
    """

    flip: float = 0.0
    nearest_rotation_degrees: float = 0.0
    rotation_probability: float = 1.0
    affine_degrees: float = 0.0
    affine_shift: float = 0.0
    affine_scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    colour_brightness: float = 0.0
    colour_contrast: float = 0.0
    colour_saturation: float = 0.0
    colour_probability: float = 1.0
    grayscale: float = 0.0
    blur: float = 0.0
    blur_kernel: int = 29
    blur_deviation: tuple[float, float] = (0.1, 2.0)
    gamma: tuple[float, float] | None = None
    crop_area: float | None = None


_PUBLISHED_ECG = {
    "light": EcgStrength(phase=0.05, jitter=0.1, rescale=0.075),
    "medium": EcgStrength(phase=0.1, jitter=0.25, rescale=0.3),
    "default": EcgStrength(phase=0.1, jitter=0.25, rescale=0.5),
    "heavy": EcgStrength(phase=0.125, jitter=0.4, rescale=0.65),
}

ECG_PRESETS: Mapping[str, EcgStrength] = {
    "none": EcgStrength(),
    # Five per cent of each sample, the reference's constant 0.6 divided out.
    "weak": EcgStrength(jitter=0.05 / JITTER_AMPLITUDE),
    # Up to 20 ms at 360 Hz; the unit is the range of most samples, of which an R wave is several.
    "beats": EcgStrength(shift=7, gain=0.2, drift=0.1, noise=0.03),
    **_PUBLISHED_ECG,
    "masked": EcgStrength(phase=0.1, phase_probability=0.5, jitter=0.25, rescale=0.5),
    "finetune": EcgStrength(phase=0.075, phase_probability=0.5, jitter=0.2, rescale=0.5),
    **{
        f"contrastive_{name}": dataclasses.replace(strength, time_flip=0.5, sign_flip=0.5, spec_ratio=0.25)
        for name, strength in _PUBLISHED_ECG.items()
    },
}
"""`light` to `heavy` are the reference's for pairs with images, `contrastive_*` the same for ECGs alone.

`masked` and `finetune` are its other chains; `weak` is ours, for small budgets, and `beats`, for windows round beats
scaled by `normalise="range"`: what moves, lifts and blurs a Holter recording, but turns no wave over.
"""

_REFERENCE_IMAGE = ImageStrength(
    flip=0.5,
    nearest_rotation_degrees=45.0,
    colour_brightness=0.5,
    colour_contrast=0.5,
    colour_saturation=0.5,
    crop_area=0.6,
)
_DVM = ImageStrength(
    flip=0.5,
    colour_brightness=0.8,
    colour_contrast=0.8,
    colour_saturation=0.8,
    colour_probability=0.8,
    grayscale=0.2,
    blur=0.5,
    crop_area=0.08,
)

IMAGE_PRESETS: Mapping[str, ImageStrength] = {
    "none": ImageStrength(),
    "weak": ImageStrength(
        affine_degrees=20.0, affine_shift=0.06, affine_scale=0.03, brightness=0.15, contrast=0.15
    ),
    "reference": _REFERENCE_IMAGE,
    "paper": dataclasses.replace(_REFERENCE_IMAGE, rotation_probability=0.5, colour_saturation=0.25),
    "soft": ImageStrength(
        flip=0.5,
        nearest_rotation_degrees=20.0,
        colour_brightness=0.25,
        colour_contrast=0.25,
        colour_saturation=0.25,
        crop_area=0.8,
    ),
    "hard": _REFERENCE_IMAGE,
    "dvm": _DVM,
    "dvm_large": dataclasses.replace(_DVM, crop_area=0.6),
}
"""`reference` is the released contrastive chain, `paper` the printed one; `weak` is ours, for small budgets.

`soft` and `hard` are the reference's for evaluation, `dvm` and `dvm_large` its for photographs of cars.
"""
