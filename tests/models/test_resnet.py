import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import build
from flax import nnx

from ecgjax.core import mesh as meshes
from ecgjax.models.norms import BatchNorm
from ecgjax.models.resnet import VARIANTS, Conv, ResNet


def make(**changes):
    return build(lambda: ResNet(**{**VARIANTS["tiny"], **changes}, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("size", "changes", "map_size"),
    [(32, {}, 4), (32, {"stem": "small"}, 8), (33, {}, 5), (64, {"stem": "imagenet", "channels": 2}, 4)],
)
def test_any_size_and_channels(size, changes, map_size):
    model = make(**changes)
    out = jax.jit(lambda x: model(x))(jnp.ones((2, size, size, changes.get("channels", 3))))
    assert out["map"].shape == (2, map_size, map_size, 64)
    np.testing.assert_allclose(out["embedding"], out["map"].mean((1, 2)), rtol=1e-5)


def test_the_paper_encoder_has_its_published_size_and_map():
    model = nnx.eval_shape(lambda: ResNet(**VARIANTS["resnet50"], rngs=nnx.Rngs(0)))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 23_508_032
    image = jax.ShapeDtypeStruct((1, 210, 210, 3), jnp.float32)
    out = jax.eval_shape(lambda p, r, x: nnx.merge(graphdef, p, r)(x), params, rest, image)
    assert out["map"].shape == (1, 7, 7, 2048)


@pytest.mark.parametrize("stride", [1, 2])
def test_one_by_one_convolution_equals_the_convolution(stride):
    conv = Conv(5, 7, size=1, stride=stride, dtype="float32", rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 9, 8, 5))
    want = jax.lax.conv_general_dilated(
        x, conv.kernel[...], (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(conv(x), want, atol=1e-5)


def test_group_norm_keeps_samples_apart_and_batch_norm_does_not():
    image = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    other = image.at[1].mul(3.0)
    for norm, equal in (("group", True), ("batch", False)):
        graphdef, params, stats = nnx.split(make(norm=norm), nnx.Param, ...)
        stats = nnx.to_pure_dict(stats)

        @jax.jit
        def embed(x, graphdef=graphdef, params=params, stats=stats):
            return nnx.merge(graphdef, params, nnx.State(stats))(x, train=True)["embedding"]

        first, second = (np.asarray(embed(x)[0]) for x in (image, other))
        assert np.allclose(first, second, atol=1e-6) == equal


def test_group_norm_net_has_no_statistics():
    assert not jax.tree.leaves(nnx.split(make(), nnx.Param, ...)[2])


def test_batch_norm_by_hand():
    norm = BatchNorm(1, dtype="float32", rngs=nnx.Rngs(0))
    x = jnp.array([1.0, 2.0, 3.0, 6.0]).reshape(4, 1, 1, 1)
    out = norm(x, train=True).ravel()
    np.testing.assert_allclose(out, (np.array([1, 2, 3, 6]) - 3) / np.sqrt(3.5 + 1e-5), rtol=1e-6)
    np.testing.assert_allclose(norm.mean[...], 0.1 * 3)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * 14 / 3, rtol=1e-6)  # Unbiased: 14 / (4 - 1).
    held = float(norm.var[0])
    norm(x, train=False)
    assert float(norm.var[0]) == held


def test_statistics_come_from_the_global_batch_on_eight_devices():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    image = jax.random.normal(jax.random.key(0), (16, 8, 8, 3))
    graphdef, params, stats = nnx.split(make(norm="batch", depths=(1,), widths=(8,)), nnx.Param, ...)
    stats = nnx.to_pure_dict(stats)  # Variables made outside jit must not be changed inside.

    @jax.jit
    def step(image):
        model = nnx.merge(graphdef, params, nnx.State(stats))
        out = model(image, train=True)["embedding"]
        return out, nnx.to_pure_dict(nnx.split(model, nnx.Param, ...)[2])

    one = step(image)
    eight = step(jax.device_put(image, jax.NamedSharding(mesh, jax.P("data"))))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, eight)


def test_mean_and_variance_cross_the_devices_together():
    """Forward and backward once each; two passes over the batch would wait for each other."""
    image = jax.device_put(jnp.ones((16, 4, 4, 3)), meshes.batch_sharding(meshes.make_mesh()))
    step = jax.jit(jax.grad(lambda image: normalise(1.0, image)[0]))
    program = step.lower(image).compile().as_text()
    assert len(re.findall(r" all-reduce(?:-start)?\(", program)) == 2


def test_the_variance_survives_a_mean_that_is_large_against_the_deviation():
    """Once the running mean is near; float32 keeps seven digits, of which the plain difference of squares has none."""
    x = 1e4 + np.asarray(jax.random.normal(jax.random.key(0), (16, 2, 2, 3)))
    norm = BatchNorm(3, affine=False, rngs=nnx.Rngs(0))
    norm.mean[...] = jnp.full(3, 1e4 - 2)
    wanted = (x - x.mean((0, 1, 2), np.float64)) / x.std((0, 1, 2), np.float64)
    np.testing.assert_allclose(norm(jnp.asarray(x), train=True), wanted, atol=2e-3)


def normalise(scale, x, *, group=None):
    """A loss of the normalised values, and the running statistics after it."""
    norm = BatchNorm(3, group=group, dtype="float32", rngs=nnx.Rngs(0))
    norm.scale[...] = scale
    out = norm(x, train=True)
    return jnp.mean(jnp.sin(jnp.arange(out.size)).reshape(out.shape) * out), (norm.mean[...], norm.var[...])


def test_groups_are_normalised_by_their_own_examples():
    """As the whole batch would be, were it the group; running statistics are the mean over groups of theirs."""
    x = jax.random.normal(jax.random.key(0), (6, 2, 2, 3)) * jnp.arange(1, 7)[:, None, None, None]
    norm = BatchNorm(3, group=2, dtype="float32", rngs=nnx.Rngs(0))
    found = np.asarray(norm(x, train=True))
    groups = np.asarray(x).reshape(3, 8, 3)
    mean, var = groups.mean(1, keepdims=True), groups.var(1, keepdims=True)
    wanted = (groups - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(found, wanted.reshape(x.shape), atol=1e-5)
    np.testing.assert_allclose(norm.mean[...], 0.1 * mean.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * groups.var(1, ddof=1).mean(0), rtol=1e-5)


def test_gradients_of_groups_do_not_reach_other_groups():
    x, weight = jax.random.normal(jax.random.key(0), (6, 3)), jnp.array([[0.3], [-1.0]])

    def score(x, group):
        norm = BatchNorm(3, group=group, affine=False, rngs=nnx.Rngs(0))
        return jnp.sum(weight * jnp.split(norm(x, train=True), len(x) // 2)[len(x) // 4])

    found, alone = jax.grad(score)(x, 2), jax.grad(score)(x[2:4], None)
    np.testing.assert_allclose(found, jnp.zeros((6, 3)).at[2:4].set(alone), atol=1e-6)


@pytest.mark.parametrize("group", [2, 8])
def test_groups_of_examples_are_the_same_on_eight_devices(group):
    """A device holds two examples: a group lies on one device, or on four."""
    step = jax.value_and_grad(functools.partial(normalise, group=group), has_aux=True, argnums=(0, 1))
    scale, image = jnp.array([1.0, 2.0, 3.0]), jax.random.normal(jax.random.key(0), (16, 4, 4, 3))
    one = jax.jit(step)(scale, image)
    eight = jax.jit(step)(scale, jax.device_put(image, meshes.batch_sharding(meshes.make_mesh(fsdp=2))))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5), one, eight)


@pytest.mark.parametrize(("group", "waits"), [(2, False), (None, True)])
def test_groups_of_a_devices_examples_need_no_other_device(group, waits):
    graphdef, state = nnx.split(make(norm="batch", depths=(1,), widths=(8,), norm_group=group))
    image = jax.device_put(jnp.ones((16, 8, 8, 3)), meshes.batch_sharding(meshes.make_mesh()))

    def embed(state, image):
        return nnx.merge(graphdef, state)(image, train=True)["embedding"]

    program = jax.jit(embed).lower(state, image).compile().as_text()
    assert any(word in program for word in ("all-reduce", "all-gather", "collective", "all-to-all")) == waits


def test_a_batch_that_groups_do_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"norm_group is 4, which does not divide the 6 examples"):
        BatchNorm(3, group=4, rngs=nnx.Rngs(0))(jnp.ones((6, 3)), train=True)
    with pytest.raises(ValueError, match=r"norm_group is 0; a group has at least one"):
        BatchNorm(3, group=0, rngs=nnx.Rngs(0))


def test_recomputed_blocks_are_those_that_are_kept():
    image = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))

    def score(params, graphdef, stats):
        model = nnx.merge(graphdef, params, nnx.State(stats))
        out = jnp.sum(model(image, train=True)["embedding"] ** 2)
        return out, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    found, convolutions = [], []
    for remat in ("none", "blocks"):
        model = make(norm="batch", depths=(1,), widths=(8,), remat=remat)
        graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        loss = functools.partial(score, graphdef=graphdef, stats=nnx.to_pure_dict(stats))
        traced = jax.jit(jax.value_and_grad(loss, has_aux=True)).trace(params)
        found.append(traced.lower().compile()(params))
        convolutions.append(str(traced.jaxpr).count("conv_general_dilated"))
    assert convolutions == [8, 10]  # Both of the block once more; the first one's input needs no gradient.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4), *found)


def test_bfloat16_computes_in_bfloat16_and_keeps_statistics_wide():
    model = make(norm="batch", dtype="bfloat16", depths=(1,), widths=(8,))
    out = model(jnp.ones((2, 8, 8, 3)), train=True)
    assert out["map"].dtype == jnp.bfloat16
    assert model.norm1.mean[...].dtype == jnp.float32


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"stem": "big"}, "unknown stem 'big'; choose from imagenet, small, small_stride2"),
        ({"norm": "layer"}, "unknown norm 'layer'; choose from batch, group"),
        ({"norm_group": 4}, "norm_group is 4, but norm 'group' has no batch"),
        ({"depths": (1, 1)}, "must name the same stages"),
        ({"widths": (12, 24, 48)}, "12 channels do not split into 8 groups"),
    ],
)
def test_wrong_settings_say_what_is_wrong(changes, match):
    with pytest.raises(ValueError, match=match):
        make(**changes)
