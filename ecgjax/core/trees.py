"""Paths, counts and digests of parameter trees."""

import hashlib
from collections.abc import Callable

import jax
import numpy as np

from ecgjax.core.interfaces import Tree


def path_name(path) -> str:
    """A leaf's path as `ecg/encoder/blocks/0/norm1/scale`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten(tree: Tree) -> dict[str, object]:
    """Leaves by path name, in tree order."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def map_named(function: Callable, tree: Tree) -> Tree:
    """Maps `function(name, leaf)` over a tree."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: function(path_name(path), leaf), tree)


def count(tree: Tree) -> int:
    """Number of values in all leaves; works on abstract trees."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def digest(tree: Tree) -> str:
    """16 hex digits over names, shapes and bytes: equal exactly when two trees are bitwise equal."""
    sha = hashlib.sha256()
    for name, leaf in flatten(jax.device_get(tree)).items():
        array = np.ascontiguousarray(leaf)
        sha.update(f"{name}:{array.dtype}:{array.shape};".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()[:16]
