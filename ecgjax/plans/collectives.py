"""The communications that a scheduled program makes: what, how much, among whom, and what runs meanwhile."""

import itertools
import re
from collections.abc import Callable, Iterable, Sequence

from ecgjax.plans.groups import Devices, replica_groups, source_target_pairs
from ecgjax.plans.hlo import Computation, Instruction, Module, arrays
from ecgjax.plans.loops import Executed
from ecgjax.plans.records import Collective

KINDS = {
    "all-reduce": "all-reduce",
    "all-gather": "all-gather",
    "reduce-scatter": "reduce-scatter",
    "all-to-all": "all-to-all",
    "ragged-all-to-all": "all-to-all",
    "collective-permute": "permute",
    "send": "send",
}
"""Opcodes, without the "-start" of asynchronous ones, and what the records call them."""


def read_collectives(module: Module, executed: Sequence[Executed], devices: Devices) -> list[Collective]:
    """One record for every communication, in the order in which the program starts them.

    What ends an asynchronous one, and the receive that belongs to a send, count with it. An asynchronous collective
    fusion prints its collective in every fusion that it accompanies; it counts where it starts.
    """
    work = _Work(executed)
    found: list[Collective] = []
    started, accompanied = set(), {}
    for position, item in enumerate(executed):
        instruction = item.instruction
        if kind := _kind(instruction):
            ends = _end(instruction, item.scope.computation.instructions.values())
            cover = work.until(ends, position) if ends else None
            found.append(_record(kind, instruction, item.scope.computation, item.times, devices, cover))
        if instruction.opcode != "fusion":
            continue
        (name,) = instruction.computations("calls")
        fused = module.computations[name]
        for inner in fused.instructions.values():
            if not (kind := _kind(inner)):
                continue
            if "async_collective_fusion_config" not in inner.config:
                # The backend scatters within the reduction where it fuses the two.
                kind = "reduce-scatter" if name.startswith("all-reduce-scatter") else kind
                found.append(_record(kind, inner, fused, item.times, devices, None))
                continue
            chain = _chain(inner)
            accompanied[chain] = inner
            if _has_target(module, instruction, "AsyncCollectiveStart"):
                started.add(chain)
                cover = work.until(_end_of_chain(module, chain), position)
                found.append(_record(kind, inner, fused, item.times, devices, cover))
    for inner in (inner for chain, inner in accompanied.items() if chain not in started):
        raise ValueError(
            f"asynchronous {inner.name} ({inner.op_name}) starts nowhere in the program; this reader does not know "
            "the form in which this version of the compiler writes it."
        )
    return found


class _Work:
    """How much of the program's own work runs between two of its instructions."""

    def __init__(self, executed: Sequence[Executed]):
        self._executed = executed
        self._timed = any(item.instruction.cycles for item in executed)
        self._before = list(itertools.accumulate((self._of(item) for item in executed), initial=0))

    def _of(self, item: Executed) -> int:
        if self._timed:
            return item.times * (item.instruction.cycles or 0)
        return item.times * (item.instruction.opcode in ("fusion", "dot", "convolution", "custom-call"))

    def until(self, ends: Callable[[Instruction], bool], start: int) -> float:
        """Cycles between one run of an instruction and its end; without cycles, the number of instructions."""
        first = self._executed[start]
        for position in range(start + 1, len(self._executed)):
            item = self._executed[position]
            if item.scope is first.scope and ends(item.instruction):
                return (self._before[position] - self._before[start + 1]) / max(first.times, 1)
        raise ValueError(
            f"{first.instruction.name} is started in {first.scope.computation.name} and never ends."
        )


def _kind(instruction: Instruction) -> str | None:
    """What the records call it; None for anything but a communication between devices."""
    opcode = instruction.opcode.removesuffix("-start")
    if opcode == "collective-broadcast":
        raise ValueError(f"{instruction.name} is a {opcode}, which this reader has no rule for.")
    if opcode == "send" and "is_host_transfer=true" in instruction.attributes:
        return "send" if "megascale" in instruction.attributes else None  # Callbacks send to their own host.
    return KINDS.get(opcode)


def _record(
    kind: str,
    instruction: Instruction,
    computation: Computation,
    times: int,
    devices: Devices,
    cover: float | None,
) -> Collective:
    """`cover` is the work between start and end, None where the program waits for the end at once."""
    operands = computation.operands(instruction)[: 1 if kind == "send" else None]
    leaves = [array for operand in operands for array in arrays(operand.type)]
    size = sum(array.bytes for array in leaves)
    if kind == "send":
        groups, group = (), _slices(instruction)
    elif kind == "permute":
        groups = source_target_pairs(instruction)
        group = len(groups)
    else:
        groups = replica_groups(instruction, devices.all)
        group = len(groups[0])
    dcn = kind == "send" or devices.crosses(groups)
    return Collective(
        kind=kind,
        times=times,
        bytes=size * group if kind == "all-gather" else size,
        group=group,
        network="dcn" if dcn else "ici",
        blocking=not cover,
        dtypes=tuple(dict.fromkeys(array.dtype for array in leaves)),
        span=() if dcn else devices.span(groups),
        hops=devices.hops(groups) if kind == "permute" and not dcn else 0.0,
        name=instruction.op_name or instruction.name,
        cover_cycles=cover or 0.0,
    )


def _slices(send: Instruction) -> int:
    """How many slices exchange what is sent: the first set of `"{1,2}x{0:15}"`, or the two of a pair."""
    together = re.search(r'_xla_megascale_target="\{([\d,:]+)\}x', send.attributes)
    if not together:
        return 2
    ends = [part.split(":") for part in together[1].split(",")]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)


def _end(start: Instruction, scheduled: Iterable[Instruction]) -> Callable[[Instruction], bool] | None:
    """Tells what ends an asynchronous instruction; None for one that ends before the next begins."""
    if start.opcode == "send":
        # What was sent comes back reduced or gathered: the program waits for the receive.
        meeting = re.search(r'rendezvous="[^"]*"', start.attributes)
        receives = [
            i.name for i in scheduled if i.opcode == "recv" and meeting and meeting[0] in i.attributes
        ]
        return lambda i: i.opcode == "recv-done" and i.operands[0] in receives
    if start.opcode.endswith("-start"):
        return lambda i: i.opcode.endswith("-done") and start.name in i.operands
    return None


def _chain(collective: Instruction) -> tuple[str, ...]:
    """What the lines of one asynchronous collective fusion have in common."""
    channel = collective.attribute("channel_id", r"(\d+)")
    chain = re.search(r'chain_id="(\d+)"', collective.attributes)
    return (
        collective.opcode,
        channel[1] if channel else "",
        chain[1] if chain else "",
        collective.op_name,
        *(f"{array.dtype}{list(array.dims)}" for array in arrays(collective.type)),
    )


def _end_of_chain(module: Module, chain: tuple[str, ...]) -> Callable[[Instruction], bool]:
    def ends(instruction: Instruction) -> bool:
        if not _has_target(module, instruction, "AsyncCollectiveDone"):
            return False
        (name,) = instruction.computations("calls")
        inside = module.computations[name].instructions.values()
        return any(_kind(inner) and _chain(inner) == chain for inner in inside)

    return ends


def _has_target(module: Module, fusion: Instruction, target: str) -> bool:
    if fusion.opcode != "fusion":
        return False
    (name,) = fusion.computations("calls")
    return any(inner.target == target for inner in module.computations[name].instructions.values())
