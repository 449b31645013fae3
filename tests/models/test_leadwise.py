import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import build
from flax import nnx
from test_encoders import IMAGE, make

from ecgjax.core.spec import EcgSpec, InputSpec
from ecgjax.models.leadwise import Leadwise, beat_windows, draw_beats
from ecgjax.objectives.encoders import encoder_factory

NAMES = ("I", "II", "V1")
BEATS = jnp.array([[32, 50, 90, -1], [60, 45, -1, -1], [-1, -1, -1, -1]], jnp.int32)


@functools.cache
def leadwise(**changes):
    settings = {"leads": 3, "length": 128, "lead_names": NAMES, "image": IMAGE, "read": ("V1", "I")}
    shared = make("stft_cnn")
    return build(lambda: Leadwise(**{**settings, **changes}, encoder=shared, rngs=nnx.Rngs(0)))


def ecg():
    return jax.random.normal(jax.random.key(0), (3, 3, 128))


def single(model):
    """Embeddings of every window of the first two recordings, one at a time: [recording][lead][beat]."""
    shared = jax.jit(lambda x: model.shared(x)["embedding"][0])
    return [
        [
            [np.asarray(shared(ecg()[i, lead, None, None, beat - 32 : beat + 32])) for beat in beats]
            for lead in (NAMES.index("V1"), NAMES.index("I"))
        ]
        for i, beats in enumerate([(32, 50, 90), (60, 45)])
    ]


def test_windows_have_the_peak_in_the_middle_and_those_beyond_an_end_are_excluded():
    x = jnp.arange(40.0).reshape(1, 2, 20)
    beats = jnp.array([[4, 16, 3, 17, -1, 10]])
    windows, whole = beat_windows(x, beats, span=8)
    np.testing.assert_array_equal(whole, [[True, True, False, False, False, True]])
    np.testing.assert_array_equal(windows[0, 0, 0], np.arange(8))
    np.testing.assert_array_equal(windows[0, 1, 1], 20 + np.arange(12, 20))
    np.testing.assert_array_equal(windows[0, 5, 0], np.arange(6, 14))
    assert not windows[0, 2:5].any()


def test_the_median_and_the_mean_are_those_of_every_lead_and_beat():
    found = single(leadwise())
    for pool, reduce in (("median", np.median), ("mean", np.mean)):
        got = jax.jit(leadwise(pool=pool))(ecg(), beats=BEATS)["embedding"]
        assert got.shape == (3, 2 * 16)
        for i, leads in enumerate(found):
            want = np.concatenate([reduce(beats, axis=0) for beats in leads])
            np.testing.assert_allclose(got[i], want, atol=1e-5)


@pytest.mark.slow
def test_attention_weighs_beats_and_leads_by_their_softmax():
    model = leadwise(pool="attention", join="attention")
    got = jax.jit(model)(ecg(), beats=BEATS)["embedding"]

    def pool(embeddings, kernel):
        weights = jax.nn.softmax(np.stack(embeddings) @ np.asarray(kernel[...])[:, 0])
        return weights @ np.stack(embeddings)

    for i, leads in enumerate(single(model)):
        pooled = [pool(beats, model.beat_attention.kernel) for beats in leads]
        np.testing.assert_allclose(got[i], pool(pooled, model.lead_attention.kernel), atol=1e-5)


@pytest.mark.parametrize("changes", [{"pool": "median"}, {"pool": "attention", "join": "attention"}], ids=str)
def test_the_embedding_is_what_the_maps_average_to_and_0_without_beats(changes):
    model = leadwise(**changes)
    out = jax.jit(model)(ecg(), beats=BEATS)
    assert out["maps"].shape == (3, 2, 4, 4, 16)
    np.testing.assert_allclose(model.join(out["maps"].mean((2, 3))), out["embedding"], atol=1e-5)
    assert not out["embedding"][2].any()
    assert not out["maps"][2].any()


@pytest.mark.slow
def test_neither_the_order_of_beats_nor_what_lies_outside_them_matters():
    model = jax.jit(leadwise())
    want = model(ecg(), beats=BEATS)["embedding"]
    moved = model(ecg(), beats=BEATS[:, ::-1])["embedding"]
    np.testing.assert_allclose(moved, want, atol=1e-5)
    other = ecg().at[:, 1].set(0)  # Lead II is not read.
    np.testing.assert_array_equal(model(other, beats=BEATS)["embedding"], want)
    outside = model(ecg(), beats=BEATS.at[0, 3].set(127))["embedding"]
    np.testing.assert_array_equal(outside, want)


@pytest.mark.slow
def test_gradients_pass_the_median_to_the_beats_in_the_middle_alone():
    def embed(x):
        return leadwise()(x, beats=BEATS)["embedding"].sum()

    gradient = np.asarray(jax.jit(jax.grad(embed))(ecg()))
    assert np.all(np.isfinite(gradient))
    assert gradient[:2, [0, 2]].any(axis=2).all()
    assert not gradient[:, 1].any()
    assert not gradient[2].any()


def test_training_draws_beats_with_the_key():
    beats = jnp.tile(jnp.array([[10, -1, 20, 30]]), (300, 1))
    drawn = np.asarray(draw_beats(jax.random.key(0), beats, count=2))
    assert (drawn[:, 0] != drawn[:, 1]).all()
    assert (drawn >= 0).all()
    share = [(drawn == beat).any(1).mean() for beat in (10, 20, 30)]
    np.testing.assert_allclose(share, 2 / 3, atol=0.1)
    few = draw_beats(jax.random.key(0), jnp.array([[-1, 5, -1]]), count=2)
    np.testing.assert_array_equal(few, [[5, -1]])
    with pytest.raises(ValueError, match="train_beats is 5, but the data have 4 places"):
        draw_beats(jax.random.key(0), beats, count=5)


SPEC = InputSpec(EcgSpec(NAMES, 360.0, 128, "mV", {}, beats=4, image=IMAGE))
SECTION = {"name": "leadwise", "read": ["I", "V1"], "encoder": {"name": "stft_cnn", "widths": (8, 16)}}


def test_a_config_builds_it_and_names_are_those_of_single_beats_under_shared():
    model = nnx.eval_shape(
        lambda: encoder_factory(SECTION, "ecg", SPEC, 128, "config.objective.encoder")(nnx.Rngs(0))
    )
    beat = InputSpec(EcgSpec(("MLII",), 360.0, 64, "mV", {}, window="beat", image=IMAGE))
    one = nnx.eval_shape(
        lambda: encoder_factory(SECTION["encoder"], "ecg", beat, 64, "config.objective.encoder")(nnx.Rngs(0))
    )
    whole, part = (nnx.to_pure_dict(nnx.state(m, nnx.Param)) for m in (model, one))
    assert jax.tree.structure(whole) == jax.tree.structure({"shared": part})


@pytest.mark.parametrize(
    ("changes", "spec", "crop", "match"),
    [
        ({"encoder": None}, {}, 128, r"encoder\.encoder: expected the section of an encoder of single leads"),
        ({"encoder": {"name": "stft_cn"}}, {}, 128, r"^config\.objective\.encoder\.encoder\.name: unknown"),
        (
            {"encoder": {"name": "stft_cnn", "mask_times": 99}},
            {},
            128,
            r"^config\.objective\.encoder\.encoder: mask_times",
        ),
        ({}, {"beats": 0}, 128, r"has no beats; prepare it with config\.ecg\.beats"),
        ({}, {"image": None}, 128, "has no image; prepare it"),
        ({}, {}, 100, r"config\.data\.crop is 100.*set it to 128"),
        ({"read": ("I", "V9")}, {}, 128, r"^config\.objective\.encoder: read is \('I', 'V9'\).*I, II, V1"),
        ({"pool": "max"}, {}, 128, r"encoder\.pool: unknown 'max'; choose from median, mean, attention"),
    ],
)
def test_wrong_settings_say_what_is_wrong(changes, spec, crop, match):
    spec = InputSpec(EcgSpec(NAMES, 360.0, 128, "mV", {}, **{"beats": 4, "image": IMAGE, **spec}))
    with pytest.raises(ValueError, match=match):
        encoder_factory({**SECTION, **changes}, "ecg", spec, crop, "config.objective.encoder")(nnx.Rngs(0))
