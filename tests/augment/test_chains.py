"""Every augmentation is a step that a config can name, with its own settings and with a probability."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.augment import colour, ecg, filters, image, scaling, spectral, time_axis
from ecgjax.augment.chains import ECG_STEPS, IMAGE_STEPS, apply_chain, compose

RATE = 100.0
ECG = jax.random.normal(jax.random.key(1), (4, 300))
IMAGE = jax.random.uniform(jax.random.key(1), (8, 8, 3))
PATH = "config.objective.views"
SETTINGS = {
    "butterworth_filter": {"kind": "band_pass", "edges_hz": (0.5, 40.0), "order": 3},
    "crop_resize": {"share": (0.5, 1.0)},
    "drift": {"amplitude": 0.5},
    "ft_surrogate": {"magnitude": 0.5, "leads": "apart"},
    "gain": {"deviation": 0.3},
    "gaussian_filter": {"kind": "low_pass", "scale_hz": 15.0},
    "ideal_filter": {"kind": "high_pass", "edges_hz": (0.5,)},
    "jitter": {"deviation": 0.25},
    "mask_windows": {"factor": 0.5, "length": 40, "leads": "apart"},
    "min_max": {"scope": "lead"},
    "noise": {"deviation": 0.1},
    "normalise": {"scope": "record"},
    "notch_filter": {"frequency_hz": 25.0, "width_hz": 2.0},
    "nudge": {"samples": 7},
    "permute_leads": {},
    "rescale": {"deviation": 0.5},
    "shift": {"padding_s": 0.5},
    "shift_frequencies": {"limit_hz": 2.0},
    "sign_flip": {},
    "spec_augment": {"ratio": 0.4, "window": 40},
    "thin": {"step": 3},
    "time_flip": {},
    "brightness_contrast": {"brightness": 0.5, "contrast": 0.5},
    "colour_jitter": {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5},
    "gaussian_blur": {"kernel": 5, "deviation": (0.5, 1.0)},
    "grayscale": {},
    "horizontal_flip": {},
    "random_affine": {"degrees": 20.0, "shift": 0.1, "scale": 0.1},
    "random_gamma": {"exponent": (0.5, 2.0)},
    "random_resized_crop": {"area": (0.5, 0.8)},
    "rotate": {"degrees": 45.0},
}
NOT_STEPS = {time_axis.random_crop, time_axis.crop}
"""They change the length, which is `window` of an objective."""


def chain(*sections, table=ECG_STEPS, x=ECG):
    given = {"rate_hz": RATE} if table is ECG_STEPS else {}
    return compose(table, sections, PATH, shape=x.shape, **given)


def public(*modules):
    """Functions of a signal that take all their settings, and not their draws."""
    found = {
        f for m in modules for f in vars(m).values() if inspect.isfunction(f) and f.__module__ == m.__name__
    }
    names = {"ecg", "image"}
    return {
        f.__qualname__
        for f in found - NOT_STEPS
        if not f.__name__.startswith("_")
        and not f.__name__.endswith("_by")
        and names & set(list(inspect.signature(f).parameters)[:2])
    }


def test_every_augmentation_is_a_step_by_its_own_name():
    assert set(ECG_STEPS) == public(ecg, filters, scaling, spectral, time_axis)
    drawn = {
        f
        for f in public(colour, image)
        if "key" in inspect.signature(vars(colour).get(f) or vars(image)[f]).parameters
    }
    assert set(IMAGE_STEPS) == drawn  # Regions and sizes are for evaluation, too.
    for table in (ECG_STEPS, IMAGE_STEPS):
        assert all(step.__name__ == name for name, step in table.items())


@pytest.mark.parametrize("name", [*ECG_STEPS, *IMAGE_STEPS])
def test_a_step_happens_with_its_probability_and_keeps_shape_and_precision(name):
    table, x = (ECG_STEPS, ECG) if name in ECG_STEPS else (IMAGE_STEPS, IMAGE)
    section = {"name": name, **SETTINGS[name]}
    never, sometimes = (chain({**section, "probability": p}, table=table, x=x) for p in (0.0, 0.5))
    out = jax.jit(jax.vmap(lambda key: apply_chain(key, x, sometimes)))(
        jax.random.split(jax.random.key(0), 200)
    )
    assert out.shape == (200, *x.shape)
    changed = (
        np.abs(np.asarray(out) - np.asarray(x)).reshape(200, -1).max(1) > 1e-4
    )  # A transform there and back rounds.
    assert 0.35 < changed.mean() < 0.65
    np.testing.assert_allclose(
        jax.jit(lambda key: apply_chain(key, x, never))(jax.random.key(0)), x, atol=1e-5
    )
    for dtype in ("bfloat16", "float32"):
        like = jax.ShapeDtypeStruct(x.shape, dtype)
        got = jax.eval_shape(lambda key, x: apply_chain(key, x, sometimes), jax.random.key(0), like)
        assert (got.shape, got.dtype) == (x.shape, dtype)


def test_a_step_without_draws_is_its_function_at_the_rate_of_the_data():
    hum = jnp.asarray(np.sin(2 * np.pi * 25 * np.arange(300) / RATE), jnp.float32)[None]
    notch = chain({"name": "notch_filter", **SETTINGS["notch_filter"]}, x=hum)
    want = filters.notch_filter(hum, rate_hz=RATE, **SETTINGS["notch_filter"])
    np.testing.assert_allclose(apply_chain(jax.random.key(0), hum, notch), want, atol=1e-6)


def test_steps_come_in_the_order_given_each_with_draws_of_its_own():
    last = [
        chain(*({"name": name, "scope": "record"} for name in names))
        for names in (("normalise", "min_max"), ("min_max", "normalise"))
    ]
    squeezed, whitened = (np.asarray(apply_chain(jax.random.key(0), ECG, steps)) for steps in last)
    assert (squeezed.min(), squeezed.max()) == (-1, 1)
    assert whitened.std() == pytest.approx(1, abs=1e-3)
    twice = chain(*[{"name": "rescale", "deviation": 0.5}] * 2, x=jnp.ones((1, 1)))
    first, both = (
        np.asarray(
            jax.vmap(lambda key, steps=steps: apply_chain(key, jnp.ones((1, 1)), steps))(
                jax.random.split(jax.random.key(0), 4000)
            )
        )[:, 0, 0]
        for steps in (twice[:1], twice)
    )
    assert abs(np.corrcoef(first, both / first)[0, 1]) < 0.05


def test_lists_of_a_stored_config_are_tuples_of_its_python():
    stored = {"name": "crop_resize", "share": [0.5, 0.9]}
    x = apply_chain(jax.random.key(0), ECG, chain(stored))
    np.testing.assert_array_equal(
        x, apply_chain(jax.random.key(0), ECG, chain({**stored, "share": (0.5, 0.9)}))
    )


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "jiter"}, r"views\[1\]\.name: unknown 'jiter'; choose from .*Did you mean 'jitter'"),
        ({"name": "colour_jitter"}, r"views\[1\]\.name: unknown 'colour_jitter'"),
        (
            {"name": "jitter", "deviaton": 0.1},
            r"\[1\]\.deviaton: no field of jitter\. Did you mean 'deviation'",
        ),
        ({"name": "jitter"}, r"\[1\]\.deviation: missing; jitter needs it"),
        ({"name": "jitter", "deviation": "0.1"}, r"\[1\]\.deviation: expected float, got '0\.1'"),
        ({"name": "jitter", "key": 0, "deviation": 0.1}, r"\[1\]\.key: no field of jitter"),
        ({"name": "time_flip"}, r"\[1\]\.probability: missing; time_flip needs it"),
        ({"name": "thin", "probability": 1.5}, r"\[1\]: probability is 1\.5; it must lie between 0 and 1"),
        ({"name": "time_flip", "probability": -0.1}, r"\[1\]: probability is -0\.1"),
        ({"name": "shift", "rate_hz": 250.0}, r"\[1\]\.rate_hz: set by the program"),
        (
            {"name": "notch_filter", "frequency_hz": 60.0, "width_hz": 2.0},
            r"\[1\]: low_pass with edges \(60\.0,\) Hz",
        ),
        ({"name": "normalise", "scope": "group"}, r'\[1\]: scope "group" needs the 12 standard leads, got 4'),
        ("jitter", r"views\[1\] is 'jitter'; give a name and settings"),
    ],
)
def test_a_step_that_cannot_be_meant_is_named_with_its_place(section, message):
    with pytest.raises(ValueError, match=message):
        chain({"name": "thin"}, section)
