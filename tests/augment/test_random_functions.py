"""What every random function promises: it maps over a batch, follows its key, and keeps precision."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.augment import colour, ecg, image, spectral, time_axis

ECG = jax.random.normal(jax.random.key(1), (4, 2, 16))
IMAGE = jax.random.uniform(jax.random.key(1), (4, 8, 8, 3))
OPTIONS = {
    ecg.jitter: {"deviation": 0.25},
    ecg.rescale: {"deviation": 0.5},
    ecg.gain: {"deviation": 0.3},
    ecg.drift: {"amplitude": 0.5},
    ecg.noise: {"deviation": 0.1},
    ecg.time_flip: {"probability": 0.5},
    ecg.sign_flip: {"probability": 0.5},
    ecg.permute_leads: {},
    time_axis.random_crop: {"length": 9},
    time_axis.crop_resize: {"share": (0.5, 1.0)},
    time_axis.shift: {"rate_hz": 4.0, "padding_s": 2.0},
    time_axis.nudge: {"samples": 3},
    time_axis.mask_windows: {"factor": 0.5, "length": 4},
    spectral.ft_surrogate: {"magnitude": 0.5},
    spectral.shift_frequencies: {"limit_hz": 2.0, "rate_hz": 20.0},
    spectral.spec_augment: {"ratio": 0.4, "window": 8},
    image.horizontal_flip: {"probability": 0.5},
    image.rotate: {"degrees": 45.0},
    image.random_affine: {"degrees": 20.0, "shift": 0.1, "scale": 0.1},
    image.random_resized_crop: {"area": (0.5, 0.8)},
    colour.colour_jitter: {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5},
    colour.grayscale: {"probability": 0.5},
    colour.brightness_contrast: {"brightness": 0.5, "contrast": 0.5},
    colour.gaussian_blur: {"kernel": 5},
    colour.random_gamma: {},
}


def source(function):
    return ECG if function.__module__.rsplit(".", 1)[1] in ("ecg", "time_axis", "spectral") else IMAGE


def test_no_random_function_is_left_out():
    modules = (ecg, time_axis, spectral, image, colour)
    found = [f for module in modules for f in vars(module).values() if inspect.isfunction(f)]
    keyed = {f for f in found if next(iter(inspect.signature(f).parameters), None) == "key"}
    assert {f.__qualname__ for f in keyed} == {f.__qualname__ for f in OPTIONS}


@pytest.mark.parametrize("function", OPTIONS, ids=lambda f: f.__name__)
def test_it_maps_over_a_batch_and_follows_its_key(function):
    x = source(function)
    view = jax.jit(jax.vmap(functools.partial(function, **OPTIONS[function])))
    keys = jax.random.split(jax.random.key(0), 4)
    same = jnp.broadcast_to(x[:1], x.shape)
    out = np.asarray(view(keys, same))
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(out, view(keys, same))
    assert len(np.unique(out, axis=0)) > 1  # Four keys, not all the same view.


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_precision_stays(dtype):
    with jax.enable_x64(dtype == "float64"):
        for function, options in OPTIONS.items():
            x = jax.ShapeDtypeStruct(source(function).shape[1:], dtype)
            out = jax.eval_shape(functools.partial(function, **options), jax.random.key(0), x)
            assert out.dtype == dtype, function.__name__
