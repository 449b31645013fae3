"""Compiles a lowered step and reads off what the compiler knows of it; that it does not fit is an answer too."""

import dataclasses
import hashlib
import importlib.metadata
import inspect
import math
import re
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any, Literal

import jax

import ecgjax
from ecgjax.core import chips, flops
from ecgjax.core.chips import GIB
from ecgjax.core.interfaces import Tree
from ecgjax.plans import collectives, groups, hlo, loops, program, records, traffic
from ecgjax.plans.records import Compiled, Memory, Program
from ecgjax.plans.topologies import Topology

Effort = Literal["full", "fast"]

_OPTIONS: dict[Effort, dict[str, float]] = {"full": {}, "fast": {"exec_time_optimization_effort": -1.0}}
_NEEDED = re.compile(r"\(([\d.]+)([KMGT])\) exceeds available HBM \(([\d.]+)([KMGT])\)")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


_READERS = (chips, collectives, groups, hlo, loops, program, records, traffic, flops, sys.modules[__name__])
"""What a report would be read anew for."""


class CompileError(ValueError):
    """The compiler refused the program for another reason than memory; the message is its first line."""


def devices(topology: Topology) -> list[jax.Device]:
    """Devices to compile for: described ones of a TPU, existing ones where the topology is local."""
    if topology.chip is None:
        found = jax.devices()
        if len(found) < topology.devices:
            raise ValueError(
                f"--topology={topology.name}: this machine has {len(found)} device(s); give local:{len(found)}."
            )
        return found[: topology.devices]
    from jax.experimental import topologies

    return list(topologies.get_topology_desc(**topology.describe()).devices)


def compile_lowered(
    lowered: jax.stages.Lowered,
    topology: Topology,
    order: Sequence[jax.Device],
    *,
    effort: Effort,
    batch_size: int,
    model_flops: int,
    state_bytes: dict[str, int],
    batch_norms: int = 0,
) -> Compiled:
    """Compiles; where the program does not fit, `error` holds what it needs and what there is.

    `order` are the devices as the mesh holds them.

    Both efforts give the same FLOPs and collectives; `fast` takes more memory (9 % were seen), and its cycles and
    memory traffic mean nothing. `peak_memory` is what the chip must hold; arguments, outputs and temporaries add up to
    more in loops.
    """
    began = time.perf_counter()
    memory, found, cost, error, needed = None, None, {}, None, None
    try:
        compiled = lowered.compile(dict(_OPTIONS[effort]) if topology.chip else None)
    except jax.errors.JaxRuntimeError as failure:
        text = str(failure)
        if not text.startswith("RESOURCE_EXHAUSTED"):
            raise CompileError(f"{topology.name}: the compiler says: {text.splitlines()[0]}") from None
        error, needed = _too_large(text)
    else:
        memory, cost = _memory(compiled, topology), _cost(compiled)
        found = _program(compiled.as_text(), topology, order)
    return Compiled(
        topology=topology.name,
        devices=topology.devices,
        batch_size=batch_size,
        model_flops=model_flops,
        effort=effort,
        seconds=time.perf_counter() - began,
        state_bytes=state_bytes,
        memory=memory,
        program=found,
        cost_analysis=cost,
        versions=versions(topology),
        error=error,
        needed=needed,
        host_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        batch_norms=batch_norms,
    )


def digest(lowered: jax.stages.Lowered, topology: Topology, effort: Effort, *, flags: str = "") -> str:
    """Stands for a program, where it shall run, how it is compiled, and by what it is compiled and read.

    `flags` are those that the environment gives the compiler.
    """
    readers = [inspect.getsource(module) for module in _READERS]
    where = topology.describe() if topology.chip else topology.name
    parts = (lowered.as_text(), where, effort, flags, sorted(versions(topology).items()), readers)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def versions(topology: Topology) -> dict[str, str]:
    """Of everything that can change what is compiled."""
    packages = ("jax", "jaxlib", *(("libtpu",) if topology.chip else ()))
    return {"ecgjax": ecgjax.__version__, **{name: importlib.metadata.version(name) for name in packages}}


def bytes_on_a_device(tree: Tree) -> int:
    """What the shards of abstract leaves with shardings take on one device, without tile padding."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)


def _memory(compiled: jax.stages.Compiled, topology: Topology) -> Memory:
    found = compiled.memory_analysis()
    memory = Memory(
        arguments=found.argument_size_in_bytes,
        outputs=found.output_size_in_bytes,
        aliased=found.alias_size_in_bytes,
        temporaries=found.temp_size_in_bytes,
        code=found.generated_code_size_in_bytes,
        peak=found.peak_memory_in_bytes,
        available=_available(topology),
    )
    if topology.chip is None:  # On a CPU what XLA calls the peak leaves temporaries out.
        memory = dataclasses.replace(memory, peak=max(memory.peak, memory.upper_bound))
    return memory


def _available(topology: Topology) -> int | None:
    if topology.chip is not None:
        return topology.chip.usable_bytes
    return (jax.devices()[0].memory_stats() or {}).get("bytes_limit")  # A CPU has none.


def _cost(compiled: jax.stages.Compiled) -> dict[str, float]:
    """`optimal_seconds` is left out: it is negative in most programs."""
    known: Any = compiled.cost_analysis() or {}
    return {name: float(known[name]) for name in ("flops", "bytes accessed") if name in known}


def _too_large(message: str) -> tuple[str, int | None]:
    match = _NEEDED.search(message)
    if match is None:  # The allocator of a GPU, or a new libtpu's words.
        return f"does not fit: {message.splitlines()[0]}", None
    needed, available = (float(match[i]) * _UNITS[match[i + 1]] for i in (1, 3))
    words = f"needs {needed / GIB:.2f} GiB of the {available / GIB:.2f} GiB that XLA may use of a device"
    return f"does not fit: {words}", int(needed)


def _program(text: str, topology: Topology, order: Sequence[jax.Device]) -> Program:
    return program.read_program(
        text,
        coordinates={i: tuple(getattr(device, "coords", ())) for i, device in enumerate(order)},
        slices={i: getattr(device, "slice_index", 0) for i, device in enumerate(order)},
        wrapped=topology.wrap if topology.chip else (),
    )
