import jax.numpy as jnp
import numpy as np
from flax import nnx

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
