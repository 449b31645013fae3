"""Which checkpoints a workdir holds, which of them is meant, and what it gives to those that only read it."""

from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from ecgjax.core import files, trees
from ecgjax.core.interfaces import Tree
from ecgjax.train import checkpoint_files
from ecgjax.train.checkpoint_files import COMMITTED, directory_of
from ecgjax.train.watch import Best

SCORES = "validation"


def steps(workdir: epath.PathLike) -> list[int]:
    """Finished checkpoints of a workdir, ascending.

    Orbax writes its marker last: a directory under a temporary name, or (on a bucket, which knows no renaming) one
    without the marker, does not count.
    """
    directory = directory_of(workdir)
    if not directory.exists():
        return []
    return sorted(
        int(path.name) for path in directory.iterdir() if path.name.isdigit() and (path / COMMITTED).exists()
    )


def choose_step(workdir: epath.PathLike, step: int | str | None = None) -> int:
    """A step by number, `last` (as is None) or `best`; a workdir without it is an error that lists what is there.

    `best` is the best by what config.checkpoint.best of the run says.
    """
    found = steps(workdir)
    if not found:
        raise ValueError(
            f"{workdir} holds no checkpoint; it is empty, foreign, or training has not saved yet."
        )
    if step in (None, "last"):
        return found[-1]
    if step == "best":
        return _best_step(workdir, found[-1])
    if isinstance(step, str) and not step.isdigit():
        raise ValueError(f"step {step!r}: expected a number, `last` or `best`; {workdir} holds {found}.")
    if int(step) not in found:
        raise ValueError(f"{workdir} holds no checkpoint of step {step}; it holds {found}.")
    return int(step)


def read_scores(workdir: epath.PathLike) -> dict[int, dict[str, float | None]]:
    """Validation metrics by step, of the checkpoints that were saved where training validated.

    A checkpoint that cannot be read has none: who restores it will say so.
    """
    scores = {}
    for step in steps(workdir):
        try:
            meta = read_meta(workdir, step)
        except ValueError:
            continue
        if SCORES in meta:
            scores[step] = meta[SCORES]
    return scores


def _best_step(workdir: epath.PathLike, last: int) -> int:
    config = read_meta(workdir, last)["config"]
    try:
        section = config["checkpoint"]["best"]
    except KeyError:  # Converted workdirs, and those written before the field was there.
        section = None
    if section is None or section["metric"] is None:
        raise ValueError(
            f"{workdir} has no best step: config.checkpoint.best.metric was not set; choose one of {steps(workdir)}."
        )
    best, scores = Best(**section), read_scores(workdir)
    if not (ranked := best.rank(scores)):
        raise ValueError(f"{workdir} holds no checkpoint with a finite {best.metric}; it holds {scores}.")
    return ranked[0]


def read_meta(workdir: epath.PathLike, step: int) -> Mapping[str, Any]:
    """Config, InputSpec and targets that training wrote beside a checkpoint."""
    try:
        return checkpoint_files.read_meta(directory_of(workdir) / str(step))
    except (ValueError, KeyError, OSError) as error:
        raise _unreadable(workdir, step, error) from None


def check_resumable(workdir: epath.PathLike) -> None:
    """Raises where the newest checkpoint is of a format that training cannot go on from."""
    if found := steps(workdir):
        try:
            meta = read_meta(workdir, found[-1])
        except ValueError:  # Damaged: the restore falls back, and says so.
            return
        checkpoint_files.check_format(directory_of(workdir) / str(found[-1]), meta)


def read_params(
    workdir: epath.PathLike,
    step: int,
    params: Tree,
    extra: Tree,
    *,
    wanted: Callable[[str], bool] | None = None,
) -> tuple[Tree, Tree]:
    """Parameters and `extra` of a checkpoint, without its optimiser, in the given shapes (and shardings).

    With `wanted` only the leaves whose path it takes are read; the others are returned as they were given.
    """
    directory = directory_of(workdir) / str(step)
    given = {"params": params, "extra": extra}
    try:
        if wanted is None:
            fresh = read = {
                name: checkpoint_files.read_tree(directory / name, tree) for name, tree in given.items()
            }
        else:
            read = {
                name: checkpoint_files.read_leaves(directory / name, tree, wanted)
                for name, tree in given.items()
            }
            fresh = {
                name: trees.map_named(lambda path, leaf: leaf if wanted(path) else None, tree)
                for name, tree in read.items()
            }
        if change := checkpoint_files.change(fresh, checkpoint_files.read_meta(directory)):
            raise ValueError(change)
    except (ValueError, KeyError, OSError) as error:
        raise _unreadable(workdir, step, error) from None
    return read["params"], read["extra"]


def _unreadable(workdir, step, error) -> ValueError:
    return ValueError(
        f"checkpoint {step} of {workdir} cannot be read ({files.first_line(error)}); choose another step of "
        f"{steps(workdir)}, or run training again: it falls back to the one before."
    )
