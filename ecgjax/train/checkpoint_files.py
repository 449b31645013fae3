"""What lies in the directory of one checkpoint: trees of arrays, the position in the data, a run's word on itself.

Read without Orbax's manager: its barriers hang every other process where one process cannot read its part.

Beside the arrays lies a fingerprint of each, which tells whether storage gave back what it was given. What a machine
that lost power has left may be as long as it was and hold zeros; compressed arrays that cannot be compressed are stored
as they are, and zeros in them are read without a word.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import Array, Shaped, UInt32

from ecgjax.core import files, trees
from ecgjax.core.interfaces import Tree
from ecgjax.train.state import TrainState

FORMAT = 2
"""What a run needs to go on from a checkpoint; 1 held the data position as one Grain state a process."""

COMMITTED = "commit_success.txt"
TREES = ("params", "extra", "opt_state")
_JSON = "metadata"

FINGERPRINTS = "fingerprints"
"""Where the meta of a checkpoint holds them; those written before it was there are taken at their word."""


def directory_of(workdir: epath.PathLike) -> epath.Path:
    """The `checkpoints/` of a workdir."""
    return files.absolute(workdir) / "checkpoints"  # TensorStore refuses relative paths.


def arguments(state: TrainState, next_batch: int, meta: Mapping[str, Any]) -> ocp.args.Composite:
    """What Orbax is to write of a state that training can go on from."""
    items = stored(named(state), meta)
    return ocp.args.Composite(**items, data=ocp.args.JsonSave({"next_batch": next_batch}))


def named(state: TrainState) -> dict[str, Tree]:
    """The trees of a state, as they are stored."""
    return {name: getattr(state, name) for name in TREES}


def stored(parts: Mapping[str, Tree], meta: Mapping[str, Any]) -> dict[str, ocp.args.CheckpointArgs]:
    """Trees, of which those without leaves are left out, with the run's word on itself and on them."""
    arrays = {name: ocp.args.StandardSave(tree) for name, tree in parts.items() if jax.tree.leaves(tree)}
    own = {"format": FORMAT, FINGERPRINTS: fingerprints(parts)}
    return {**arrays, "meta": ocp.args.JsonSave({**meta, **own})}


class Restored(NamedTuple):
    """A checkpoint as read: the state, the number of the next batch, and what the run wrote beside them."""

    state: TrainState
    next_batch: int
    meta: Mapping[str, Any]


def read(directory: epath.Path, state: TrainState) -> Restored:
    """Reads all that training needs to go on, in the shapes and shardings of `state`; raises where it is not whole.

    No process waits for another in here: each finds out for itself what it can read.
    """
    if not (directory / COMMITTED).exists():
        raise ValueError(f"{COMMITTED} is missing: the save did not finish")
    meta = read_meta(directory)
    check_format(directory, meta)
    next_batch = read_next_batch(directory)
    parts = {name: read_tree(directory / name, getattr(state, name)) for name in TREES}
    number = np.asarray(int(directory.name), np.int32)
    step = jax.make_array_from_callback((), state.step.sharding, lambda _: number)
    return Restored(TrainState(step, **parts), next_batch, meta)


def read_tree(directory: epath.Path, tree: Tree) -> Tree:
    """Reads one tree in the given shapes and shardings; raises where the stored one has other leaves."""
    if not jax.tree.leaves(tree):
        return tree
    with _as_storage_said():
        return ocp.StandardCheckpointHandler().restore(directory, args=ocp.args.StandardRestore(tree))


def read_leaves(directory: epath.Path, tree: Tree, wanted: Callable[[str], bool]) -> Tree:
    """Reads the leaves whose path is `wanted`; the others stay in their file, and in the result as in `tree`."""
    asked = trees.map_named(lambda name, leaf: leaf if wanted(name) else ocp.PLACEHOLDER, tree)
    if all(leaf is ocp.PLACEHOLDER for leaf in jax.tree.leaves(asked)):
        return tree
    arguments = ocp.args.PyTreeRestore(
        item=asked, restore_args=ocp.checkpoint_utils.construct_restore_args(asked)
    )
    with _as_storage_said():
        read = ocp.PyTreeCheckpointHandler().restore(directory, args=arguments)
    return jax.tree.map(lambda leaf, given: given if leaf is ocp.PLACEHOLDER else leaf, read, tree)


@contextlib.contextmanager
def _as_storage_said() -> Iterator[None]:
    """Raises what TensorStore raised: Orbax puts it into a bare Exception, which nobody could tell from a bug."""
    try:
        yield
    except Exception as error:
        if type(error) is not Exception or error.__cause__ is None:
            raise
        raise error.__cause__ from None


def change(parts: Mapping[str, Tree], meta: Mapping[str, Any]) -> str:
    """What in trees as read is not what `meta` says was written, or nothing; all processes call it together."""
    different = changed(parts, meta.get(FINGERPRINTS, {}))
    if not different:
        return ""
    return f"{len(different)} arrays are not what was written, the first is {different[0]}"


def read_meta(directory: epath.Path) -> dict[str, Any]:
    """What training wrote beside the arrays."""
    return files.read_json(directory / "meta" / _JSON)


def read_next_batch(directory: epath.Path) -> int:
    """Number of the training batch that comes after this checkpoint."""
    item = files.read_json(directory / "data" / _JSON)
    number = item.get("next_batch")
    if not isinstance(number, int) or number < 0:
        raise ValueError(f"the data position is {item}, not a number of a batch")
    return number


def check_format(directory: epath.Path, meta: Mapping[str, Any]) -> None:
    """Raises where training cannot go on from a checkpoint because another ecgjax wrote it."""
    found = meta.get("format", 1)
    if found != FORMAT:
        workdir = directory.parent.parent
        raise FormatError(
            f"checkpoint {directory.name} of {workdir} has format {found}, written by ecgjax "
            f"{meta.get('version', 'of unknown version')}; this one goes on from format {FORMAT} only. Resume with the "
            f"ecgjax that wrote it, or train in a new --workdir with --config.init_from.workdir={workdir}, which needs "
            f"the weights alone."
        )


class FormatError(ValueError):
    """A checkpoint is whole, but of an older or newer format."""


def misfits(directory: epath.Path, state: TrainState) -> list[str]:
    """Leaves that a checkpoint has in another shape, or not at all, or too many; none where it cannot say."""
    lines = []
    for name in TREES:
        try:
            stored = ocp.StandardCheckpointHandler().metadata(directory / name).tree
            found = {path: tuple(leaf.shape) for path, leaf in trees.flatten(stored).items()}
        except (ValueError, KeyError, OSError, AttributeError):  # Damaged: the restore has said so.
            continue
        wanted = {path: tuple(leaf.shape) for path, leaf in trees.flatten(getattr(state, name)).items()}
        lines += [
            f"{name}/{path} is {found.get(path, 'absent')}, needed {wanted.get(path, 'not at all')}"
            for path in sorted(found.keys() | wanted.keys())
            if found.get(path) != wanted.get(path)
        ]
    return lines


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


logging.getLogger("orbax").setLevel(logging.ERROR)
# Orbax logs with a traceback what it then raises; what is raised is said, once.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
