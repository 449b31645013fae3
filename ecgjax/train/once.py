"""Programs compiled once: a call that would need another program is an error, and compilations are counted."""

import collections
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from ecgjax.core import runtime

_COMPILED = "/jax/core/compile/backend_compile_duration"
_CACHE_HIT = "/jax/compilation_cache/cache_hits"


class Once:
    """A jitted function that compiles at its first call and never again.

    Compiled ahead of time, so that a batch of another shape, dtype or sharding is refused rather than compiled for,
    which stalls every chip of a pod for minutes and changes what is computed.
    """

    def __init__(self, jitted: Callable, name: str):
        self._jitted, self._name = jitted, name
        self._program: jax.stages.Compiled | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Runs the program; raises before anything runs where it does not fit the arguments."""
        if self._program is None:
            self._program = self._compile(arguments)
        try:
            return self._program(*arguments)
        except (TypeError, ValueError) as error:
            first, *differences = str(error).splitlines()
            raise ValueError(
                f"the {self._name} is compiled, and these arguments differ from those of its first call; every batch "
                f"of a run must look the same:\n" + "\n".join(differences or [first])
            ) from error

    def _compile(self, arguments: tuple) -> jax.stages.Compiled:
        hits = []

        def note(event: str, **_) -> None:
            if event == _CACHE_HIT:
                hits.append(event)

        start = time.perf_counter()
        with jax.transfer_guard("allow"):  # Constants of the program may lie on a device.
            lowered = self._jitted.lower(*arguments)
        traced = time.perf_counter()
        jax.monitoring.register_event_listener(note)
        try:
            program = lowered.compile()
        finally:
            jax.monitoring.unregister_event_listener(note)
        how = "read from the compile cache" if hits else "compiled"
        took = time.perf_counter() - traced
        runtime.say(f"{self._name}: traced in {traced - start:.1f} s, {how} in {took:.1f} s.")
        return program


@contextlib.contextmanager
def counting() -> Iterator[collections.Counter[str]]:
    """Counts the compilations inside, by the name of the jitted function; one read from the cache counts too."""
    counts: collections.Counter[str] = collections.Counter()

    def note(event: str, _seconds: float, **about: Any) -> None:
        if event == _COMPILED:
            counts[about["fun_name"].removeprefix("jit(").removesuffix(")")] += 1

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield counts
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
