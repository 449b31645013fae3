import jax
import jax.numpy as jnp
import numpy as np
from filled import build
from flax import nnx

from ecgjax.models.heads import LinearHead, ProjectionHead
from ecgjax.models.resnet import ResNet
from ecgjax.models.towers import Tower


def test_projection_head_is_linear_relu_linear():
    head = ProjectionHead(width_in=4, hidden=6, width=3, rngs=nnx.Rngs(0))
    x = np.asarray(jax.random.normal(jax.random.key(0), (5, 4)))
    hidden = np.maximum(x @ np.asarray(head.fc1.kernel[...]) + np.asarray(head.fc1.bias[...]), 0)
    want = hidden @ np.asarray(head.fc2.kernel[...]) + np.asarray(head.fc2.bias[...])
    np.testing.assert_allclose(head(jnp.asarray(x)), want, atol=1e-5)
    assert float(jnp.abs(head.fc1.bias[...]).max()) <= 0.5  # 1 / sqrt(4).


def test_projection_head_takes_maps():
    head = ProjectionHead(width_in=4, hidden=6, width=3, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 4))
    np.testing.assert_allclose(head(x)[1, 2, 3], head(x[1:2, 2, 3])[0], atol=1e-5)


def test_linear_head_starts_near_zero():
    head = LinearHead(width_in=256, outputs=8, rngs=nnx.Rngs(0))
    assert abs(float(head.linear.kernel[...].std()) - 0.02) < 0.001
    np.testing.assert_array_equal(head.linear.bias[...], 0)


def test_tower_adds_the_projection_to_what_the_encoder_returns():
    def make():
        rngs = nnx.Rngs(0)
        encoder = ResNet(depths=(1,), widths=(8,), stem="small", norm="group", rngs=rngs)
        return Tower(encoder=encoder, head=ProjectionHead(width_in=8, hidden=8, width=4, rngs=rngs))

    tower = build(make)
    out = jax.jit(lambda x: tower(x))(jnp.ones((2, 8, 8, 3)))
    assert out.keys() == {"embedding", "map", "projection"}
    np.testing.assert_allclose(out["projection"], tower.head(out["embedding"]), atol=1e-6)
