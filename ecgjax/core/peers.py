"""The processes of one job watch each other: none waits for one that is gone, none ends without saying why.

On a TPU a collective waits for ever for a process that died, and jax aborts without a name. So every process says
each second that it is there, in the key-value store of the coordinator, the lead looks who has stopped saying so,
and whoever ends the job leaves a last word there that all others print before they end as well.
"""

import ctypes
import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import jax

BROKEN = 76
"""Exit code where this process is well but another is gone or stuck: the same command goes on."""

RESUME = "the same command, on all processes, goes on from the last checkpoint."
"""The way out of what no person needs to mend."""

_PATIENCE_S = 3600
"""For a process that is there but does not come along, as one that reads its data from a slow disk."""

_NOTICE_S = 60
"""After which it is said for whom all others wait."""

_EVERY_S = 1.0
_LINGER_S = 3 * _EVERY_S
_SPACE = "ecgjax"
_LAST_WORD = f"{_SPACE}/last_word"
_BEATS = f"{_SPACE}/beats"

_handler: Any = None  # C holds no reference.


class Peers:
    """This process among those of its job; `client` is that of jax's coordination service."""

    def __init__(
        self, client: Any, coordinator: str, *, process: int, processes: int, host: str, timeout_s: float
    ):
        self.process, self.processes = process, processes
        self._client, self._coordinator, self._timeout_s = client, coordinator, timeout_s
        self._calls: dict[str, int] = {}
        self._waiting: tuple[str, str, float] | None = None  # At what, its place in the store, since when.
        self._heard = time.monotonic()
        self._over, self._leaving = threading.Event(), threading.Event()
        self._beats: dict[int, tuple[str, float]] = {}
        self._hosts = [host] * processes
        self._hosts = self.gather("hosts", host)
        on_abort(self._aborted)
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
        self._thread.start()

    def name(self, process: int) -> str:
        """As `process 3 of 8 (host)`."""
        return f"process {process} of {self.processes} ({self._hosts[process]})"

    def gather(self, name: str, value: str) -> list[str]:
        """What every process says, in their order; returns once all have said it."""
        number = self._calls[name] = self._calls.get(name, -1) + 1
        place = f"{_SPACE}/{name}/{number}"
        self._client.key_value_set(f"{place}/{self.process}", value)
        self._waiting = name, place, time.monotonic()
        try:
            self._client.wait_at_barrier(place, _PATIENCE_S * 1000)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
            late = sorted(set(range(self.processes)) - self._said(place).keys())
            names = ", ".join(map(self.name, late))
            self.leave(f"waited {_PATIENCE_S} s for {names} at {name!r}. {_resume()}", code=BROKEN)
        self._waiting = None
        said = self._said(place)
        return [said[process] for process in range(self.processes)]

    def _said(self, place: str) -> dict[int, str]:
        return {int(key.rpartition("/")[2]): text for key, text in self._client.key_value_dir_get(place)}

    def finish(self) -> None:
        """Waits for the others, then stops watching: from here on it is no failure to leave."""
        self.gather("finish", "")
        self._over.set()
        self._thread.join()

    def leave(self, said: str, error: BaseException | None = None, *, code: int = 1) -> NoReturn:
        """Says what happened, here and to all others, and ends this process without waiting for anyone.

        Where `error` comes from a collective, the cause is another process: its last word, or who is silent.
        """
        if error is not None and (lost := _lost_contact(error)) is not None:
            time.sleep(_LINGER_S)  # The other's last word, if any, ends this process meanwhile: see _watch.
            silent = self._silent()
            if silent or lost:
                said = f"{silent or 'lost contact with another process.'} {_resume(_line(error))}"
                code = BROKEN
        self._leaving.set()
        _write(f"{self.name(self.process)}: {said}")
        word = json.dumps({"said": said, "code": code})
        try:
            self._client.key_value_set(f"{_LAST_WORD}/{self.process}", word)
        except jax.errors.JaxRuntimeError:  # The coordinator is gone: nobody to tell, and all see it.
            pass
        else:
            if self.process == 0:  # The coordinator goes with it; let the others read first.
                time.sleep(_LINGER_S)
        _end(code)

    def _aborted(self) -> None:
        """jax aborts as soon as the coordinator goes; any other abort keeps its stacks and its exit code."""
        gone = time.monotonic() - self._heard > 5 * _EVERY_S  # A machine that stands still takes connections.
        host, _, port = self._coordinator.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError:
            gone = True
        if gone:
            end(f"{self.name(self.process)}: {self.name(0)}, the coordinator, is gone. {_resume()}", BROKEN)
        faulthandler.dump_traceback()
        _end(128 + signal.SIGABRT)

    def _silent(self) -> str:
        """Who has not been heard of while this process waited, in words; nothing where all were."""
        try:
            before = self._said(_BEATS)
            time.sleep(_LINGER_S)
            after = self._said(_BEATS)
        except jax.errors.JaxRuntimeError:
            return f"{self.name(0)} is gone."
        gone = [p for p in range(self.processes) if p != self.process and before.get(p) == after.get(p)]
        return f"{', '.join(map(self.name, gone))} is gone." if gone else ""

    def _notice(self) -> None:
        """Says once for whom all others wait; the first of those who do."""
        waiting = self._waiting
        if waiting is None or time.monotonic() - waiting[2] < _NOTICE_S:
            return
        name, place, _ = waiting
        there = self._said(place)
        if there and self.process == min(there):
            late = ", ".join(self.name(p) for p in range(self.processes) if p not in there)
            _write(f"{self.name(self.process)}: waiting for {late} at {name!r}.")
        self._waiting = None

    def _watch(self) -> None:
        beat = 0
        while not self._over.wait(_EVERY_S):
            beat += 1
            try:
                self._client.key_value_set(f"{_BEATS}/{self.process}", str(beat), allow_overwrite=True)
                words = self._said(_LAST_WORD)
                silent = self._overdue() if self.process == 0 else []
                self._notice()
                self._heard = time.monotonic()
            except jax.errors.JaxRuntimeError as error:
                if not self._over.is_set() and not self._leaving.is_set():
                    self.leave(
                        f"{self.name(0)}, the coordinator, is gone. {_resume(_line(error))}", code=BROKEN
                    )
                return
            if self._leaving.is_set():
                continue
            for process, text in words.items():
                word = json.loads(text)
                end(f"{self.name(self.process)}: ended by {self.name(process)}: {word['said']}", word["code"])
            if silent:
                names = ", ".join(map(self.name, silent))
                self.leave(f"{names} has been silent for {self._timeout_s:g} s. {_resume()}", code=BROKEN)

    def _overdue(self) -> list[int]:
        now = time.monotonic()
        for process, text in self._said(_BEATS).items():
            if self._beats.get(process, ("", 0.0))[0] != text:
                self._beats[process] = (text, now)
        return [p for p, (_, heard) in self._beats.items() if now - heard > self._timeout_s]


def on_abort(say: Callable[[], None]) -> None:
    """Calls `say` where this process aborts, which is how jax ends it if it cannot join or loses the coordinator.

    A handler in C: one of Python's would run after abort() has ended the process.
    """
    global _handler
    _handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: say())
    ctypes.CDLL(None).signal(signal.SIGABRT, _handler)


def _lost_contact(error: BaseException | None) -> bool | None:
    """Whether it is a collective, a barrier or the coordinator that failed: it is, it may be, or None for no.

    Where a chip of another host stops, each generation has its own words.
    """
    found = None
    while error is not None:
        text = str(error).lower()
        if isinstance(error, jax.errors.JaxRuntimeError) and not text.startswith(_OWN):
            found = found or any(sign in text for sign in _SIGNS)
        error = error.__cause__ or error.__context__
    return found


_SIGNS = (
    "gloo",
    "connection",
    "unavailable",
    "barrier",
    "coordination service",
    "heartbeat",
    "nccl",
    "megascale",
)
"""What jax's errors say where a peer is the cause."""

_OWN = ("resource_exhausted", "invalid_argument", "unimplemented")
"""How those begin where it is not."""


def _resume(line: str = "") -> str:
    return f"{RESUME[0].upper()}{RESUME[1:]}{f' ({line})' if line else ''}"


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _write(text: str) -> None:
    sys.stderr.write(text.rstrip() + "\n")
    sys.stderr.flush()


def end(said: str, code: int) -> NoReturn:
    """Says it and ends this process alone, without waiting for anyone."""
    _write(said)
    _end(code)


def _end(code: int) -> NoReturn:
    """Without Python's and jax's farewells, which would wait for the others."""
    sys.stdout.flush()
    os._exit(code)
