import math

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from ecgjax.core import flops
from ecgjax.core import mesh as meshes
from ecgjax.core.spec import CmrSpec, EcgSpec, InputSpec
from ecgjax.losses import blockwise
from ecgjax.objectives import OBJECTIVES

ECG = EcgSpec(
    ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"), 500.0, 2500, "mV", {}
)


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def test_a_product_counts_two_for_every_multiply_add():
    assert flops.count(jnp.matmul, shape(3, 5), shape(5, 7)) == 2 * 3 * 5 * 7
    assert flops.count(jnp.matmul, shape(4, 3, 5), shape(4, 5, 7)) == 4 * 2 * 3 * 5 * 7
    assert flops.count(
        lambda x, w: jnp.einsum("bhqd,bhkd->bhqk", x, w), shape(2, 3, 4, 8), shape(2, 3, 5, 8)
    ) == (2 * 2 * 3 * 4 * 5 * 8)


def convolve(x, kernel, *, stride=1, padding=((0, 0), (0, 0)), dilation=1, groups=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@pytest.mark.parametrize(
    ("kernel", "options", "pairs"),
    [
        ((3, 3, 4, 8), {}, (6 * 3) ** 2),
        # Of a map of 8, padded by one: the outer taps of the first and the last position meet nothing.
        ((3, 3, 4, 8), {"padding": ((1, 1), (1, 1))}, (8 * 3 - 2) ** 2),
        ((3, 3, 4, 8), {"padding": ((1, 1), (1, 1)), "stride": 2}, (4 * 3 - 1) ** 2),
        ((3, 3, 4, 8), {"dilation": 2}, (4 * 3) ** 2),
        ((3, 3, 2, 8), {"groups": 2}, (6 * 3) ** 2),
        ((3, 3, 1, 4), {"groups": 4}, (6 * 3) ** 2),
    ],
)
def test_a_convolution_costs_the_same_forward_and_for_each_of_its_gradients(kernel, options, pairs):
    """Those are convolutions with dilated inputs, swapped axes and negative padding."""
    args = shape(5, 8, 8, 4), shape(*kernel)
    forward = 2 * 5 * kernel[2] * kernel[3] * pairs

    def loss(x, kernel):
        return jnp.square(convolve(x, kernel, **options)).sum()

    assert flops.count(lambda x, k: convolve(x, k, **options), *args) == forward
    assert flops.count(jax.value_and_grad(loss, argnums=(0, 1)), *args) == 3 * forward


def test_a_transposed_convolution_counts_no_holes():
    """Every element of the 4 x 4 map meets the whole 2 x 2 kernel once."""

    def upsample(x, kernel):
        return jax.lax.conv_transpose(x, kernel, (2, 2), "VALID")

    assert flops.count(upsample, shape(1, 4, 4, 3), shape(2, 2, 3, 6)) == 2 * 16 * 4 * 3 * 6


def test_a_scan_costs_as_much_as_its_trips_unrolled():
    def body(x, w):
        return jnp.tanh(x @ w), None

    def scanned(x, ws):
        return jax.lax.scan(body, x, ws)[0].sum()

    def unrolled(x, ws):
        for w in ws:
            x, _ = body(x, w)
        return x.sum()

    args = shape(3, 4), shape(6, 4, 4)
    assert flops.count(scanned, *args) == flops.count(unrolled, *args) == 6 * 2 * 3 * 4 * 4
    both = (flops.count(jax.grad(f, argnums=(0, 1)), *args) for f in (scanned, unrolled))
    assert next(both) == next(both) == 3 * 6 * 2 * 3 * 4 * 4


def test_the_dearest_branch_counts():
    def branch(x, w):
        return jax.lax.cond(x.sum() > 0, lambda: x @ w, lambda: x @ w @ w)

    assert flops.count(branch, shape(3, 4), shape(4, 4)) == 2 * 2 * 3 * 4 * 4


def test_a_loop_of_unknown_length_is_refused_only_where_it_holds_a_product():
    def loop(body):
        return lambda n, w: jax.lax.fori_loop(0, n, lambda _, x: body(x, w), w)

    trips = jax.ShapeDtypeStruct((), jnp.int32)
    assert flops.count(loop(jnp.add), trips, shape(4, 4)) == 0
    with pytest.raises(ValueError, match=r"128 FLOPs a trip.*depend on data"):
        flops.count(loop(jnp.matmul), trips, shape(4, 4))


def test_what_devices_do_in_a_shard_map_adds_up():
    mesh = meshes.make_mesh()
    spec = P(meshes.AXES)

    def local(x, w):
        return x @ w

    sharded = jax.shard_map(local, mesh=mesh, in_specs=(spec, P()), out_specs=spec)
    args = shape(16, 4), shape(4, 5)
    assert flops.count(sharded, *args) == flops.count(local, *args)


@pytest.mark.parametrize("policy", [None, jax.checkpoint_policies.dots_with_no_batch_dims_saveable])
def test_recomputation_is_no_work_of_the_model(policy):
    def block(x, w):
        return jnp.tanh(jax.nn.gelu(x @ w) @ w.T) + x, None

    def loss(block):
        return lambda w, x: jax.lax.scan(block, x, jnp.stack([w, w]))[0].sum()

    args = shape(4, 4), shape(3, 4)
    plain = flops.count(jax.value_and_grad(loss(block)), *args)
    remat = loss(jax.checkpoint(block, policy=policy))
    undone = flops.without_recomputation(remat, *args)
    assert flops.count(jax.value_and_grad(undone), *args) == plain
    if policy is None:
        assert flops.count(jax.value_and_grad(remat), *args) > plain  # Otherwise this test shows nothing.


def test_a_loss_in_a_ring_of_devices_costs_what_all_logits_do():
    """A loop of tiles within a loop of devices, each repeated in the backward pass."""

    def tiles(z0, z1):
        return blockwise.info_nce(z0, z1, temperature=0.1, size=2)

    args = shape(16, 4), shape(16, 4)
    with jax.set_mesh(meshes.make_mesh()):
        undone = flops.without_recomputation(tiles, *args)
        assert flops.count(jax.value_and_grad(undone, argnums=(0, 1)), *args) == 3 * 2 * 16 * 16 * 4


def block_flops(tokens, width):
    """Forward, per example: 24 n d^2 of the linear layers, 4 n^2 d of the attention."""
    return 24 * tokens * width**2 + 4 * tokens**2 * width


def masked_flops(*, encoder, decoder):
    """Value and gradient of one example of the base ViT of so many blocks: 60 tokens of 768, 301 of 512."""
    blocks = encoder * block_flops(60, 768) + decoder * block_flops(301, 512)
    ends = 3 * (2 * 60 * 768 * 512 + 2 * 300 * 512 * 100)
    return 3 * blocks + ends + 2 * (2 * 59 * 100 * 768)  # Visible patches, without a gradient of their own.


def test_masked_base_vit():
    """Fewer blocks are quicker to trace; at full depth the formula is the 5.20 TF of 64 examples."""
    sizes = {
        "encoder": {"width": 768, "depth": 1, "heads": 12},
        "decoder": {"width": 512, "depth": 2, "heads": 16},
    }
    sizes["encoder"] |= {"name": "vit", "patch": 100}
    objective = OBJECTIVES["masked"](spec=InputSpec(ecg=ECG), crop=2500, views="masked", **sizes)
    found = flops.model_flops(objective, {"ecg": shape(64, 12, 2500)})
    assert math.isclose(found, 64 * masked_flops(encoder=1, decoder=2), rel_tol=1e-3)
    assert math.isclose(64 * masked_flops(encoder=12, decoder=8), 5.20e12, rel_tol=0.01)


def test_paper_contrastive_step():
    """32 pairs on each of 16 chips, 1.09 TF a chip in the compiled program."""
    objective = OBJECTIVES["cross_modal"](
        spec=InputSpec(ECG, CmrSpec(("ES", "mid", "ED"), 210, 210, 1.0, "0 to 1", {})),
        crop=2500,
        ecg={"name": "vit", "variant": "tiny", "patch": 100, "pooling": "mean"},
        cmr={"name": "resnet", "variant": "resnet50"},
        ecg_views="none",
        cmr_views="none",
    )
    batch = {"ecg": shape(512, 12, 2500), "cmr": shape(512, 210, 210, 3), "subject": shape(512, 2)}
    found = flops.model_flops(objective, batch)
    assert math.isclose(found, 16 * 1.09e12, rel_tol=0.03)
