"""One program on every process: start-up, who leads, where logs go."""

import gc
import logging
import os
import sys

import jax
from absl import logging as absl_logging
from etils import epath

from ecgjax.core import distributed, files

INTERRUPTED = 75
"""Exit code (EX_TEMPFAIL) after a saved interruption: the same command goes on."""


def is_lead() -> bool:
    """Whether this process writes files and logs."""
    return distributed.process() == 0


def start(*, compile_cache: epath.PathLike | None = None) -> None:
    """Quiet third-party logs, keep ours, and cache compiled programs in `compile_cache`."""
    collect_rarely()
    absl_logging.set_verbosity(absl_logging.ERROR)
    for noisy in ("jax", "orbax", "grain", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if compile_cache is not None:
        jax.config.update("jax_compilation_cache_dir", os.fspath(files.absolute(compile_cache)))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def collect_rarely() -> None:
    """Has Python look for reference cycles less often, and not among the modules imported so far.

    Tracing makes millions of small objects that stay, and walking through them again and again took 40 % of the time
    to trace a ResNet-50 step. While a pod trains, a walk on one host is a wait for all.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def say(message: str) -> None:
    """One line for the person who watches; lead process only."""
    if is_lead():
        sys.stderr.write(message + "\n")
        sys.stderr.flush()


def devices() -> str:
    """What the program runs on, in words."""
    kinds = sorted({device.device_kind for device in jax.devices()})
    return f"{jax.device_count()} x {', '.join(kinds)} on {jax.process_count()} process(es)"
