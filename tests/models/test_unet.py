import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import build
from flax import nnx

from ecgjax.models import ENCODERS
from ecgjax.models.unet import UNet


def test_the_defaults_are_the_published_encoder():
    model = nnx.eval_shape(lambda: ENCODERS["unet"](rngs=nnx.Rngs(0)))
    kernels = [conv.kernel.shape for conv in model.convs]
    assert kernels == [(3, 3, 2, 16), (3, 3, 16, 32), *[(3, 3, 32, 32)] * 3]
    graphdef, params = nnx.split(model, nnx.Param)
    image = jax.ShapeDtypeStruct((1, 210, 210, 2), jnp.float32)
    out = jax.eval_shape(lambda p, x: nnx.merge(graphdef, p)(x), params, image)
    assert out["map"].shape == (1, 14, 14, 32)  # 210, 105, 53, 27, 14.
    assert out["embedding"].shape == (1, 32)


def test_it_computes_padded_convolutions_and_leaky_rectifiers():
    model = build(lambda: UNet(channels=2, widths=(3, 4), rngs=nnx.Rngs(0)))
    for conv in model.convs:
        conv.bias[...] = jnp.linspace(-1, 1, conv.bias.shape[0])
    image = np.random.default_rng(0).normal(size=(2, 5, 6, 2))
    want = image
    for conv, stride in zip(model.convs, (1, 2), strict=True):
        kernel, bias = np.asarray(conv.kernel[...]), np.asarray(conv.bias[...])
        padded = np.pad(want, ((0, 0), (1, 1), (1, 1), (0, 0)))
        rows, columns = range(0, want.shape[1], stride), range(0, want.shape[2], stride)
        want = np.stack(
            [
                np.stack(
                    [np.einsum("bijc,ijcd->bd", padded[:, r : r + 3, c : c + 3], kernel) for c in columns], 1
                )
                for r in rows
            ],
            1,
        )
        want = np.where(want + bias > 0, want + bias, 0.2 * (want + bias))
    out = model(jnp.asarray(image, jnp.float32))
    assert out["map"].shape == (2, 3, 3, 4)
    np.testing.assert_allclose(out["map"], want, atol=1e-5)
    np.testing.assert_allclose(out["embedding"], want.mean((1, 2)), atol=1e-5)


def test_kernels_are_he_uniform_for_the_slope():
    model = UNet(channels=2, widths=(16, 32), rngs=nnx.Rngs(0))
    for conv, fan_in in zip(model.convs, (18, 144), strict=True):
        bound = np.sqrt(6 / (1.04 * fan_in))
        kernel = np.abs(conv.kernel[...])
        assert 0.95 * bound < kernel.max() <= bound
        assert np.abs(conv.bias[...]).max() <= fan_in**-0.5


@pytest.mark.parametrize("name", ["unet", "resnet"])
def test_an_encoder_reads_the_channels_it_was_told_to(name):
    sizes = {"widths": (8, 8)} if name == "unet" else {"depths": (1,), "widths": (8,), "norm": "group"}
    some = build(lambda: ENCODERS[name](channels=2, reads=(2, 0), **sizes, rngs=nnx.Rngs(0)))
    two = build(lambda: ENCODERS[name](channels=2, **sizes, rngs=nnx.Rngs(0)))
    image = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    # Fused otherwise, so equal up to rounding.
    np.testing.assert_allclose(
        some(image)["embedding"], two(jnp.stack([image[..., 2], image[..., 0]], -1))["embedding"], rtol=1e-6
    )


def test_it_computes_in_the_precision_it_is_given():
    with jax.enable_x64(True):
        model = build(lambda: UNet(dtype="float64", widths=(4,), rngs=nnx.Rngs(0)))
        assert model(jnp.ones((1, 4, 4, 2)))["embedding"].dtype == jnp.float64
    low = build(lambda: UNet(dtype="bfloat16", widths=(4,), rngs=nnx.Rngs(0)))
    assert low(jnp.ones((1, 4, 4, 2)))["embedding"].dtype == jnp.bfloat16
