import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import build
from flax import nnx

from ecgjax.models import ENCODERS
from ecgjax.models.layers import drop_path, drop_path_rates
from ecgjax.models.vit import VARIANTS, Vit, patchify, unpatchify

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
    out = np.asarray(drop_path(branch, jax.random.key(0), rate=0.25)).ravel()
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


def test_the_paper_encoder_has_its_published_size():
    model = nnx.eval_shape(
        lambda: Vit(
            leads=12,
            length=2500,
            patch=100,
            **VARIANTS["tiny"],
            pooling="mean_of_normed",
            rngs=nnx.Rngs(0),
        )
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.split(model, nnx.Param, ...)[1])) == 5_363_328


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


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_returns_an_embedding(name):
    settings = {"vit": TINY, "resnet": {"depths": (1,), "widths": (8,), "stem": "small", "norm": "group"}}
    inputs = {"vit": ecg(), "resnet": jnp.ones((2, 8, 8, 3))}
    out = encode(build(lambda: ENCODERS[name](**settings[name], rngs=nnx.Rngs(0))), inputs[name])
    assert out["embedding"].ndim == 2
