import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import build
from flax import nnx

from ecgjax.models.layers import Drop, drop_path, drop_path_rates
from ecgjax.models.mae import VARIANTS as DECODERS
from ecgjax.models.mae import MaeDecoder
from ecgjax.models.vit import VARIANTS, Vit, patchify, unpatchify
from ecgjax.objectives.encoders import with_variant

TINY = {"leads": 3, "length": 40, "patch": 10, "width": 16, "depth": 2, "heads": 2}


@functools.cache
def make(**changes):
    return build(lambda: Vit(**{**TINY, **changes}, rngs=nnx.Rngs(0)))


def ecg(b=2, key=0):
    return jax.random.normal(jax.random.key(key), (b, 3, 40))


def encode(model, *inputs, **options):
    """Jitted: hundreds of small compilations otherwise."""
    params, build = functional(model)
    return jax.jit(lambda p, *inputs: build(p)(*inputs, **options))(params, *inputs)


def functional(model):
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    return nnx.to_pure_dict(params), lambda p: nnx.merge(graphdef, nnx.State(p), rest)


@pytest.mark.parametrize("pooling", ["mean", "cls", "attention", "mean_of_normed"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_outputs_have_the_stated_shapes_and_precision(pooling, dtype):
    params, build = functional(make(pooling=pooling, dtype=dtype))
    out = jax.eval_shape(lambda p: build(p)(ecg()), params)
    assert {k: v.shape for k, v in out.items()} == {
        "embedding": (2, 16),
        "tokens": (2, 13, 16),
        "local_tokens": (2, 12, 16),
    }
    assert {v.dtype.name for v in out.values()} == {dtype}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}


def test_tokens_are_lead_major():
    x = jnp.arange(2 * 3 * 40.0).reshape(2, 3, 40)
    patches = patchify(x, patch=10)
    np.testing.assert_array_equal(patches[1, 2 * 4 + 1], x[1, 2, 10:20])
    np.testing.assert_array_equal(unpatchify(patches, leads=3), x)


def test_keeping_every_token_in_another_order_changes_no_embedding():
    model = make()
    keep = jnp.stack([jax.random.permutation(jax.random.key(i), 12) for i in range(2)])
    shuffled, plain = encode(model, ecg(), keep=keep), encode(model, ecg())
    np.testing.assert_allclose(shuffled["embedding"], plain["embedding"], atol=1e-5)
    np.testing.assert_allclose(shuffled["local_tokens"][0], plain["local_tokens"][0, keep[0]], atol=1e-5)


def test_hidden_tokens_do_not_reach_the_embedding():
    model, keep = make(), jnp.array([[0, 5], [2, 11]])
    hidden = ecg().at[:, 1, :10].add(7.0)  # Token 4, which neither sample keeps.
    visible = [encode(model, x, keep=keep)["embedding"] for x in (ecg(), hidden)]
    np.testing.assert_array_equal(*visible)
    assert not np.allclose(encode(model, ecg())["embedding"], encode(model, hidden)["embedding"])


def test_poolings_share_all_but_their_own_parameters():
    def paths(pooling):
        params, _ = functional(make(pooling=pooling))
        return {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        }

    masked = paths("mean_of_normed")
    for pooling in ("mean", "cls", "attention"):
        other = paths(pooling)
        assert all(other[path] == shape for path, shape in masked.items() if path in other)
        own = {path.split("/")[0] for path in masked.keys() ^ other.keys()}
        assert own <= {"norm", "pool_norm", "attention_pool"}


def test_learnable_positions_start_where_fixed_ones_stay():
    fixed = make()
    learnable = Vit(**TINY, positions="learnable", rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(fixed.position_table(), learnable.position_table())
    assert "positions" not in functional(fixed)[0]
    assert functional(learnable)[0]["positions"].shape == (1, 13, 16)


def test_gradients_are_finite_on_flat_leads_and_silence():
    silent = ecg().at[0].set(0.0).at[1, 0].set(0.3)
    for pooling in ("attention", "mean_of_normed"):
        params, build = functional(make(pooling=pooling, depth=4))
        gradients = jax.jit(jax.grad(lambda p, build=build: jnp.sum(build(p)(silent)["embedding"][:, 0])))(
            params
        )
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))
        assert float(jnp.abs(gradients["patch_embed"]["bias"]).max()) > 0


def test_attention_rows_sum_to_one():
    params, build = functional(make())
    attention = jax.jit(lambda p: build(p).last_attention(ecg()))(params)
    assert attention.shape == (2, 2, 13, 13)
    np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-5)


def test_drop_path_drops_samples_and_keeps_the_mean():
    branch = jnp.ones((4000, 1, 1))
    out = np.asarray(drop_path(branch, Drop(jax.random.key(0), 0.75))).ravel()
    assert set(np.unique(out)) == {0, np.float32(1 / 0.75)}
    assert abs(out.mean() - 1) < 0.03
    assert drop_path_rates(0.2, 3) == [0.0, 0.1, 0.2]


def test_drop_path_acts_in_training_only_and_follows_its_key():
    model, x = make(drop_path=0.5), ecg(8)
    plain = encode(model, x)["embedding"]
    np.testing.assert_array_equal(plain, encode(model, x, key=jax.random.key(1))["embedding"])
    first, again, other = (
        encode(model, x, train=True, key=jax.random.key(seed))["embedding"] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    with pytest.raises(ValueError, match="needs a key"):
        model(x, train=True)


# Trainable parameters without SimSiam heads for 12 x 2500 and patches of 1 x 100, as published.
ENCODER_COUNTS = {
    "pluto": 1_606_144,
    "tiny": 5_363_328,
    "tiny2": 5_363_328,
    "tiny_deep": 5_358_336,
    "tiny_deep2": 5_358_336,
    "small": 12_662_784,
    "small2": 12_662_784,
    "small_deep": 21_333_504,
    "small_deep2": 21_333_504,
    "medium": 24_684_160,
    "medium2": 24_684_160,
    "medium_deep": 47_925_504,
    "medium_deep2": 47_925_504,
    "large_patchx": 53_904_960,
    "base": 85_134_336,
    "large": 302_415_872,
    "huge": 629_811_200,
}
DECODER_COUNTS = {
    "pluto": 366_980,
    "tiny": 1_704_548,
    "tiny2": 459_108,
    "tiny_deep": 1_655_396,
    "tiny_deep2": 434_532,
    "small": 1_737_316,
    "small2": 475_492,
    "small_deep": 1_704_548,
    "small_deep2": 459_108,
    "medium": 1_770_084,
    "medium2": 491_876,
    "medium_deep": 1_753_700,
    "medium_deep2": 483_684,
    "large_patchx": 1_827_428,
    "base": 25_665_636,
    "large": 25_796_708,
    "huge": 25_927_780,
}
PAPER = {"leads": 12, "length": 2500, "patch": 100}


def parameters(make):
    """Trainable values of a module that is never drawn."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.split(nnx.eval_shape(make), nnx.Param, ...)[1]))


def test_every_published_encoder_has_its_published_size():
    sizes = {name: VARIANTS[name] for name in ENCODER_COUNTS}
    counted = {}  # Several names share sizes; the largest takes seconds.
    for name, size in sizes.items():
        key = tuple(size.values())
        if key not in counted:
            counted[key] = parameters(
                lambda size=size: Vit(**PAPER, **size, pooling="mean_of_normed", rngs=nnx.Rngs(0))
            )
        assert counted[key] == ENCODER_COUNTS[name], name
    assert VARIANTS.keys() - ENCODER_COUNTS.keys() == {"mmcl_medium", "mmcl_big"}


def test_every_published_decoder_has_its_published_size():
    assert DECODERS.keys() == DECODER_COUNTS.keys()
    for name, size in DECODERS.items():
        width = VARIANTS[name]["width"]
        count = parameters(
            lambda size=size, width=width: MaeDecoder(**PAPER, encoder_width=width, **size, rngs=nnx.Rngs(0))
        )
        assert count == DECODER_COUNTS[name], name


def test_encoders_of_the_contrastive_repository_differ_by_name():
    """Blocks of 12 d^2 + 13 d, patch kernel 100 d, patch bias, class token, norm of 2 d."""
    for name, depth, width in (("mmcl_medium", 6, 640), ("mmcl_big", 8, 768)):
        count = parameters(
            lambda name=name: Vit(**PAPER, **VARIANTS[name], pooling="mean_of_normed", rngs=nnx.Rngs(0))
        )
        assert count == depth * (12 * width**2 + 13 * width) + 100 * width + 4 * width


def test_the_variant_that_cannot_be_built_says_why():
    with pytest.raises(
        ValueError, match=r"encoder.variant: mmcl_pluto cannot be built: .*256 wide and 6 heads"
    ):
        with_variant({"name": "vit", "variant": "mmcl_pluto"}, "config.objective.encoder")
    with pytest.raises(ValueError, match=r"encoder.variant: unknown 'nano'; choose from pluto, tiny"):
        with_variant({"name": "vit", "variant": "nano"}, "config.objective.encoder")


def test_a_patch_holds_channel_after_channel_as_in_a_convolution():
    """Against a convolution of the patch's own stride, whose kernel is laid out (width, channel, lead, time)."""
    model = make(channels=2, leads=4, patch_leads=2, patch=5)
    x = jax.random.normal(jax.random.key(0), (2, 2, 4, 40))
    kernel = model.patch_embed.kernel[...].T.reshape(16, 2, 2, 5)
    want = jax.lax.conv_general_dilated(x, kernel, (2, 5), "VALID")  # [b d rows columns]
    want = want.reshape(2, 16, 16).swapaxes(1, 2) + model.patch_embed.bias[...]
    np.testing.assert_allclose(model.embed(x)[:, 1:] - model.position_table()[1:], want, atol=1e-5)


@pytest.mark.parametrize(("channels", "patch_leads"), [(1, 1), (1, 3), (2, 1), (3, 3)])
def test_patches_go_back_to_where_they_came_from(channels, patch_leads):
    x = jax.random.normal(jax.random.key(0), (2, channels, 6, 20))
    patches = patchify(x, patch=5, patch_leads=patch_leads)
    assert patches.shape == (2, 6 // patch_leads * 4, channels * patch_leads * 5)
    back = unpatchify(patches, leads=6, patch_leads=patch_leads, channels=channels)
    np.testing.assert_array_equal(back, x[:, 0] if channels == 1 else x)
    if channels == 1:
        np.testing.assert_array_equal(patches, patchify(x[:, 0], patch=5, patch_leads=patch_leads))


def test_a_wrong_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="has 1 channels; the encoder was built for 2"):
        make(channels=2)(ecg())
    with pytest.raises(ValueError, match="has 2 channels; the encoder was built for 1"):
        make()(jnp.zeros((1, 2, 3, 40)))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"length": 41}, "length 41 is not a multiple of patch 10; crop to 40"),
        ({"pooling": "max"}, "unknown pooling 'max'; choose from mean, attention, cls, mean_of_normed"),
        ({"heads": 3}, "width 16 is not a multiple of heads 3"),
        ({"width": 18}, "width 18 is not a multiple of 4"),
    ],
)
def test_wrong_sizes_say_what_is_wrong(changes, match):
    with pytest.raises(ValueError, match=match):
        make(**changes)(jnp.zeros((1, 3, 40)))


def test_an_ecg_of_another_length_is_refused():
    with pytest.raises(ValueError, match="built for 3 rows x 4 columns"):
        make()(jnp.zeros((1, 3, 50)))
