"""Checkpoints of a workdir, open for training: saved in the background, kept by rule, restored where they are whole."""

import contextlib
import functools
import json
import logging
import time
import traceback
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

from ecgjax.core import distributed, files, runtime
from ecgjax.core.interfaces import Tree
from ecgjax.train import checkpoint, checkpoint_files
from ecgjax.train.checkpoint_files import FormatError, Restored, directory_of
from ecgjax.train.state import TrainState
from ecgjax.train.watch import Best, KeepBest, finite

_LATE_S = (1.0, 5.0, 25.0, 35.0)
"""Seconds to wait for a network file system, which may show a host for a minute what was there before."""

_LIMIT = 3
"""Saves in a row that may fail before the run ends."""

_STRAGGLERS_S = 5.0
"""How long the other writers of a failed save may go on: one item fails, and Orbax does not wait for the rest."""


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
        self._scores = {} if best is None else checkpoint.read_scores(workdir)
        policies: list[PreservationPolicy] = [LatestN(keep), CustomSteps(tuple(preserve))]
        if best is not None:
            policies.append(KeepBest(best, self._scores))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,  # What a killed save left behind.
            enable_async_checkpointing=True,
        )
        self._writer = _Writer(self._directory, options)

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
            meta = {**meta, checkpoint.SCORES: self._scores[step]}
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


class _Writer:
    """Orbax's manager, patient with storage: a save that fails is tried again, or made good by the next one.

    Saves run in the background; what storage does to them surfaces at the next call.

    Of several processes all end at once where it fails one of them: the others stand at Orbax's barriers, for 20
    minutes, and a try of its own would meet nobody there. The next start of the job is the next try.
    """

    def __init__(self, directory: epath.Path, options: ocp.CheckpointManagerOptions):
        self._directory = directory
        self._manager = ocp.CheckpointManager(directory, options=options)
        self._saving: int | None = None
        self._failures = 0
        if distributed.several():  # In front: that of `checkpoint_files` drops what it sees.
            logging.getLogger("absl").filters.insert(0, self._overhear)

    def steps(self) -> list[int]:
        """Checkpoints that are there or being written, ascending."""
        return sorted(self._manager.all_steps())

    def reload(self) -> None:
        """Lists the directory anew."""
        self._manager.reload()

    def save(self, step: int, make_arguments: Callable[[], ocp.args.Composite]) -> None:
        """Starts writing, if the step is not there yet; a failure of the save before is said and made good by this one.

        A third failure in a row is final.
        """
        if step != self._saving:
            self._settle()
        if step in self.steps():
            return
        self._saving, arguments = step, make_arguments()
        self._retried(lambda: self._start(step, arguments), self._what)

    def finish(self, again: Callable[[], None]) -> None:
        """Returns once the newest save is on disk; `again` repeats it where storage let it down."""

        def finish() -> None:
            again()
            self._wait()

        self._retried(finish, "writing the newest checkpoint")

    def close(self) -> None:
        """Waits, then releases the directory; what matters was waited for by `finish`, so no failure hides another."""
        try:
            self._wait()
        except Exception as error:
            files.complain(f"{self._what} failed ({files.first_line(error)}); those before are whole.")
        self._manager.close()
        logging.getLogger("absl").removeFilter(self._overhear)

    def _settle(self) -> None:
        try:
            self._wait()
        except Exception as error:
            if not files.may_pass(error):
                raise
            self._failures += 1
            if self._failures == _LIMIT:
                raise files.storage_error(self._what, error, self._directory) from error
            files.complain(
                f"{self._what} failed ({files.first_line(error)}); training goes on, the next save makes it good."
            )
        else:
            self._failures = 0

    def _start(self, step: int, arguments: ocp.args.Composite) -> None:
        try:
            self._manager.save(step, args=arguments, force=True)
        except Exception:
            self._forget()
            raise

    def _wait(self) -> None:
        try:
            self._manager.wait_until_finished()
        except Exception:
            self._forget()
            raise

    def _forget(self) -> None:
        """Removes what a failed save left, so that the step can be saved anew."""
        if runtime.is_lead():
            _remove_all(self._directory, "*.orbax-checkpoint-tmp*")
        self.reload()

    @property
    def _what(self) -> str:
        return f"writing checkpoint {self._saving}"

    def _retried(self, action: Callable[[], None], what: str) -> None:
        if not distributed.several():
            return files.retried(action, what, self._directory)
        try:
            return action()
        except Exception as error:
            self._end_all(error)
            raise

    def _overhear(self, record: logging.LogRecord) -> bool:
        """A filter of Orbax's log, which has a failure of its writing thread before anybody can be raised to."""
        if record.exc_info and "async_checkpointer" in record.pathname:
            self._end_all(record.exc_info[1])
        return True

    def _end_all(self, error: BaseException) -> None:
        """Of several processes; one alone goes on. A launcher starts again what may pass, and no full disk."""
        if not files.may_pass(error):
            said, code = "".join(traceback.format_exception(error)), 1
        elif files.is_full(error):
            said, code = str(files.storage_error(self._what, error, self._directory)), 1
        else:
            said = f"{self._what} failed ({files.first_line(error)}); {distributed.RESUME}"
            code = distributed.BROKEN
        distributed.leave(said, error, code=code)


def _remove_all(directory: epath.Path, pattern: str) -> None:
    """Removes what matches until nobody writes there any more; what outlives that goes at the next start."""
    deadline, quiet = time.monotonic() + _STRAGGLERS_S, 0
    while quiet < 2 and time.monotonic() < deadline:  # A writer may be about to make its directory anew.
        found = list(directory.glob(pattern))
        quiet = 0 if found else quiet + 1
        for left in found:
            with contextlib.suppress(OSError):
                left.rmtree(missing_ok=True)
        time.sleep(0.05)
