"""Checkpoints of a workdir: state, data position, config and InputSpec at a step (Orbax)."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    CustomSteps,
    LatestN,
    PreservationPolicy,
)

from ecgjax.core import files, runtime, trees
from ecgjax.core.interfaces import Tree
from ecgjax.train.state import TrainState
from ecgjax.train.watch import Best, KeepBest, finite

_COMMITTED = "commit_success.txt"
_TREES = ("params", "extra", "opt_state")
_SCORES = "validation"


class Restored(NamedTuple):
    """A checkpoint as read: the state, and what the run wrote beside it."""

    state: TrainState
    meta: Mapping[str, Any]


class Checkpoints:
    """The `checkpoints/` of a workdir, open for training; saves run in the background.

    Kept are the last `keep` steps, those in `preserve`, such as 0: the weights that training started from, and
    those that `best` chooses by the validation metrics they were saved with.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        *,
        keep: int = 2,
        preserve: Sequence[int] = (0,),
        best: Best | None = None,
    ):
        check_keep(keep)
        self._directory, self._best = _path(workdir), best
        self._directory.mkdir(parents=True, exist_ok=True)
        self._scores = {} if best is None else read_scores(workdir)
        policies: list[PreservationPolicy] = [LatestN(keep), CustomSteps(tuple(preserve))]
        if best is not None:
            policies.append(KeepBest(best, self._scores))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,  # What a killed save left behind.
            enable_async_checkpointing=True,
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def wants(self, step: int, scores: Mapping[str, float]) -> bool:
        """Whether `step`, with these validation metrics, is among the best so far."""
        return self._best is not None and step in self._best.chosen({**self._scores, step: finite(scores)})

    def save(
        self,
        state: TrainState,
        iterator: grain.DatasetIterator,
        meta: Mapping[str, Any],
        scores: Mapping[str, float] | None = None,
    ) -> None:
        """Starts writing; the arrays are copied before this returns, so the state may be donated.

        `scores` are the validation metrics of this step, where it was validated.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        if scores is not None:
            self._scores[step] = finite(scores)
            meta = {**meta, _SCORES: self._scores[step]}
        items = {name: ocp.args.StandardSave(getattr(state, name)) for name in _TREES if _leaves(state, name)}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                **items, data=grain.checkpoint.CheckpointSave(iterator), meta=ocp.args.JsonSave(dict(meta))
            ),
            force=True,
        )

    def restore_latest(self, state: TrainState, iterator: grain.DatasetIterator) -> Restored | None:
        """Restores the newest readable checkpoint into the shapes and shardings of `state`, and the iterator.

        A checkpoint that cannot be read is moved to `damaged/`, said aloud, and the one before is taken; one that
        is whole but belongs to another model is an error.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                if not (self._directory / str(step) / _COMMITTED).exists():
                    raise ValueError(f"{_COMMITTED} is missing: the save did not finish")
                return self._restore(step, state, iterator)
            except (ValueError, KeyError, OSError) as error:
                if lines := _misfits(self._directory / str(step), state):
                    raise ValueError(
                        f"checkpoint {step} of {self._directory.parent} is of another model: {'; '.join(lines[:5])}. "
                        f"Resume with the config and the ecgjax that wrote it, or choose another --workdir."
                    ) from None
                self._set_aside(step, error)
        return None

    def wait(self) -> None:
        """Returns once every save is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then releases the directory."""
        self._manager.wait_until_finished()
        self._manager.close()

    def _restore(self, step: int, state: TrainState, iterator: grain.DatasetIterator) -> Restored:
        items = {
            name: ocp.args.StandardRestore(getattr(state, name)) for name in _TREES if _leaves(state, name)
        }
        read = self._manager.restore(
            step,
            args=ocp.args.Composite(
                **items, data=grain.checkpoint.CheckpointRestore(iterator), meta=ocp.args.JsonRestore()
            ),
        )
        parts = {name: read[name] if name in items else getattr(state, name) for name in _TREES}
        return Restored(TrainState(jnp.asarray(step, jnp.int32), **parts), read["meta"])

    def _set_aside(self, step: int, error: Exception) -> None:
        self._scores.pop(step, None)
        aside = self._directory.parent / "damaged" / str(step)
        runtime.say(
            f"checkpoint {step} of {self._directory.parent} cannot be read ({_first_line(error)}); moved to {aside}, "
            f"falling back to the one before."
        )
        if runtime.is_lead():
            aside.parent.mkdir(parents=True, exist_ok=True)
            if aside.exists():
                aside.rmtree()
            (self._directory / str(step)).rename(aside)
        self._manager.reload()


def write_params(
    workdir: epath.PathLike, step: int, params: Tree, extra: Tree, meta: Mapping[str, Any]
) -> None:
    """Writes a checkpoint that can be read but not resumed: no optimiser, no data position."""
    both = {"params": params, "extra": extra}
    items = {name: ocp.args.StandardSave(tree) for name, tree in both.items() if jax.tree.leaves(tree)}
    with ocp.CheckpointManager(_path(workdir)) as manager:
        manager.save(step, args=ocp.args.Composite(**items, meta=ocp.args.JsonSave(dict(meta))))


def check_keep(keep: int) -> None:
    """Raises where so few checkpoints would be kept that a reader may lose its own."""
    if keep < 2:
        raise ValueError(
            f"config.checkpoint.keep is {keep}; at least 2, or an evaluator may lose the one it reads."
        )


def steps(workdir: epath.PathLike) -> list[int]:
    """Finished checkpoints of a workdir, ascending.

    Orbax writes its marker last: a directory under a temporary name, or (on a bucket, which knows no renaming) one
    without the marker, does not count.
    """
    directory = _path(workdir)
    if not directory.exists():
        return []
    return sorted(
        int(path.name) for path in directory.iterdir() if path.name.isdigit() and (path / _COMMITTED).exists()
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
        if _SCORES in meta:
            scores[step] = meta[_SCORES]
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
    with ocp.CheckpointManager(
        _path(workdir), options=ocp.CheckpointManagerOptions(read_only=True)
    ) as manager:
        try:
            return manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        except (ValueError, KeyError, OSError) as error:
            raise _unreadable(workdir, step, error) from None


def read_params(workdir: epath.PathLike, step: int, params: Tree, extra: Tree) -> tuple[Tree, Tree]:
    """Parameters and `extra` of a checkpoint, without its optimiser, in the given shapes (and shardings)."""
    wanted = {"params": params, "extra": extra}
    items = {name: ocp.args.StandardRestore(tree) for name, tree in wanted.items() if jax.tree.leaves(tree)}
    with ocp.CheckpointManager(
        _path(workdir), options=ocp.CheckpointManagerOptions(read_only=True)
    ) as manager:
        try:
            read = manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, OSError) as error:
            raise _unreadable(workdir, step, error) from None
    return tuple(read[name] if name in items else tree for name, tree in wanted.items())


def _leaves(state: TrainState, name: str) -> bool:
    return bool(jax.tree.leaves(getattr(state, name)))


def _path(workdir: epath.PathLike) -> epath.Path:
    return files.absolute(workdir) / "checkpoints"  # TensorStore refuses relative paths.


def _misfits(directory: epath.Path, state: TrainState) -> list[str]:
    """Leaves that a checkpoint has in another shape, or not at all, or too many; none where it cannot say."""
    lines = []
    for name in _TREES:
        try:
            stored = ocp.StandardCheckpointer().metadata(directory / name).item_metadata.tree
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


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _unreadable(workdir, step, error) -> ValueError:
    return ValueError(
        f"checkpoint {step} of {workdir} cannot be read ({_first_line(error)}); choose another step of "
        f"{steps(workdir)}, or run training again: it falls back to the one before."
    )


logging.getLogger("orbax").setLevel(logging.ERROR)
