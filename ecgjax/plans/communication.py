"""Bytes and time of one collective on a torus of chips, or between slices: formulas, no measurement.

The formulas are those of rings ("How To Scale Your Model", parts 2 and 3), one ring along each axis of the torus that
a group spans.
"""

import dataclasses
import math

from ecgjax.plans.records import Collective
from ecgjax.plans.topologies import Topology

HOP_S = 1e-6
"""From a chip to its neighbour."""

LAUNCH_S = 3e-6
"""To start a collective and to wait for its slowest member; 2 to 5 us."""

LINK_EFFICIENCY = 0.9
"""Of a link's bandwidth; v5e was seen at 45 of 50 GB/s."""

DCN_LATENCY_S = 75e-6
"""Between slices; 50 to 100 us, assumed."""


@dataclasses.dataclass(frozen=True)
class Leg:
    """All executions of one collective in a step: bytes that leave a chip, and the seconds they take it.

    `latency_bound` says that the way to the farthest chip takes longer than the bytes do.
    """

    collective: Collective
    wire_bytes: float
    seconds: float
    latency_bound: bool


def leg(collective: Collective, topology: Topology) -> Leg:
    """The larger of latency and bandwidth time, for each execution."""
    waiting, moving = latency(collective, topology), _moving(collective, topology)
    return Leg(
        collective,
        wire_bytes=collective.times * wire_bytes(collective, topology),
        seconds=collective.times * max(waiting, moving),
        latency_bound=waiting >= moving,
    )


def wire_bytes(collective: Collective, topology: Topology) -> float:
    """Bytes that leave a chip in one execution; k chips share a buffer of S bytes.

    All-reduce 2S(k-1)/k; all-gather, reduce-scatter and all-to-all S(k-1)/k; a permute S for every hop, a send S.
    Where a chip is two devices, those of one group first meet within the chip, and those of two groups share its links.
    """
    members, groups = _on_chips(collective, topology)
    size = float(groups * collective.bytes)
    match collective.kind:
        case "all-reduce":
            return 2 * size * (members - 1) / members
        case "permute":
            return size * collective.hops
        case "send":
            return size
        case _:
            return size * (members - 1) / members


def latency(collective: Collective, topology: Topology) -> float:
    """Seconds that an empty buffer takes: the longest way of every axis, there and back to reduce, and the launch."""
    if collective.network == "dcn":
        return DCN_LATENCY_S
    if collective.kind == "permute":
        return HOP_S * collective.hops + LAUNCH_S
    hops = sum(size // 2 if ring else span - 1 for span, size, ring in _axes(collective, topology))
    return HOP_S * hops * (2 if collective.kind == "all-reduce" else 1) + LAUNCH_S


def _moving(collective: Collective, topology: Topology) -> float:
    """Seconds that the bytes take; both directions of a closed axis carry, one of an open axis.

    In an all-to-all every byte goes a quarter of the way around; the busiest axis decides.
    """
    chip = topology.chip
    if collective.network == "dcn":
        return wire_bytes(collective, topology) / chip.dcn_bandwidth
    rate = LINK_EFFICIENCY * chip.link_bandwidth
    if collective.kind == "permute":
        return wire_bytes(collective, topology) / rate
    axes = _axes(collective, topology)
    if collective.kind == "all-to-all":
        _, groups = _on_chips(collective, topology)
        ways = [span / 4 / (2 if ring else 1) for span, _, ring in axes]
        return groups * collective.bytes * max(ways, default=0) / rate
    ways = sum(2 if ring else 1 for _, _, ring in axes)
    return wire_bytes(collective, topology) / (ways * rate) if ways else 0.0


def _axes(collective: Collective, topology: Topology) -> list[tuple[int, int, bool]]:
    """Of each axis that a group spans: chips of the group, chips of the slice, and whether it is a closed ring."""
    padding = (1,) * (len(collective.span) - len(topology.shape))
    sizes, wraps = topology.shape + padding, topology.wrap + (False,) * len(padding)
    axes = zip(collective.span, sizes, wraps, strict=False)
    return [(span, size, wrap and span == size) for span, size, wrap in axes if span > 1]


def _on_chips(collective: Collective, topology: Topology) -> tuple[int, int]:
    """Chips of one group, and groups that share a chip."""
    if collective.network == "dcn":
        return collective.group, topology.devices_per_chip
    chips = min(collective.group, math.prod(collective.span))
    return chips, max(1, topology.devices_per_chip * chips // collective.group)
