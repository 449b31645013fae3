"""Scanned or rematerialised blocks compute what unrolled ones do, in less memory or with less to compile."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import build
from flax import nnx

from ecgjax.core import mesh as meshes
from ecgjax.models.layers import Block, drop_path_rates
from ecgjax.models.mae import MaeDecoder
from ecgjax.models.stack import run_blocks
from ecgjax.models.vit import Vit

KEY = jax.random.key(3)
TOKENS = jax.random.normal(jax.random.key(1), (8, 5, 16))
QUICK = {
    "xla_backend_optimization_level": 0
}  # A third of the time to compile, and the same program above LLVM.


@functools.cache
def stack(depth=4, dtype="float32", drop_path=0.4):
    """Graph and parameters of a few blocks; the first drops nothing, the last most."""
    rates = drop_path_rates(drop_path, depth)
    sizes = {"width": 16, "heads": 2, "mlp_ratio": 1.0, "dtype": dtype}
    blocks = build(lambda: nnx.List(Block(**sizes, drop_path=rate, rngs=nnx.Rngs(0)) for rate in rates))
    graph, state = nnx.split(blocks)
    return graph, state


def score(state, tokens, *, graph, train=True, **options):
    """A loss to which every token of every sample matters, differently."""
    out = run_blocks(nnx.merge(graph, state), tokens, train=train, key=KEY if train else None, **options)
    return jnp.mean(jnp.sin(jnp.arange(out.size).reshape(out.shape)) * out.astype(jnp.float32))


def value_and_grad(graph, **options):
    return jax.value_and_grad(functools.partial(score, graph=graph, **options), argnums=(0, 1))


def compiled(function, *inputs, **options):
    return jax.jit(function, **options).lower(*inputs).compile(QUICK)


@pytest.fixture(scope="module")
def plain():
    graph, state = stack()
    return compiled(value_and_grad(graph), state, TOKENS)(state, TOKENS)


def assert_equal(found, wanted):
    (value, gradients), (wanted_value, wanted_gradients) = found, wanted
    np.testing.assert_allclose(value, wanted_value, atol=1e-6)
    for found, wanted in zip(jax.tree.leaves(gradients), jax.tree.leaves(wanted_gradients), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("options", [{"scan": 2}, {"remat": "dots", "pad": 8}], ids=str)
def test_value_gradient_and_drop_path_are_those_of_plain_blocks(plain, options):
    graph, state = stack()
    assert_equal(compiled(value_and_grad(graph, **options), state, TOKENS)(state, TOKENS), plain)


def test_scanned_and_recomputed_on_eight_devices_they_are_those_of_one(plain):
    mesh = meshes.make_mesh(data=4, fsdp=2)
    graph, state = stack()
    names = nnx.to_pure_dict(state)
    split = jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(meshes.shardings(names, mesh)))
    inputs = jax.device_put(state, split), jax.device_put(TOKENS, meshes.batch_sharding(mesh))
    step = value_and_grad(graph, scan=1, remat="blocks")
    assert_equal(compiled(step, *inputs)(*inputs), plain)


def test_recomputing_takes_less_memory():
    graph, state = stack(drop_path=0.0)
    tokens = jnp.zeros((8, 32, 16))
    kept, again = (
        compiled(value_and_grad(graph, train=False, scan=1, remat=remat), state, tokens)
        .memory_analysis()
        .temp_size_in_bytes
        for remat in ("none", "blocks")
    )
    assert again < 0.6 * kept


def primitives(jaxpr):
    """Names of all equations, those of inner programs too."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in jax.tree.leaves(
            equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


def products(depth, *, scan=0, remat="none"):
    graph, state = stack(depth, drop_path=0.0)
    step = value_and_grad(graph, train=False, scan=scan, remat=remat)
    return list(primitives(jax.make_jaxpr(step)(state, TOKENS).jaxpr)).count("dot_general")


def test_a_scanned_program_does_not_grow_with_depth():
    assert products(1) == 18  # qkv, scores, mixing, projection and two of the MLP; two more of each backward.
    assert products(4) == 4 * products(1)
    assert products(2, scan=1) == products(4, scan=1) == products(1)


def test_what_is_computed_again_is_attention_alone_or_the_block():
    assert products(1, remat="dots") == 18 + 2  # Scores and mixing.
    assert products(1, remat="blocks") == 18 + 5  # All but the last, which nothing needs.


def test_a_scanned_stack_is_in_compute_precision_and_computes_the_same():
    graph, state = stack(2, "bfloat16")
    tokens = TOKENS.astype(jnp.bfloat16)

    def both(state):
        return [score(state, tokens, graph=graph, scan=scan) for scan in (0, 1)]

    np.testing.assert_allclose(*compiled(both, state)(state), rtol=1e-2)
    jaxpr = jax.make_jaxpr(functools.partial(score, graph=graph, scan=1))(state, tokens)
    (loop,) = (equation for equation in jaxpr.eqns if equation.primitive.name == "scan")
    kernels = [variable.aval for variable in loop.invars if variable.aval.shape[:1] == (2,)]
    assert [kernel.dtype.name for kernel in kernels if kernel.ndim == 3] == ["bfloat16"] * 4


VIT = {"leads": 3, "length": 40, "patch": 10, "width": 16, "heads": 2, "depth": 4}


def test_encoder_and_decoder_run_as_told_and_keep_their_tree():
    told = {"scan": 2, "remat": "blocks", "pad_tokens": 8}
    keep, key = jnp.zeros((2, 5), jnp.int32), jax.random.key(0)

    def encode(vit, ecg):
        return vit(ecg, keep=keep, train=True, key=key)

    def decode(decoder, latent):
        return decoder(latent, jnp.zeros((2, 12), jnp.int32))

    def attend(vit, ecg):
        return vit.last_attention(ecg)

    ecg, latent = jnp.zeros((2, 3, 40)), jnp.zeros((2, 6, 8))
    encoder, decoder = functools.partial(Vit, **VIT), functools.partial(MaeDecoder, **VIT, encoder_width=8)
    for make, call, inputs, run, scores in (
        (functools.partial(encoder, drop_path=0.1), encode, ecg, {"scan", "remat2"}, "[2,2,8,8]"),
        (decoder, decode, latent, {"scan", "remat2"}, "[2,2,16,16]"),
        (encoder, attend, ecg, set(), "[2,2,16,16]"),
    ):
        trees = []
        for options, expected in (({}, set()), (told, run)):
            graph, state = nnx.split(nnx.eval_shape(lambda make=make, o=options: make(**o, rngs=nnx.Rngs(0))))
            jaxpr = jax.make_jaxpr(lambda s, x, g=graph, call=call: call(nnx.merge(g, s), x))(state, inputs)
            assert {"scan", "remat2", "checkpoint"} & set(primitives(jaxpr.jaxpr)) == expected
            assert (scores in str(jaxpr)) == bool(expected)
            trees.append(jax.tree.map(lambda leaf: leaf.shape, nnx.to_pure_dict(state)))
        assert trees[0] == trees[1]


@pytest.mark.parametrize("scan", [3, -1, 8])
def test_a_depth_that_does_not_split_is_refused(scan):
    with pytest.raises(ValueError, match=rf"scan {scan} does not divide depth 4; choose one of \[1, 2, 4\]"):
        Vit(**VIT, scan=scan, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="pad_tokens is 0; it must be at least 1"):
        Vit(**VIT, pad_tokens=0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=rf"scan {scan} does not divide depth 4"):
        MaeDecoder(**VIT, encoder_width=8, scan=scan, rngs=nnx.Rngs(0))


def test_dropping_without_a_key_is_refused_scanned_as_well():
    graph, state = stack()
    with pytest.raises(ValueError, match="needs a key"):
        run_blocks(nnx.merge(graph, state), TOKENS, train=True, scan=2)
