import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import build
from flax import nnx

from ecgjax.models import layers
from ecgjax.models.heads import MlpHead
from ecgjax.models.vit import Vit


def test_initialisation_is_that_of_masked_pretraining():
    vit = Vit(leads=3, length=200, patch=100, width=64, depth=1, heads=2, rngs=nnx.Rngs(0))

    def bound(kernel):
        fan_in, fan_out = kernel.shape
        return (6 / (fan_in + fan_out)) ** 0.5

    block = vit.blocks[0]
    for layer in (vit.patch_embed, block.attention.qkv, block.mlp.fc1):
        kernel = np.asarray(layer.kernel[...])
        assert 0.97 * bound(kernel) < np.abs(kernel).max() <= bound(kernel)
    # The fused projection is drawn as one matrix of three times the width.
    assert np.isclose(bound(block.attention.qkv.kernel[...]), (6 / (64 + 192)) ** 0.5)
    assert 0.05 < float(jnp.abs(vit.patch_embed.bias[...]).max()) <= 0.1
    assert 0.01 < float(vit.cls_token[...].std()) < 0.03
    np.testing.assert_array_equal(block.attention.qkv.bias[...], 0)
    np.testing.assert_array_equal(block.norm1.scale[...], 1)


def test_contrastive_initialisation_is_a_narrow_normal():
    vit = Vit(
        leads=3,
        length=200,
        patch=100,
        width=128,
        depth=1,
        heads=2,
        pooling="attention",
        positions="learnable",
        init="contrastive",
        rngs=nnx.Rngs(0),
    )
    block = vit.blocks[0]
    layers = (block.attention.qkv, block.attention.projection, block.mlp.fc1, block.mlp.fc2)
    for kernel in [vit.positions, *(layer.kernel for layer in layers)]:
        drawn = np.asarray(kernel[...])
        # A uniform of this deviation would end at 0.035; truncation at 2 lies a hundred deviations away.
        tolerance = 3 * 0.02 / np.sqrt(2 * drawn.size)
        assert abs(drawn.std() - 0.02) < tolerance
        assert abs(drawn.mean()) < 3 * 0.02 / np.sqrt(drawn.size)
        assert np.abs(drawn).max() > 0.05
    for layer in layers:
        np.testing.assert_array_equal(layer.bias[...], 0)
    for drawn in (vit.patch_embed.kernel[...], vit.patch_embed.bias[...]):  # U(+-1/sqrt(100)).
        assert 0.095 < float(jnp.abs(drawn).max()) <= 0.1
        assert abs(float(drawn.std()) - 0.1 / 3**0.5) < 0.01
    assert 0.7e-6 < float(vit.cls_token[...].std()) < 1.3e-6
    # Attention pooling is drawn as in fine-tuning: fused Xavier, torch's default behind.
    xavier = (6 / (128 + 3 * 128)) ** 0.5
    assert 0.97 * xavier < float(jnp.abs(vit.attention_pool.qkv.kernel[...]).max()) <= xavier
    assert 0.97 / 128**0.5 < float(jnp.abs(vit.attention_pool.projection.kernel[...]).max()) <= 128**-0.5
    np.testing.assert_array_equal(vit.attention_pool.projection.bias[...], 0)


def test_contrastive_initialisation_needs_learnable_positions():
    sizes = {"leads": 3, "length": 20, "patch": 10, "width": 8, "depth": 1, "heads": 2}
    with pytest.raises(ValueError, match="set positions to 'learnable'"):
        Vit(**sizes, init="contrastive", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="unknown init 'zeros'; choose from masked, contrastive"):
        Vit(**sizes, init="zeros", rngs=nnx.Rngs(0))


def test_heads_of_masked_pretraining_start_xavier_uniform():
    head = MlpHead(
        width_in=64, hidden=128, width=64, bias=False, norm_out=True, init="xavier", rngs=nnx.Rngs(0)
    )
    for layer in (head.fc1, head.fc2):
        bound = (6 / (64 + 128)) ** 0.5
        assert 0.97 * bound < float(jnp.abs(layer.kernel[...]).max()) <= bound
        assert layer.bias is None
    assert not head.norm2.affine


def test_narrow_attention_sums_its_rows_in_float32():
    """Added up in bfloat16, ones would end at 256."""
    query, key = jnp.zeros((1, 1, 1, 8), jnp.bfloat16), jnp.ones((1, 1, 1008, 8), jnp.bfloat16)
    weights = layers._narrow_attention_weights(query, key, 1001)[0, 0, 0]
    assert weights.dtype == jnp.bfloat16
    np.testing.assert_allclose(weights[:1001].astype(float), 1 / 1001, rtol=2**-8)
    np.testing.assert_array_equal(weights[1001:], 0)  # Padding.


def attend(dtype, softmax="float32"):
    """Outputs of one attention layer, whose logits reach 8, and their gradient in its kernels."""
    options = {"width": 32, "heads": 2, "softmax": softmax, "dtype": dtype}
    graph, state = nnx.split(build(lambda: layers.Attention(**options, rngs=nnx.Rngs(0))))
    tokens = 1.5 * jax.random.normal(jax.random.key(0), (4, 33, 32))

    def loss(state):
        out = nnx.merge(graph, state)(tokens.astype(dtype)).astype(jnp.float32)
        return jnp.mean(jnp.sin(jnp.arange(out.size)).reshape(out.shape) * out), out

    (_, out), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(state)
    return out, gradient["qkv"]["kernel"][...]


def test_narrow_attention_is_about_as_close_to_float32_as_its_layers_are():
    """Probabilities are off by 2^-9 of a logit, so up to 2 % here; measured in the norm it is less."""
    exact = attend("float32")
    errors = {
        softmax: [
            float(jnp.linalg.norm(found - wanted) / jnp.linalg.norm(wanted))
            for found, wanted in zip(attend("bfloat16", softmax), exact, strict=True)
        ]
        for softmax in ("float32", "bfloat16")
    }
    assert max(errors["bfloat16"]) < 0.02
    assert all(narrow < 2 * wide for narrow, wide in zip(errors["bfloat16"], errors["float32"], strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_narrow_attention_is_for_narrow_layers(dtype):
    with pytest.raises(ValueError, match=f"softmax 'bfloat16' needs dtype 'bfloat16', not '{dtype}'"):
        layers.Attention(width=8, heads=2, softmax="bfloat16", dtype=dtype, rngs=nnx.Rngs(0))
