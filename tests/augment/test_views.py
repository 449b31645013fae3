import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.augment.views import ECG_PRESETS, IMAGE_PRESETS, EcgStrength, ImageStrength, view_ecg, view_image

ECG = jax.random.normal(jax.random.key(1), (6, 3, 50))
IMAGE = jax.random.uniform(jax.random.key(1), (6, 16, 16, 3))
CASES = [(view_ecg, ECG, name) for name in ("none", "weak", "masked")]
CASES += [(view_image, IMAGE, name) for name in IMAGE_PRESETS]


@functools.cache
def compiled(view, options):
    return jax.jit(lambda key, x: view(key, x, **dict(options)))


def apply(view, x, seed=0, **options):
    return compiled(view, tuple(options.items()))(jax.random.key(seed), x)


def test_ecg_presets_are_the_published_ones():
    published = {"light": (0.1, 0.075, 0.05), "medium": (0.25, 0.3, 0.1), "default": (0.25, 0.5, 0.1)}
    published |= {"heavy": (0.4, 0.65, 0.125), "masked": (0.25, 0.5, 0.1), "finetune": (0.2, 0.5, 0.075)}
    for name, (jitter, rescale, phase) in published.items():
        probability = 0.5 if name in ("masked", "finetune") else 1.0
        want = EcgStrength(jitter=jitter, rescale=rescale, phase=phase, phase_probability=probability)
        assert ECG_PRESETS[name] == want
    assert ECG_PRESETS.keys() == {"none", "weak"} | published.keys()


@pytest.mark.parametrize(("view", "x", "preset"), CASES)
def test_every_preset_keeps_shape_and_precision_and_follows_its_key(view, x, preset):
    out = apply(view, x, preset=preset)
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    assert bool(jnp.isfinite(out).all())
    if preset == "none":
        np.testing.assert_array_equal(out, x)
        return
    np.testing.assert_array_equal(out, apply(view, x, preset=preset))
    assert not np.allclose(out, apply(view, x, seed=1, preset=preset))


@pytest.mark.parametrize("preset", IMAGE_PRESETS)
def test_images_stay_in_range(preset):
    out = apply(view_image, IMAGE, preset=preset)
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1


@pytest.mark.parametrize(("view", "x"), [(view_ecg, ECG), (view_image, IMAGE)])
def test_samples_of_a_batch_draw_for_themselves(view, x):
    same = jnp.broadcast_to(x[:1], x.shape)
    out = apply(view, same, preset="weak")
    assert not np.allclose(out[0], out[1])


@pytest.mark.parametrize(("view", "x"), [(view_ecg, ECG), (view_image, IMAGE)])
def test_rate_leaves_the_rest_untouched(view, x):
    many = jnp.tile(x, (60,) + (1,) * (x.ndim - 1))
    out = np.asarray(apply(view, many, preset="weak", rate=0.7))
    untouched = (out == np.asarray(many)).all(tuple(range(1, x.ndim)))
    assert abs(untouched.mean() - 0.3) < 0.08


def test_silence_stays_silent():
    silent = jnp.zeros_like(ECG)
    np.testing.assert_allclose(apply(view_ecg, silent, preset="masked"), 0, atol=1e-6)


def test_strengths_may_be_given_outright():
    flipped = apply(view_ecg, ECG, preset=EcgStrength(sign_flip=1.0))
    np.testing.assert_array_equal(flipped, -ECG)
    mirrored = apply(view_image, IMAGE, preset=ImageStrength(flip=1.0))
    np.testing.assert_array_equal(mirrored, IMAGE[:, :, ::-1])


def test_weak_jitter_is_five_per_cent():
    ones = jnp.ones((4, 12, 500))
    assert abs(float(apply(view_ecg, ones, preset="weak").std()) - 0.05) < 0.002
    assert dataclasses.replace(ECG_PRESETS["weak"], jitter=0.0) == ECG_PRESETS["none"]


def test_an_unknown_preset_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown ECG preset 'strong'; choose from none, weak, light"):
        view_ecg(jax.random.key(0), ECG, preset="strong")
