"""Orbax's manager, patient with storage: a save that fails is tried again, or made good by the next one."""

import functools
import logging
import time
from collections.abc import Callable
from typing import NoReturn

import jax
import orbax.checkpoint as ocp
from etils import epath

from ecgjax.core import files, runtime

_LIMIT = 3
"""Saves in a row that may fail before the run ends."""

_STRAGGLERS_S = 5.0
"""How long the other writers of a failed save may go on: one item fails, and Orbax does not wait for the rest."""


class CheckpointWriter:
    """Saves in the background; what storage does to them surfaces at the next call."""

    def __init__(self, directory: epath.Path, options: ocp.CheckpointManagerOptions):
        self._directory = directory
        self._manager = ocp.CheckpointManager(directory, options=options)
        self._saving: int | None = None
        self._failures = 0

    def steps(self) -> list[int]:
        """Checkpoints that are there or being written, ascending."""
        return sorted(self._manager.all_steps())

    def reload(self) -> None:
        """Lists the directory anew."""
        self._manager.reload()

    def save(self, step: int, arguments: ocp.args.Composite) -> None:
        """Starts writing. A failure of the save before is said and made good by this one; a third in a row is final."""
        if step != self._saving:
            self._settle()
        if step in self.steps():
            return
        self._saving = step
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

    def _settle(self) -> None:
        try:
            self._wait()
        except Exception as error:
            if not files.may_pass(error):
                raise
            self._failures += 1
            if self._failures == _LIMIT:
                files.retried(functools.partial(_raise, error), self._what, self._directory, waits_s=())
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
        """Tries again at once where this process is alone: many would have to fail at the same point."""
        waits_s = None if jax.process_count() == 1 else ()
        files.retried(action, what, self._directory, waits_s=waits_s)


def _remove_all(directory: epath.Path, pattern: str) -> None:
    """Removes what matches, again where somebody still writes into it; what outlives that goes at the next start."""
    deadline = time.monotonic() + _STRAGGLERS_S
    while found := list(directory.glob(pattern)):
        for left in found:
            try:
                left.rmtree(missing_ok=True)
            except OSError:
                if time.monotonic() > deadline:
                    return
        time.sleep(0.02)


def _raise(error: Exception) -> NoReturn:
    raise error


# Orbax logs with a traceback what it then raises; what is raised is said, once.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
