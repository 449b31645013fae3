import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ecgjax.core import mesh as meshes
from ecgjax.train.checkpoint_files import changed, fingerprints


@pytest.fixture
def tree():
    rng = np.random.default_rng(0)
    return {
        "kernel": jnp.asarray(rng.normal(size=(8, 16)).astype(np.float32)),
        "half": jnp.asarray(rng.normal(size=16), jnp.bfloat16),
        "count": jnp.asarray(3),
        "seen": jnp.asarray([True, False]),
    }


def by_definition(array):
    """In whole numbers of Python, which know no overflow."""

    def mixed(x):
        x = (x ^ (x >> 16)) * 0x85EBCA6B % 2**32
        x = (x ^ (x >> 13)) * 0xC2B2AE35 % 2**32
        return x ^ (x >> 16)

    words = np.asarray(array).view({4: np.uint32, 2: np.uint16, 1: np.uint8}[array.dtype.itemsize])
    return sum(mixed(int(word) ^ mixed(place + 1)) for place, word in enumerate(words.ravel())) % 2**32


def test_fingerprints_are_those_of_the_definition(tree):
    assert fingerprints(tree) == {
        name: f"{leaf.dtype}:{by_definition(leaf):08x}" for name, leaf in sorted(tree.items())
    }


def test_fingerprints_are_the_same_on_every_mesh(tree):
    mesh = meshes.make_mesh(data=2, fsdp=4)
    spread = {**tree, "kernel": jax.device_put(tree["kernel"], NamedSharding(mesh, P("fsdp", "data")))}
    assert fingerprints(spread) == fingerprints(tree)


def changes():
    ones = np.ones(64, np.float32)
    yield "zeroed", ones, np.concatenate([ones[:32], np.zeros(32, np.float32)])
    yield "negated in two places", ones, ones * np.where(np.arange(64) < 2, -1, 1).astype(np.float32)
    yield "exchanged", np.arange(64, dtype=np.float32), np.roll(np.arange(64, dtype=np.float32), 1)
    yield "a sign of zero", np.zeros(4, np.float32), np.array([0, -0.0, 0, 0], np.float32)


@pytest.mark.parametrize(("before", "after"), [pair[1:] for pair in changes()], ids=[c[0] for c in changes()])
def test_whatever_changes_is_found(before, after):
    stored = fingerprints({"a": jnp.asarray(before), "b": jnp.ones(3)})
    assert changed({"a": jnp.asarray(before)}, stored) == []
    assert changed({"a": jnp.asarray(after), "b": jnp.ones(3)}, stored) == ["a"]


def test_another_dtype_an_unknown_leaf_and_one_that_was_not_read_cannot_tell(tree):
    stored = fingerprints(tree)
    unread = jax.ShapeDtypeStruct((16,), jnp.bfloat16)
    other = {"kernel": tree["kernel"].astype(jnp.bfloat16), "new": jnp.ones(3), "half": unread}
    assert changed(other, stored) == []
