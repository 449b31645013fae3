"""What a step compiled for a small slice becomes on more chips with the same examples a chip: formulas, no compilation.

Memory, FLOPs, kernels and HBM bytes stay as they are (from 16 to 256 chips peak memory was seen to grow by 0.4 %);
collectives change with the size and the torus of their groups. Logits grow with the batch, which is left out: where
they are a real share of a step, as in a ring of tiles, compile for the larger slice.
"""

import dataclasses
from collections.abc import Iterable

from ecgjax.plans.estimate import Estimate, estimate
from ecgjax.plans.records import Collective, Compiled
from ecgjax.plans.topologies import Topology, parse

PADDED_FROM = 64
"""Chips from which the partitioner writes a gather of embeddings as the sum of buffers that are zero elsewhere."""

_SHAPES = {2: {16: "4x4", 64: "8x8", 256: "16x16"}, 3: {16: "2x2x4", 64: "4x4x4", 256: "4x8x8"}}
"""Slices of so many chips, by the axes of the torus."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The step on so many chips; efficiencies compare samples/s per chip."""

    topology: str
    estimate: Estimate
    to_one_chip: float
    to_compiled: float


def larger(topology: Topology, *, slices: int = 2) -> list[Topology]:
    """Slices of 16, 64 and 256 chips of the same kind that are larger than `topology`; and several of the largest."""
    name = topology.generation
    names = [f"{name}:{shape}" for shape in _SHAPES[topology.chip.torus].values()]
    names.append(f"{slices}x{names[-1]}")
    return [found for found in map(parse, names) if found.chips > topology.chips]


def weak_scaling(
    compiled: Compiled, topology: Topology, targets: Iterable[Topology], *, fsdp: int = 1
) -> list[Prediction]:
    """The compiled step itself, then on every target.

    `to_one_chip` is against the same step without any communication, `to_compiled` against that on `topology`.
    """
    here = estimate(compiled, topology)

    def against(target: Topology) -> Prediction:
        there = estimate(rescaled(compiled, topology, target, fsdp=fsdp), target)
        return Prediction(target.name, there, there.compute_s / there.step_s, here.step_s / there.step_s)

    return [against(target) for target in (topology, *targets)]


def predicts(topology: Topology, *, fsdp: int) -> bool:
    """Whether a step on `topology` has what grows: sums over copies of the model, in one slice."""
    return topology.slices == 1 and topology.devices > fsdp


def rescaled(compiled: Compiled, topology: Topology, target: Topology, *, fsdp: int = 1) -> Compiled:
    """The compilation as it would read on `target`, which must be no smaller.

    Groups over all devices, or over all that do not share a model, grow; those of `fsdp` devices, and smaller ones
    such as groups of batch norm, stay. Where both sizes are equal, sums are over the data, gathers over the model. A
    permute that runs once for every device is a ring, which becomes longer.
    """
    if target == topology:
        return compiled
    if not predicts(topology, fsdp=fsdp) or target.chips < topology.chips or target.chip != topology.chip:
        raise ValueError(
            f"{topology.name}, {fsdp} devices to a model, says nothing of {target.name}; compile for one slice of the "
            f"same kind that is no larger and holds several copies of the model."
        )
    growth = target.devices / topology.devices
    gathers = [
        c for c in compiled.program.collectives if c.kind == "all-gather" and _grows(c, topology, fsdp)
    ]
    collectives = []
    for one in compiled.program.collectives:
        if not _grows(one, topology, fsdp):
            ring = one.kind == "permute" and one.times % topology.devices == 0
            collectives.append(_longer(one, topology, target) if ring else one)
            continue
        of_batch = one.kind in ("all-gather", "all-to-all") or any(
            _is_gradient(one, gather) for gather in gathers
        )
        grown = round(one.bytes * growth) if of_batch else one.bytes
        group = one.group * target.devices // topology.devices // target.slices
        inside = dataclasses.replace(one, bytes=grown, group=group, span=_span(one.span, topology, target))
        if one.kind == "all-gather" and target.chips >= PADDED_FROM:
            inside = dataclasses.replace(
                inside, kind="all-reduce", blocking=True
            )  # As every sum that was seen.
        collectives += [inside, *between_slices(inside, target)]
    program = dataclasses.replace(compiled.program, collectives=tuple(collectives))
    return dataclasses.replace(
        compiled,
        topology=target.name,
        devices=target.devices,
        batch_size=round(compiled.batch_size * growth),
        model_flops=round(compiled.model_flops * growth),
        program=program,
    )


def between_slices(inside: Collective, target: Topology) -> list[Collective]:
    """Between n slices a chip exchanges its own share of the sum, S/k, in a ring: 2 S/k (n-1)/n bytes; gathers one way.

    Seen for two slices of v5e:4x4: of a sum of 4 MiB every chip sends 256 KiB.
    """
    if target.slices == 1:
        return []
    ways = 2 if inside.kind == "all-reduce" else 1
    share = inside.bytes / inside.group * ways * (target.slices - 1) / target.slices
    return [
        dataclasses.replace(
            inside, kind="send", network="dcn", bytes=round(share), group=target.slices, span=()
        )
    ]


def _grows(collective: Collective, topology: Topology, fsdp: int) -> bool:
    if collective.kind == "permute":
        return False
    data = topology.devices // fsdp
    if collective.group == data == fsdp:
        return collective.kind == "all-reduce"
    return collective.group in (topology.devices, data) and collective.group != fsdp


def _is_gradient(one: Collective, gather: Collective) -> bool:
    """Whether a sum has the bytes of what was gathered, embeddings of the whole batch, and few that merged with it."""
    return one.dtypes == gather.dtypes and gather.bytes <= one.bytes <= 1.05 * gather.bytes


def _longer(ring: Collective, topology: Topology, target: Topology) -> Collective:
    """As many hops as there are devices; between slices every one waits for the slowest of them."""
    times = ring.times * target.devices // topology.devices
    return dataclasses.replace(ring, times=times, network="ici" if target.slices == 1 else "dcn")


def _span(span: tuple[int, ...], topology: Topology, target: Topology) -> tuple[int, ...]:
    """The same share of every axis as before."""
    sizes, aims = (shape + (1,) * (len(span) - len(shape)) for shape in (topology.shape, target.shape))
    return tuple(max(1, aim * k // size) for k, size, aim in zip(span, sizes, aims, strict=True))
