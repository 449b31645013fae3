"""What lies in the directory of one checkpoint: trees of arrays, the position in the data, a run's word on itself.

Read without Orbax's manager: its barriers hang every other process where one process cannot read its part.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from ecgjax.core import files, trees
from ecgjax.core.interfaces import Tree
from ecgjax.train import fingerprints
from ecgjax.train.state import TrainState

FORMAT = 2
"""What a run needs to go on from a checkpoint; 1 held the data position as one Grain state a process."""

COMMITTED = "commit_success.txt"
TREES = ("params", "extra", "opt_state")
_JSON = "metadata"


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
    own = {"format": FORMAT, fingerprints.SECTION: fingerprints.fingerprints(parts)}
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
    different = fingerprints.changed(parts, meta.get(fingerprints.SECTION, {}))
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
