"""Chains that a config composes: augmentations by name, each with its settings, in the order given."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.augment import colour, ecg, filters, image, scaling, spectral, time_axis
from ecgjax.core import config as configs

Step = Callable[[PRNGKeyArray, Float[Array, "..."]], Float[Array, "..."]]
Chain = tuple[Step, ...]


def compose(
    table: Mapping[str, Callable],
    sections: Sequence[Any],
    path: str,
    *,
    shape: tuple[int, ...],
    **given: Any,
) -> Chain:
    """The steps that `sections` name in `table`; each has the settings of its function, and a `probability`.

    Raises ValueError, with the place in the config, where a step cannot be built or changes no signal of `shape`.
    `given` is what the program knows, such as the rate.
    """
    chain = []
    for i, section in enumerate(sections):
        here = f"{path}[{i}]"
        if not isinstance(section, Mapping):
            raise ValueError(
                f"{here} is {section!r}; give a name and settings, as {{'name': 'thin', 'step': 2}}."
            )
        step = configs.bind(table, section, here, **given)
        configs.require(step, here)
        try:
            jax.eval_shape(step, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
        except ValueError as error:
            raise ValueError(f"{here}: {error}") from None
        chain.append(step)
    return tuple(chain)


def apply_chain(key: PRNGKeyArray, x: Float[Array, "..."], chain: Chain) -> Float[Array, "..."]:
    """One step after the other, each with draws of its own."""
    for i, step in enumerate(chain):
        x = step(jax.random.fold_in(key, i), x)
    return x


def _step(function: Callable) -> Step:
    """`function` of a key and a signal, whose signature is its settings: those, and a `probability` to happen.

    Filters and the like draw nothing, and have no key. Where a function has a probability of its own, that is it.
    """
    parameters = inspect.signature(function).parameters
    settings = [p for p in parameters.values() if p.kind is p.KEYWORD_ONLY]
    if "probability" not in parameters:
        settings.append(
            inspect.Parameter("probability", inspect.Parameter.KEYWORD_ONLY, default=1.0, annotation=float)
        )

    @functools.wraps(function)
    def step(key, x, *, probability=1.0, **others):
        if not 0 <= probability <= 1:
            raise ValueError(f"probability is {probability}; it must lie between 0 and 1.")
        if "probability" in parameters:
            return function(key, x, probability=probability, **others)
        key_gate, key_draw = jax.random.split(key)
        changed = function(key_draw, x, **others) if "key" in parameters else function(x, **others)
        return (
            changed
            if probability == 1
            else jnp.where(jax.random.bernoulli(key_gate, probability), changed, x)
        )

    step.__signature__ = inspect.Signature(settings)
    return step


ECG_STEPS: Mapping[str, Step] = {
    "butterworth_filter": _step(filters.butterworth_filter),
    "crop_resize": _step(time_axis.crop_resize),
    "drift": _step(ecg.drift),
    "ft_surrogate": _step(spectral.ft_surrogate),
    "gain": _step(ecg.gain),
    "gaussian_filter": _step(filters.gaussian_filter),
    "ideal_filter": _step(filters.ideal_filter),
    "jitter": _step(ecg.jitter),
    "mask_windows": _step(time_axis.mask_windows),
    "min_max": _step(scaling.min_max),
    "noise": _step(ecg.noise),
    "normalise": _step(scaling.normalise),
    "notch_filter": _step(filters.notch_filter),
    "nudge": _step(time_axis.nudge),
    "permute_leads": _step(ecg.permute_leads),
    "rescale": _step(ecg.rescale),
    "shift": _step(time_axis.shift),
    "shift_frequencies": _step(spectral.shift_frequencies),
    "sign_flip": _step(ecg.sign_flip),
    "spec_augment": _step(spectral.spec_augment),
    "thin": _step(time_axis.thin),
    "time_flip": _step(ecg.time_flip),
}
"""Steps of an ECG, [l t] to [l t]."""

IMAGE_STEPS: Mapping[str, Step] = {
    "brightness_contrast": _step(colour.brightness_contrast),
    "colour_jitter": _step(colour.colour_jitter),
    "gaussian_blur": _step(colour.gaussian_blur),
    "grayscale": _step(colour.grayscale),
    "horizontal_flip": _step(image.horizontal_flip),
    "random_affine": _step(image.random_affine),
    "random_gamma": _step(colour.random_gamma),
    "random_resized_crop": _step(image.random_resized_crop),
    "rotate": _step(image.rotate),
}
"""Steps of an image, [y x c] to [y x c]."""
