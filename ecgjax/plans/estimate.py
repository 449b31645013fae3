"""How long a compiled step takes on its topology, and what holds it up: a model, not a measurement.

Three times are told side by side, since no one of them is right: the FLOP roof, the HBM roof, and the compiler's own
estimate of its kernels, which knows of small channels and vector work but of no communication.
"""

import dataclasses
from collections.abc import Iterator

from ecgjax.plans.communication import Leg, leg
from ecgjax.plans.records import Compiled, Program
from ecgjax.plans.topologies import Topology

HBM_EFFICIENCY = 0.9
"""Of the memory's bandwidth, which is what the compiler itself assumes."""

LARGE_REDUCTION = 2**20
"""Bytes from which a sum over devices is told with its dtype: gradients, and embeddings of large batches."""

WORTH_TELLING = 0.05
"""The share of a step from which the latency of small collectives is named beside the larger cause."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds, FLOPs and bytes of one chip and one step; `mfu` and `hfu` are bounds from above.

    `model_flops` leave out what is repeated to save memory, `flops` are those of the program. `cycles_s` and `hbm_s`
    are None where the compilation does not tell. `exposed_s` is what communication adds to the step: all that blocks
    (`blocking_s`), and of the rest (`hidden_s`) what is longer than the work behind which it runs. `latency_s` and
    `latency_count` are the blocking collectives that wait for their way more than for their bytes. With `caveats` the
    step takes longer than `step_s`, for these reasons.
    """

    chips: int
    batch_size: int
    model_flops: float
    flops: float
    hbm_bytes: float | None
    flop_s: float
    hbm_s: float | None
    cycles_s: float | None
    legs: tuple[Leg, ...]
    blocking_s: float
    hidden_s: float
    exposed_s: float
    latency_s: float
    latency_count: int
    step_s: float
    mfu: float
    hfu: float
    input_bytes_per_s: float
    input_bytes_per_s_host: float
    caveats: tuple[str, ...]

    @property
    def compute_s(self) -> float:
        """The step without communication: the longest of the times that are known."""
        return max(self.flop_s, self.hbm_s or 0.0, self.cycles_s or 0.0)

    @property
    def samples_per_s(self) -> float:
        """Of all chips."""
        return self.batch_size / self.step_s

    @property
    def samples_per_s_chip(self) -> float:
        """Of one chip."""
        return self.samples_per_s / self.chips

    @property
    def limit(self) -> str:
        """What the step waits for longest, and small collectives where they are a share worth telling."""
        causes = {"kernels (compiler model)": self.cycles_s, "HBM": self.hbm_s, "FLOP roof": self.flop_s}
        slowest = next(name for name, seconds in causes.items() if seconds == self.compute_s)
        small = f"the latency of {self.latency_count} small collectives"
        if self.exposed_s > self.compute_s:
            return small if 2 * self.latency_s > self.exposed_s else "communication"
        return f"{slowest} and {small}" if self.latency_s >= WORTH_TELLING * self.step_s else slowest


def estimate(compiled: Compiled, topology: Topology) -> Estimate:
    """The step of a program that fits, on chips whose facts are known.

    Step = max(cycles / clock, HBM bytes / 0.9 bandwidth, FLOPs / peak) + exposed communication.
    """
    chip, program = topology.chip, compiled.program
    if chip is None or program is None:
        raise ValueError(
            f"{topology.name}: {compiled.error or 'nothing is known of the speed of its chips'}."
        )
    devices, slow = topology.devices_per_chip, compiled.effort == "fast"
    flops = program.flops * devices
    hbm_bytes = None if slow else float(program.hbm_bytes * devices)
    hbm_s = None if hbm_bytes is None else hbm_bytes / (HBM_EFFICIENCY * chip.hbm_bandwidth)
    cycles_s = None if slow or program.cycles is None else program.cycles / chip.clock_hz
    compute_s = max(flops / chip.flops, hbm_s or 0.0, cycles_s or 0.0)

    legs = tuple(leg(collective, topology) for collective in program.collectives)
    blocking = [one for one in legs if one.collective.blocking]
    small = [one for one in blocking if one.latency_bound]
    hidden = [one for one in legs if not one.collective.blocking]
    blocking_s, hidden_s = (sum((one.seconds for one in some), 0.0) for some in (blocking, hidden))
    uncovered_s = 0.0 if cycles_s is None else sum((_uncovered(one, chip.clock_hz) for one in hidden), 0.0)
    exposed_s = blocking_s + max(uncovered_s, hidden_s - compute_s, 0.0)
    step_s = compute_s + exposed_s
    model_flops = compiled.model_flops / topology.chips
    batch_bytes = compiled.state_bytes["batch"] * devices
    return Estimate(
        chips=topology.chips,
        batch_size=compiled.batch_size,
        model_flops=model_flops,
        flops=flops,
        hbm_bytes=hbm_bytes,
        flop_s=flops / chip.flops,
        hbm_s=hbm_s,
        cycles_s=cycles_s,
        legs=legs,
        blocking_s=blocking_s,
        hidden_s=hidden_s,
        exposed_s=exposed_s,
        latency_s=sum((one.seconds for one in small), 0.0),
        latency_count=sum(one.collective.times for one in small),
        step_s=step_s,
        mfu=model_flops / (chip.flops * step_s),
        hfu=flops / (chip.flops * step_s),
        input_bytes_per_s=batch_bytes / step_s,
        input_bytes_per_s_host=batch_bytes / step_s * topology.chips / topology.hosts,
        caveats=tuple(_caveats(compiled)),
    )


def large_reductions(program: Program) -> dict[str, int]:
    """Bytes of a device in large sums over devices, by dtype: what precision gradients are added in.

    Where a model is so small that none is large, its largest.
    """
    sums = [one for one in program.collectives if one.kind in ("all-reduce", "reduce-scatter")]
    least = min(LARGE_REDUCTION, max((one.bytes for one in sums), default=0))
    found: dict[str, int] = {}
    for one in sums:
        if one.bytes >= least:
            dtypes = "+".join(sorted(set(one.dtypes)))
            found[dtypes] = found.get(dtypes, 0) + one.times * one.bytes
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def margin(compiled: Compiled) -> int | None:
    """Bytes of a device that stay free; None where its limit or the program's need is unknown.

    Beside the peak that XLA counts a device holds the program's code and the next batch, which arrives during the step.
    """
    memory = compiled.memory
    if memory is None or memory.available is None:
        return None
    return memory.available - memory.peak - memory.code - compiled.state_bytes["batch"]


def _uncovered(hidden: Leg, clock_hz: float) -> float:
    """Seconds for which a collective outlasts the work between its start and its end."""
    return max(0.0, hidden.seconds - hidden.collective.times * hidden.collective.cover_cycles / clock_hz)


def uncounted(program: Program) -> Iterator[str]:
    """What a program does beside the work that is told of it."""
    if program.kernels:
        yield f"{len(program.kernels)} custom kernels have no cycles, and their FLOPs are not known"
    if program.unknown_loops:
        yield f"{program.unknown_loops} loops of unknown length are counted once"


def _caveats(compiled: Compiled) -> Iterator[str]:
    program = compiled.program
    if compiled.effort == "fast":
        yield "a low-effort compilation tells neither cycles nor HBM bytes"
    elif program.cycles is None:
        yield "the compiler gives no cycles"
    yield from uncounted(program)
    if program.unpriced and compiled.effort != "fast":
        yield f"{len(program.unpriced)} gathers, scatters or sorts have no cycles"
