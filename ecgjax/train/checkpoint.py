"""Checkpoints of a workdir: state, data position, config and InputSpec at a step (Orbax)."""

import functools
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    CustomSteps,
    LatestN,
    PreservationPolicy,
)

from ecgjax.core import distributed, files, runtime, trees
from ecgjax.core.interfaces import Tree
from ecgjax.train import checkpoint_files
from ecgjax.train.checkpoint_files import COMMITTED, FormatError, Restored, directory_of
from ecgjax.train.checkpoint_writer import CheckpointWriter
from ecgjax.train.state import TrainState
from ecgjax.train.watch import Best, KeepBest, finite

_SCORES = "validation"

_LATE_S = (1.0, 5.0, 25.0, 35.0)
"""Seconds to wait for a network file system, which may show a host for a minute what was there before."""


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
        self._directory, self._best = directory_of(workdir), best
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
        self._writer = CheckpointWriter(self._directory, options)

    def wants(self, step: int, scores: Mapping[str, float]) -> bool:
        """Whether `step`, with these validation metrics, is among the best so far."""
        return self._best is not None and step in self._best.chosen({**self._scores, step: finite(scores)})

    def save(
        self,
        state: TrainState,
        next_batch: int,
        meta: Mapping[str, Any],
        scores: Mapping[str, float] | None = None,
    ) -> None:
        """Starts writing; the arrays are copied before this returns, so the state may be donated.

        `scores` are the validation metrics of this step, where it was validated. A step that is there already stays.
        """
        step = int(state.step)
        if scores is not None:
            self._scores[step] = finite(scores)
            meta = {**meta, _SCORES: self._scores[step]}
        self._writer.save(step, lambda: checkpoint_files.arguments(state, next_batch, meta))

    def finish(self, again: Callable[[], None]) -> None:
        """Returns once the newest save is on disk; `again` repeats it where storage let it down."""
        self._writer.finish(again)

    def restore_latest(self, state: TrainState) -> Restored | None:
        """Restores the newest readable checkpoint into the shapes and shardings of `state`.

        A checkpoint that some process cannot read is moved to `damaged/`, said aloud, and the one before is taken by
        all of them; one that is whole but belongs to another model, or is of another format, is an error.
        """
        for step in reversed(self._steps()):
            directory = self._directory / str(step)
            restored, damage = None, ""
            try:
                restored = files.retried(
                    functools.partial(checkpoint_files.read, directory, state),
                    f"reading {directory}",
                    directory,
                )
            except (FormatError, files.StorageError):
                raise
            except (ValueError, KeyError, OSError) as error:
                if lines := checkpoint_files.misfits(directory, state):
                    raise ValueError(
                        f"checkpoint {step} of {self._directory.parent} is of another model: {'; '.join(lines[:5])}. "
                        f"Resume with the config and the ecgjax that wrote it, or choose another --workdir."
                    ) from None
                damage = files.first_line(error)
            damages = distributed.gather("restored", damage)
            if not any(damages):
                damages = [checkpoint_files.change(checkpoint_files.named(restored.state), restored.meta)]
            if not any(damages):
                return restored
            self._set_aside(step, next(filter(None, damages)))
        return None

    def close(self) -> None:
        """Waits, then releases the directory."""
        self._writer.close()

    def _steps(self) -> list[int]:
        """The checkpoints that are there, the same for every process: from two lists two states would be restored."""
        for wait in (*_LATE_S, None):
            seen = [
                json.loads(text) for text in distributed.gather("steps", json.dumps(self._writer.steps()))
            ]
            different = [number for number, steps in enumerate(seen) if steps != seen[0]]
            if not different:
                return seen[0]
            if wait is not None:
                time.sleep(wait)
                self._writer.reload()
        number = different[0]
        raise ValueError(
            f"{distributed.name(number)} sees checkpoints {seen[number]} in {self._directory}, process 0 {seen[0]}; "
            f"they see two directories. Choose a --workdir on a file system that all share, or a gs:// bucket."
        )

    def _set_aside(self, step: int, damage: str) -> None:
        self._scores.pop(step, None)
        aside = self._directory.parent / "damaged" / str(step)
        runtime.say(
            f"checkpoint {step} of {self._directory.parent} cannot be read ({damage}); moved to {aside}, "
            f"falling back to the one before."
        )
        if runtime.is_lead():
            aside.parent.mkdir(parents=True, exist_ok=True)
            if aside.exists():
                aside.rmtree()
            (self._directory / str(step)).rename(aside)
        distributed.barrier("set aside")  # Nobody lists what is there before it is moved.
        self._writer.reload()


def write_params(
    workdir: epath.PathLike, step: int, params: Tree, extra: Tree, meta: Mapping[str, Any]
) -> None:
    """Writes a checkpoint that can be read but not resumed: no optimiser, no data position."""
    items = checkpoint_files.stored({"params": params, "extra": extra}, meta)
    with ocp.CheckpointManager(directory_of(workdir)) as manager:
        manager.save(step, args=ocp.args.Composite(**items))


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


logging.getLogger("orbax").setLevel(logging.ERROR)
