import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import build
from flax import nnx

from ecgjax.models.mae import (
    MaeDecoder,
    block_masking,
    block_masking_from_noise,
    kept_tokens,
    masking_from_noise,
    random_masking,
)
from ecgjax.models.vit import Vit, unpatchify


def test_masking_by_hand():
    masking = masking_from_noise(jnp.array([[0.9, 0.1, 0.5, 0.3]]), kept=2)
    np.testing.assert_array_equal(masking.keep, [[1, 3]])
    np.testing.assert_array_equal(masking.mask, [[1, 0, 1, 0]])
    # Visible tokens come first, in shuffled order; `restore` says where each token now lies.
    np.testing.assert_array_equal(masking.restore, [[3, 0, 2, 1]])


def test_each_sample_hides_its_own_tokens_at_the_stated_ratio():
    masking = random_masking(jax.random.key(0), batch=64, tokens=300, mask_ratio=0.8)
    np.testing.assert_array_equal(masking.mask.sum(1), np.full(64, 241))
    assert not np.array_equal(masking.mask[0], masking.mask[1])
    assert abs(float(masking.mask.mean(0).std()) - (0.8 * 0.2 / 64) ** 0.5) < 0.01


@pytest.mark.parametrize("ratio", [1.0, 0.95, -0.1])
def test_a_ratio_that_leaves_nothing_or_more_than_all_is_refused(ratio):
    with pytest.raises(ValueError, match="mask_ratio"):
        kept_tokens(12, ratio)


def test_kept_tokens_truncate_as_published_or_round():
    assert kept_tokens(300, 0.8) == 59  # 300 * (1 - 0.8) is 59.999999999999986.
    assert kept_tokens(300, 0.8, kept="rounded") == 60
    assert kept_tokens(12, 0.25) == kept_tokens(12, 0.25, kept="rounded") == 9
    masking = random_masking(jax.random.key(0), batch=2, tokens=300, mask_ratio=0.8, kept="rounded")
    assert masking.keep.shape == (2, 60)
    with pytest.raises(ValueError, match="unknown kept 'up'; choose from truncated, rounded"):
        kept_tokens(300, 0.8, kept="up")


def test_block_masking_by_hand():
    keep = block_masking_from_noise(
        jnp.array([[0.9, 0.2, 0.1]]), jnp.array([[0.5, 0.3, 0.9, 0.1]]), kept_rows=2, kept_columns=3
    )
    # Leads 2 and 1, of each the times 3, 1 and 0; four times a lead.
    np.testing.assert_array_equal(keep, [[11, 9, 8, 7, 5, 4]])


def test_block_masking_hides_whole_leads_and_whole_times():
    keep = block_masking(
        jax.random.key(0), batch=4, rows=12, columns=25, lead_ratio=0.25, time_ratio=0.5, kept="truncated"
    )
    assert keep.shape == (4, 9 * 12)
    grid = np.zeros((4, 300))
    np.put_along_axis(grid, np.asarray(keep), 1, axis=1)
    grid = grid.reshape(4, 12, 25)
    for sample in grid:
        assert (sample.any(1).sum(), sample.any(0).sum()) == (9, 12)
    assert not np.array_equal(grid[0], grid[1])
    everything = block_masking(jax.random.key(0), batch=1, rows=3, columns=4, lead_ratio=0.0, time_ratio=0.0)
    np.testing.assert_array_equal(np.sort(everything[0]), np.arange(12))


@pytest.mark.parametrize(
    ("lead", "time", "match"), [(0.95, 0.0, "lead_ratio 0.95"), (0.0, 1.0, "time_ratio")]
)
def test_a_block_that_leaves_nothing_is_refused(lead, time, match):
    with pytest.raises(ValueError, match=match):
        block_masking(jax.random.key(0), batch=1, rows=12, columns=25, lead_ratio=lead, time_ratio=time)


@functools.cache
def make():
    shape = {"leads": 3, "length": 40, "patch": 10, "depth": 1, "heads": 2}
    encoder = build(lambda: Vit(width=16, pooling="mean_of_normed", **shape, rngs=nnx.Rngs(0)))
    return encoder, build(lambda: MaeDecoder(encoder_width=16, width=8, **shape, rngs=nnx.Rngs(0)))


def test_prediction_follows_tokens_not_their_shuffled_order():
    encoder, decoder = make()
    ecg = jax.random.normal(jax.random.key(0), (1, 3, 40))
    one = masking_from_noise(jnp.array([[0.1, 0.2, 0.3] + [0.9] * 9]), kept=3)
    other = masking_from_noise(jnp.array([[0.3, 0.1, 0.2] + [0.9] * 9]), kept=3)
    assert not np.array_equal(one.keep, other.keep)
    reconstruct = jax.jit(lambda m: decoder(encoder(ecg, keep=m.keep)["tokens"], m.restore))
    predictions = [reconstruct(m) for m in (one, other)]
    assert predictions[0].shape == (1, 12, 10)
    np.testing.assert_allclose(*predictions, atol=1e-5)


def test_gradients_reach_the_mask_token_and_stay_finite_on_silence():
    encoder, decoder = make()
    masking = random_masking(jax.random.key(1), batch=2, tokens=12, mask_ratio=0.5)
    latent = jax.jit(encoder)(jnp.zeros((2, 3, 40)), keep=masking.keep)["tokens"]
    graphdef, params, rest = nnx.split(decoder, nnx.Param, ...)
    gradients = jax.jit(
        jax.grad(lambda p: jnp.mean(jnp.square(nnx.merge(graphdef, p, rest)(latent, masking.restore))))
    )(params)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))
    assert float(jnp.abs(gradients["mask_token"][...]).max()) > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_several_channels_are_decoded_in_the_precision_of_losses(dtype):
    """Real and imaginary part of a spectrum, for one."""
    shape = {"leads": 2, "length": 20, "patch": 10, "depth": 1, "heads": 2, "channels": 2, "dtype": dtype}
    encoder = nnx.eval_shape(lambda: Vit(width=16, pooling="mean_of_normed", **shape, rngs=nnx.Rngs(0)))
    decoder = nnx.eval_shape(lambda: MaeDecoder(encoder_width=16, width=8, **shape, rngs=nnx.Rngs(0)))
    (graph, encoder), (decoder_graph, decoder) = nnx.split(encoder), nnx.split(decoder)

    def reconstruct(encoder, decoder, ecg):
        masking = random_masking(jax.random.key(0), batch=3, tokens=4, mask_ratio=0.5)
        tokens = nnx.merge(graph, encoder)(ecg, keep=masking.keep)["tokens"]
        prediction = nnx.merge(decoder_graph, decoder)(tokens, masking.restore)
        return tokens, prediction, unpatchify(prediction, leads=2, channels=2)

    ecg = jax.ShapeDtypeStruct((3, 2, 2, 20), "float32")
    tokens, prediction, signal = jax.eval_shape(reconstruct, encoder, decoder, ecg)
    assert (tokens.shape, tokens.dtype) == ((3, 3, 16), dtype)
    assert (prediction.shape, prediction.dtype) == ((3, 4, 20), "float32")
    assert signal.shape == ecg.shape
