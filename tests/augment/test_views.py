import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.augment.presets import ECG_PRESETS, IMAGE_PRESETS, EcgStrength, ImageStrength
from ecgjax.augment.views import choose_views, two_views, view_ecg, view_image
from ecgjax.core.spec import CmrSpec, EcgSpec, InputSpec

ECG = jax.random.normal(jax.random.key(1), (6, 3, 80))
IMAGE = jax.random.uniform(jax.random.key(1), (6, 16, 16, 3))
SPEC = InputSpec(
    EcgSpec(("I", "II", "V1"), 100.0, 80, "mV", {}), CmrSpec(("ES", "mid", "ED"), 16, 16, 4.0, "0 to 1", {})
)
CASES = [(view_ecg, ECG, name) for name in ("none", "masked", "contrastive_default")]
CASES += [(view_image, IMAGE, name) for name in ("none", "weak", "paper", "dvm")]


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
    alone = {f"contrastive_{name}": name for name in ("light", "medium", "default", "heavy")}
    for name, base in alone.items():
        flips = {"time_flip": 0.5, "sign_flip": 0.5, "spec_ratio": 0.25, "spec_window": 120}
        assert ECG_PRESETS[name] == dataclasses.replace(ECG_PRESETS[base], **flips)
    assert ECG_PRESETS.keys() == {"none", "weak", "beats"} | published.keys() | alone.keys()


def test_image_presets_are_the_published_ones():
    def chain(degrees, colour, area, **others):
        strengths = dict(
            zip(("colour_brightness", "colour_contrast", "colour_saturation"), colour, strict=True)
        )
        return ImageStrength(
            flip=0.5, nearest_rotation_degrees=degrees, crop_area=area, **(strengths | others)
        )

    published = {
        "reference": chain(45.0, (0.5, 0.5, 0.5), 0.6),
        "paper": chain(45.0, (0.5, 0.5, 0.25), 0.6, rotation_probability=0.5),
        "soft": chain(20.0, (0.25, 0.25, 0.25), 0.8),
        "hard": chain(45.0, (0.5, 0.5, 0.5), 0.6),
    }
    cars = {"colour_probability": 0.8, "grayscale": 0.2, "blur": 0.5, "blur_kernel": 29}
    for name, area in (("dvm", 0.08), ("dvm_large", 0.6)):
        published[name] = chain(0.0, (0.8, 0.8, 0.8), area, **cars, blur_deviation=(0.1, 2.0))
    assert {name: IMAGE_PRESETS[name] for name in published} == published
    assert IMAGE_PRESETS.keys() == {"none", "weak"} | published.keys()


@pytest.mark.parametrize(("view", "x", "preset"), CASES)
def test_a_view_stays_in_range_and_follows_its_key(view, x, preset):
    out = apply(view, x, preset=preset)
    assert bool(jnp.isfinite(out).all())
    if view is view_image:
        assert float(out.min()) >= 0
        assert float(out.max()) <= 1
    if preset == "none":
        np.testing.assert_array_equal(out, x)
        return
    np.testing.assert_array_equal(out, apply(view, x, preset=preset))
    assert not np.allclose(out, apply(view, x, seed=1, preset=preset))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_every_preset_keeps_shape_and_precision(dtype):
    cases = [(view_ecg, ECG, name) for name in ECG_PRESETS]
    cases += [(view_image, IMAGE, name) for name in IMAGE_PRESETS]
    with jax.enable_x64(dtype == "float64"):
        for view, x, preset in cases:
            like = jax.ShapeDtypeStruct(x.shape, dtype)
            out = jax.eval_shape(functools.partial(view, preset=preset), jax.random.key(0), like)
            assert (out.shape, out.dtype) == (x.shape, dtype), preset


@pytest.mark.parametrize(("view", "x"), [(view_ecg, ECG), (view_image, IMAGE)])
def test_samples_of_a_batch_draw_for_themselves(view, x):
    same = jnp.broadcast_to(x[:1], x.shape)
    out = apply(view, same, preset="weak")
    assert not np.allclose(out[0], out[1])


def test_rates_leave_the_rest_untouched_and_two_modalities_draw_apart():
    ecg, image = jnp.ones((2000, 1, 2)), jnp.ones((2000, 1, 2, 3))
    flips = {"ecg": EcgStrength(sign_flip=1.0), "image": ImageStrength(gamma=(2.0, 2.0))}

    @jax.jit
    def views(key):
        key_ecg, key_image = jax.random.split(key)
        changed = view_image(key_image, image / 2, preset=flips["image"], rate=0.7)
        return view_ecg(key_ecg, ecg, preset=flips["ecg"], rate=0.7), changed

    ecg_view, image_view = views(jax.random.key(0))
    gates = np.stack([np.asarray(ecg_view[:, 0, 0]) == -1, np.asarray(image_view[:, 0, 0, 0]) == 0.25])
    np.testing.assert_allclose(gates.mean(1), 0.7, atol=0.03)
    assert abs(np.corrcoef(gates)[0, 1]) < 0.07


def test_the_first_of_two_views_is_always_changed_the_second_at_the_rate():
    ones = jnp.ones((2000, 1, 2))
    first, second = (
        np.asarray(v) for v in apply(two_views, ones, preset=EcgStrength(sign_flip=1.0), rate=0.7)
    )
    assert (first == -1).all()
    assert abs(np.mean(second[:, 0, 0] == -1) - 0.7) < 0.03
    first, second = apply(two_views, IMAGE, preset="weak")
    assert not np.allclose(first, second)
    with pytest.raises(ValueError, match="views of images with a length of 8 samples"):
        two_views(jax.random.key(0), IMAGE, preset="weak", length=8)


def test_each_of_two_views_cuts_its_own_stretch_whatever_the_rate():
    ramp = jnp.broadcast_to(jnp.arange(8.0), (2000, 1, 8))
    views = apply(two_views, ramp, preset="none", rate=0.5, length=5)
    starts = np.stack([np.asarray(v)[:, 0, 0] for v in views])
    for view, start in zip(views, starts, strict=True):
        np.testing.assert_array_equal(view[:, 0], start[:, None] + np.arange(5))
        np.testing.assert_allclose(np.bincount(start.astype(int)) / 2000, 0.25, atol=0.04)
    assert abs(np.corrcoef(starts)[0, 1]) < 0.07


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


def test_steps_for_beats_draw_apart_and_leave_the_older_chain_as_it_is():
    base = ECG_PRESETS["masked"]
    plain, moved = (
        apply(view_ecg, ECG, preset=s) for s in (base, dataclasses.replace(base, noise=1e-12, gain=1e-12))
    )
    np.testing.assert_array_equal(moved, plain)
    alone = dataclasses.replace(ECG_PRESETS["none"], drift=0.5)
    both = dataclasses.replace(alone, jitter=0.25)
    jittered = apply(view_ecg, jnp.zeros_like(ECG), preset=both) / apply(
        view_ecg, jnp.zeros_like(ECG), preset=alone
    )
    want = apply(view_ecg, jnp.ones_like(ECG), preset=EcgStrength(jitter=0.25))
    np.testing.assert_allclose(jittered, want, atol=1e-4)  # One draw of jitter, whatever comes before.


def test_a_view_of_beats_keeps_their_sign_and_place():
    pulse = jnp.zeros((400, 1, 80)).at[:, :, 40].set(4.0)
    out = np.asarray(apply(view_ecg, pulse, preset="beats"))[:, 0]
    place = out.argmax(1)
    assert set(place) == set(range(33, 48))
    height = out[np.arange(400), place]
    assert height.min() > 1.8
    assert abs(np.log(height / 4).std() - 0.2) < 0.03


def test_an_unknown_preset_is_named_with_the_known_ones_and_its_place():
    with pytest.raises(
        ValueError, match=r"^unknown ECG preset 'strong'; choose from none, weak, beats, light"
    ):
        view_ecg(jax.random.key(0), ECG, preset="strong")
    with pytest.raises(ValueError, match=r"^objective\.cmr_views: unknown image preset 'strong'"):
        choose_views("strong", "cmr", SPEC, "objective.cmr_views", length=80)


def test_a_config_names_a_preset_or_its_fields_or_steps():
    assert choose_views("weak", "ecg", SPEC, "objective.views", length=80) == ECG_PRESETS["weak"]
    fields = {"gamma": [0.5, 2.0], "flip": 1}
    assert choose_views(fields, "cmr", SPEC, "objective.views", length=80) == ImageStrength(
        flip=1.0, gamma=(0.5, 2.0)
    )
    steps = [{"name": "sign_flip", "probability": 1.0}, {"name": "time_flip", "probability": 1}]
    turned = apply(view_ecg, ECG, preset=choose_views(steps, "ecg", SPEC, "objective.views", length=80))
    np.testing.assert_array_equal(turned, -ECG[..., ::-1])
    mirrored = choose_views(
        [{"name": "horizontal_flip", "probability": 1.0}], "cmr", SPEC, "objective.views", length=80
    )
    np.testing.assert_array_equal(apply(view_image, IMAGE, preset=mirrored), IMAGE[:, :, ::-1])
    with pytest.raises(
        ValueError, match=r"^objective\.views\.jiter: no field of views\. Did you mean 'jitter'"
    ):
        choose_views({"jiter": 0.1}, "ecg", SPEC, "objective.views", length=80)


@pytest.mark.parametrize(
    ("view", "modality", "flip"), [(view_ecg, "ecg", "sign_flip"), (view_image, "cmr", "horizontal_flip")]
)
def test_records_draw_a_chain_for_themselves_apart_from_the_rate(view, modality, flip):
    """What lets a record through must not tell which steps happen to it."""
    x = {"ecg": jnp.ones((4000, 1, 2)), "cmr": jnp.broadcast_to(jnp.arange(2.0)[:, None], (4000, 1, 2, 1))}[
        modality
    ]
    plus = {"ecg": {"name": "shift", "padding_s": 0.0}, "cmr": {"name": "random_gamma"}}[modality]
    steps = [
        {"name": flip, "probability": 0.5},
        {**plus, "probability": 0.0},
        {"name": flip, "probability": 0.3},
    ]
    chain = choose_views(steps, modality, SPEC, "objective.views", length=2)

    @jax.jit
    def both(key):
        gated = view(key, x, preset=chain, rate=0.5)
        return gated, view(key, x, preset=chain), view(key, x, preset=chain[:1])

    gated, whole, first = (
        np.asarray(out).reshape(4000, -1)[:, 0] != np.asarray(x).reshape(4000, -1)[:, 0]
        for out in both(jax.random.key(0))
    )
    np.testing.assert_allclose(first.mean(), 0.5, atol=0.03)
    np.testing.assert_allclose(whole.mean(), 0.5 * 0.7 + 0.5 * 0.3, atol=0.03)
    np.testing.assert_allclose(gated.mean(), 0.5 * whole.mean(), atol=0.03)
    np.testing.assert_allclose((gated & first).mean(), 0.5 * (whole & first).mean(), atol=0.03)


def test_two_channels_have_views_without_colour():
    two = IMAGE[..., :2]
    jax.eval_shape(functools.partial(view_image, preset="weak"), jax.random.key(0), two)
    with pytest.raises(ValueError, match="colour jitter needs 3 channels, the image has 2"):
        jax.eval_shape(functools.partial(view_image, preset="reference"), jax.random.key(0), two)
