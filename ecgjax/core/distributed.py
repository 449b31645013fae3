"""One program on several processes: start-up, what they tell each other, how they end together.

In a program of one process everything here is free: no service, no thread, nothing to wait for.
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import jax
from absl import flags
from jax._src import distributed as internal  # The key-value store has no public door.
from jax._src.cloud_tpu_init import running_in_cloud_tpu_vm
from jax.experimental import multihost_utils

from ecgjax.core import cluster, peers
from ecgjax.core.cluster import Cluster
from ecgjax.core.peers import BROKEN, RESUME, Peers

__all__ = [
    "BROKEN",
    "RESUME",
    "agreed",
    "barrier",
    "finish",
    "gather",
    "lead_first",
    "leave",
    "preempted",
    "start",
]

_peers: Peers | None = None


def start(args: flags.FlagValues) -> None:
    """Joins the other processes that flags, or the platform, speak of; before any use of devices."""
    global _peers
    found = cluster.find(
        args.distributed,
        os.environ,
        coordinator=args.coordinator,
        processes=args.processes,
        process=args.process,
        local_devices=_device_numbers(args.local_devices),
        on_tpu=running_in_cloud_tpu_vm and "tpu" in (jax.config.jax_platforms or "tpu"),
    )
    if found is None:
        return
    _initialize(found, join_timeout_s=args.join_timeout, peer_timeout_s=args.peer_timeout)
    state = internal.global_state
    if state.num_processes > 1:
        _peers = Peers(
            state.client,
            state.coordinator_address,
            process=state.process_id,
            processes=state.num_processes,
            host=socket.gethostname(),
            timeout_s=args.peer_timeout,
        )


def several() -> bool:
    """Whether this program runs on more than one process."""
    return _peers is not None


def process() -> int:
    """The number of this process; 0 leads. Asks no device."""
    return 0 if _peers is None else _peers.process


def name(number: int) -> str:
    """As `process 3 of 8 (host)`."""
    return "process 0" if _peers is None else _peers.name(number)


def gather(name: str, value: str) -> list[str]:
    """What every process says under `name`, in their order; every process must call it, in the same order."""
    return [value] if _peers is None else _peers.gather(name, value)


def agreed(name: str, value: Any) -> Any:
    """What the lead says under `name`, a JSON value: where a file system may show each process another state."""
    return json.loads(gather(name, json.dumps(value))[0])


def barrier(name: str) -> None:
    """Returns once every process is here."""
    gather(name, "")


@contextlib.contextmanager
def lead_first(name: str) -> Iterator[None]:
    """The lead goes through the body before the others do: what it creates there, they find."""
    if process() != 0:
        barrier(name)
    yield
    if process() == 0:
        barrier(name)


def preempted(step: int) -> bool:
    """Whether all processes are to stop at this step, since SIGTERM reached one of them; ask at every step.

    jax takes the signal, tells the others, and agrees on the first step that none has passed.
    """
    return several() and multihost_utils.reached_preemption_sync_point(step)


def leave(said: str, error: BaseException | None = None, *, code: int = 1) -> None:
    """Of several processes, ends all, each with this message; one alone goes on to end as it likes."""
    if _peers is not None:
        _peers.leave(said, error, code=code)


def finish() -> None:
    """The end of a job that ended well: waits for the others."""
    if _peers is not None:
        _peers.finish()


def _initialize(found: Cluster, *, join_timeout_s: int, peer_timeout_s: int) -> None:
    number = "this process" if found.process is None else f"process {found.process} of {found.processes}"
    place = f" at {found.coordinator}" if found.coordinator else ""
    way = "Look whether all were started and see each other, or say --distributed=off for one process."
    late = f"{number} has not met all others{place} within {join_timeout_s} s. {way}"
    peers.on_abort(lambda: peers.end(late, BROKEN))
    try:
        jax.distributed.initialize(
            found.coordinator,
            found.processes,
            found.process,
            found.local_devices,
            cluster_detection_method=found.detection,
            initialization_timeout=join_timeout_s,
            heartbeat_timeout_seconds=peer_timeout_s + 15,  # Ours speaks first, and says who.
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(
            f"{number} could not join the others{place}: {str(error).splitlines()[0]} {way}"
        ) from error


def _device_numbers(texts: list[str] | None) -> tuple[int, ...] | None:
    if texts is None:
        return None
    if not all(text.isdigit() for text in texts):
        raise ValueError(f"--local_devices={','.join(texts)}: expected numbers, as 0,1.")
    return tuple(map(int, texts))
