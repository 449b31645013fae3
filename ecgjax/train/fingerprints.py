"""A number for every stored array, which tells whether storage gave back what it was given.

What a machine that lost power has left may be as long as it was and hold zeros; compressed arrays that cannot be
compressed are stored as they are, and zeros in them are read without a word.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped, UInt32

from ecgjax.core import trees
from ecgjax.core.interfaces import Tree

SECTION = "fingerprints"
"""Where the meta of a checkpoint holds them; those written before it was there are taken at their word."""


def fingerprints(tree: Tree) -> dict[str, str]:
    """The dtype and 32 bits of every leaf that holds values, by path; the same on every mesh.

    Every word is mixed with its place and the results are summed modulo 2**32: whole numbers sum to the same in any
    order. Computed where the arrays are, so that all processes call it together.
    """
    leaves = {
        path: leaf for path, leaf in trees.flatten(tree).items() if not isinstance(leaf, jax.ShapeDtypeStruct)
    }
    # One after the other: sums over devices that are all under way at once can wait for each other on fake devices.
    return {
        path: f"{leaf.dtype}:{int(jax.device_get(_mixed_sum(leaf))):08x}" for path, leaf in leaves.items()
    }


def changed(tree: Tree, stored: Mapping[str, str]) -> list[str]:
    """Paths of the leaves that are not what was stored; those of another dtype or unknown to `stored` cannot tell."""
    known = {
        path: leaf
        for path, leaf in trees.flatten(tree).items()
        if stored.get(path, "").startswith(f"{leaf.dtype}:")
    }
    return sorted(path for path, found in fingerprints(known).items() if found != stored[path])


@jax.jit
def _mixed_sum(x: Shaped[Array, "*shape"]) -> UInt32[Array, ""]:
    words = _words(x)
    place, stride = jnp.zeros(words.shape, jnp.uint32), 1
    for axis in reversed(range(words.ndim)):
        place += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * np.uint32(stride % 2**32)
        stride *= words.shape[axis]
    return jnp.sum(_mixed(words ^ _mixed(place + 1)), dtype=jnp.uint32)


def _words(x: Shaped[Array, "*shape"]) -> UInt32[Array, "..."]:
    """The bits of `x` as they are, so that -0 is not 0, and one NaN not another."""
    if x.dtype == bool:
        return x.astype(jnp.uint32)
    if x.dtype.itemsize >= 4:
        return jax.lax.bitcast_convert_type(x, jnp.uint32)  # Two words for each number of 64 bits.
    return jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}")).astype(jnp.uint32)


def _mixed(x: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """The last step of MurmurHash3 (public domain): every bit of the word moves every bit of the result."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
