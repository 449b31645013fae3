import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import build
from flax import nnx

from ecgjax.models.mae import MaeDecoder, kept_tokens, masking_from_noise, random_masking
from ecgjax.models.vit import Vit


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
