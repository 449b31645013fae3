"""Losses in tiles against the plain ones, over several meshes, in value and gradient."""

import functools
import math
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.core import mesh as meshes
from ecgjax.losses import blockwise, contrastive, matrix
from ecgjax.losses.blockwise import Pairs

ROOT = pathlib.Path(__file__).resolve().parents[2]
B, K = 32, 8
SCALARS = {"log_scale": jnp.float32(np.log(10)), "bias": jnp.float32(-3.0)}


def same(rows, columns):
    return jnp.all(rows[:, None] == columns, axis=-1)


def stored(rows, columns):
    similarity, subject = rows
    index, other = columns
    return (similarity[:, index] > 0.8) | same(subject, other)


@pytest.fixture(scope="module")
def world():
    """Projections, some subjects recorded twice, and a stored matrix that is not symmetric."""
    draw = np.random.default_rng(0)
    z0, z1 = (jnp.asarray(draw.normal(size=(B, K)), jnp.float32) for _ in range(2))
    person = draw.integers(0, B // 2, size=B)
    subject = jnp.asarray(np.stack([person, person + 1], 1), jnp.uint32)
    index = jnp.asarray(draw.permutation(2 * B)[:B], jnp.int32)
    rows = jnp.asarray(draw.uniform(size=(B, 2 * B)), jnp.float16)
    return z0, z1, Pairs(subject, subject, same), Pairs((rows, subject), (index, subject), stored)


def plain(name, z0, z1, scalars, repeated, alike):
    if name == "info_nce":
        return contrastive.info_nce(z0, z1, temperature=0.1, balance=0.75, same_subject=repeated.matrix())
    if name == "nt_xent":
        return contrastive.nt_xent(z0, z1, temperature=0.1, same_subject=repeated.matrix())
    if name == "supervised_contrastive":
        return matrix.supervised_contrastive(z0, z1, temperature=0.1, positives=alike.matrix())
    if name == "remove_false_negatives":
        return matrix.remove_false_negatives(z0, z1, temperature=0.1, similar=alike.matrix())
    return contrastive.sigmoid(z0, z1, **scalars, same_subject=repeated.matrix())


def in_tiles(name, z0, z1, scalars, repeated, alike, *, size):
    loss = functools.partial(getattr(blockwise, name), z0, z1, size=size)
    if name == "info_nce":
        return loss(temperature=0.1, balance=0.75, pairs=repeated)
    if name == "nt_xent":
        return loss(temperature=0.1, pairs=repeated)
    if name == "sigmoid":
        return loss(**scalars, pairs=repeated)
    return loss(temperature=0.1, pairs=alike)


NAMES = ("info_nce", "nt_xent", "supervised_contrastive", "remove_false_negatives", "sigmoid")


def everything(loss, world):
    """All losses at once, with gradients by both projections and the scalars: one compilation a mesh."""
    z0, z1, repeated, alike = world

    @jax.jit
    def run(z0, z1, scalars, who):
        pairs = [Pairs(*w, p.alike) for w, p in zip(who, (repeated, alike), strict=True)]
        return {
            name: jax.value_and_grad(functools.partial(loss, name), argnums=(0, 1, 2))(
                z0, z1, scalars, *pairs
            )
            for name in NAMES
        }

    return run, (z0, z1, SCALARS, [p[:2] for p in (repeated, alike)])


@pytest.fixture(scope="module")
def whole(world):
    run, arguments = everything(plain, world)
    return jax.device_get(run(*arguments))


def close(got, want):
    for name in want:
        for g, w in zip(jax.tree.leaves(got[name]), jax.tree.leaves(want[name]), strict=True):
            np.testing.assert_allclose(g, w, atol=1e-5 * max(np.abs(w).max(), 1), err_msg=name)


MESHES = {"1": (1, 1, 1), "2": (1, 2, 1), "2x2": (1, 2, 2), "2x2x2": (2, 2, 2)}


@pytest.mark.parametrize("shape", MESHES.values(), ids=MESHES)
def test_tiles_in_a_ring_give_value_and_gradient_of_the_plain_losses(shape, world, whole):
    sizes = dict(zip(("slices", "data", "fsdp"), shape, strict=True))
    mesh = meshes.make_mesh(**sizes, devices=jax.devices()[: math.prod(shape)])
    run, (z0, z1, scalars, who) = everything(functools.partial(in_tiles, size=2), world)
    z0, z1, who = jax.device_put((z0, z1, who), meshes.batch_sharding(mesh))
    with jax.set_mesh(mesh):
        got = run(z0, z1, jax.device_put(scalars, meshes.replicated(mesh)), who)
    assert len(got["nt_xent"][1][0].sharding.device_set) == mesh.size
    close(jax.device_get(got), whole)


def test_ranks_in_tiles_are_the_plain_ones_and_a_tie_counts_against_the_row(world):
    z0, z1, *_ = world
    mesh = meshes.make_mesh(data=2, fsdp=2, devices=jax.devices()[:4])
    near = z0.at[:8].set(z1[:8])  # Some find their own.
    with jax.set_mesh(mesh):
        got = jax.jit(functools.partial(blockwise.ranks, size=2))(near, z1)
    np.testing.assert_array_equal(got, contrastive.ranks(near, z1))
    assert set(got[:8].tolist()) == {0} < set(got.tolist())
    collapsed = jnp.broadcast_to(z0[0], z0.shape)
    assert (blockwise.ranks(collapsed, collapsed, size=B) == B - 1).all()


def test_a_tile_that_leaves_out_everything_has_a_gradient(world):
    z0, z1, *_ = world
    everyone = Pairs((), (), lambda rows, columns: jnp.ones((), bool))
    loss = functools.partial(blockwise.info_nce, z1=z1, temperature=0.1, pairs=everyone, size=1)
    value, gradient = jax.jit(jax.value_and_grad(loss))(z0)
    np.testing.assert_allclose(value, 0, atol=1e-6)  # Nothing but the own pair is left.
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_columns_that_no_tile_divides_are_refused(world):
    z0, z1, *_ = world
    with pytest.raises(ValueError, match="tiles of 5 columns do not divide the 32 that a device holds"):
        blockwise.info_nce(z0, z1, temperature=0.1, size=5)


def test_the_benchmark_fills_its_table():
    command = [sys.executable, "tests/benchmarks/blockwise.py", "--only=info_nce", "--batch=256", "--tile=4"]
    run = subprocess.run([*command, "--width=8", "--timed=0"], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    (row,) = [line for line in run.stdout.splitlines() if line.startswith("| info_nce")]
    plain, tiles = (float(cell) for cell in row.split("|")[2:4])
    assert tiles < plain
