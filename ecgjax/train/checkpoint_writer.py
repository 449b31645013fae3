"""Orbax's manager, patient with storage: a save that fails is tried again, or made good by the next one."""

import contextlib
import logging
import time
import traceback
from collections.abc import Callable

import orbax.checkpoint as ocp
from etils import epath

from ecgjax.core import distributed, files, runtime

_LIMIT = 3
"""Saves in a row that may fail before the run ends."""

_STRAGGLERS_S = 5.0
"""How long the other writers of a failed save may go on: one item fails, and Orbax does not wait for the rest."""


class CheckpointWriter:
    """Saves in the background; what storage does to them surfaces at the next call.

    Of several processes all end at once where it fails one of them: the others stand at Orbax's barriers, for 20
    minutes, and a try of its own would meet nobody there. The next start of the job is the next try.
    """

    def __init__(self, directory: epath.Path, options: ocp.CheckpointManagerOptions):
        self._directory = directory
        self._manager = ocp.CheckpointManager(directory, options=options)
        self._saving: int | None = None
        self._failures = 0
        if distributed.several():  # In front: the filter below drops what it sees.
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


# Orbax logs with a traceback what it then raises; what is raised is said, once.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
