"""Ends a process whose loop has stopped making progress, so that its launcher starts it again."""

import faulthandler
import os
import sys
import tempfile
import threading
import time

from etils import epath

from ecgjax.core import distributed

_RARE = 6.0
_GRACE_S = 5.0


class Watchdog:
    """Watches the loop, and what comes before and after it, from a thread of its own; a step may take `minutes`.

    A collective that waits for a stuck process, a dead disk or a bug leaves no error to catch. Then this writes the
    stacks of all threads to stderr and WORKDIR/stalled/, says where the loop stands, and ends the process hard.
    """

    def __init__(self, minutes: float, workdir: epath.PathLike):
        self._limit_s, self._workdir = 60.0 * minutes, epath.Path(workdir)
        self._done = threading.Event()
        self.at("the start", rare=True)

    def at(self, what: str, *, rare: bool = False) -> None:
        """The loop's word that it got as far as `what`.

        What is `rare`, such as starting, compiling, validating and saving, may take six times as long as a step.
        """
        self._now = (what, time.monotonic(), self._limit_s * (_RARE if rare else 1.0))

    def __enter__(self):
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(min(1.0, self._limit_s / 10)):
            what, since, limit_s = self._now
            if time.monotonic() - since > limit_s:
                self._end(f"no progress for {limit_s:g} s at {what}")

    def _end(self, said: str) -> None:
        stacks = _stacks()
        sys.stderr.write(f"{said}; the stacks of this process:\n{stacks}")
        sys.stderr.flush()
        file = self._workdir / "stalled" / f"{distributed.process()}.txt"
        writer = threading.Thread(target=_write, args=(file, f"{said}\n{stacks}"), daemon=True)
        writer.start()  # The workdir may be what is stuck.
        time.sleep(_GRACE_S)  # For the file, and for the other processes to write theirs.
        said = f"{said}; stacks in {file.parent}. The same command goes on from the last checkpoint."
        distributed.leave(said, code=distributed.BROKEN)
        sys.stderr.write(said + "\n")
        sys.stderr.flush()
        os._exit(distributed.BROKEN)


def _stacks() -> str:
    with tempfile.TemporaryFile() as file:  # faulthandler wants a file descriptor.
        faulthandler.dump_traceback(file)
        file.seek(0)
        return file.read().decode()


def _write(file: epath.Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
