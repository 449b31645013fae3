"""The communications that a scheduled program makes: what, how much, among whom, and what runs meanwhile."""

import itertools
import re
from collections.abc import Callable, Sequence

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


_ASYNCHRONOUS = ("call-start", "async-start")
_ENTERED = ("fusion", "while", "conditional", "call", *_ASYNCHRONOUS)


def read_collectives(module: Module, executed: Sequence[Executed], devices: Devices) -> list[Collective]:
    """One record for every communication, in the order in which the program starts them.

    What ends an asynchronous one, and the receive that belongs to a send, count with it. An asynchronous collective
    fusion prints its collective in every fusion that it accompanies; it counts where it starts. One that another core
    of the chip makes stands in a computation that the program starts and waits for.
    """
    work = _Work(executed)
    found: list[Collective] = []
    started, accompanied = set(), {}
    for position, item in enumerate(executed):
        instruction, computation = item.instruction, item.scope.computation
        _check_known(module, instruction)
        if kind := _kind(instruction):
            cover = work.behind(item, position)
            found.append(_record(kind, instruction, computation, item, devices, cover))
        for fused, inner in _within(module, instruction):
            kind, cover = _kind(inner), 0.0
            if "async_collective_fusion_config" in inner.config:
                chain = _chain(inner)
                accompanied[chain] = inner
                if not _has_target(fused, "AsyncCollectiveStart"):
                    continue
                started.add(chain)
                cover = work.until(_end_of_chain(module, chain), item, position)
            elif fused.name.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"  # The backend scatters within the reduction where it fuses the two.
            found.append(_record(kind, inner, fused, item, devices, cover))
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

    def behind(self, item: Executed, position: int) -> float:
        """What runs while a communication is under way; nothing where the program waits for it at once."""
        call = item.scope.call
        if call is not None and call.opcode in _ASYNCHRONOUS:
            return self.until(_done(call), Executed(call, item.scope.caller, item.times), position)
        if item.instruction.opcode == "send":
            return self.until(_received(item), item, position)
        if item.instruction.opcode.endswith("-start"):
            return self.until(_done(item.instruction), item, position)
        return 0.0

    def until(self, ends: Callable[[Instruction], bool], first: Executed, start: int) -> float:
        """Cycles between one run of an instruction and its end; without cycles, the number of instructions.

        Where the end is not in the same computation, as in a loop that ends what its last turn began, what follows
        there counts.
        """
        last = start + 1
        for position in range(start + 1, len(self._executed)):
            item = self._executed[position]
            if item.scope is first.scope:
                last = position + 1
                if ends(item.instruction):
                    last = position
                    break
        return (self._before[last] - self._before[start + 1]) / max(first.times, 1)


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
    item: Executed,
    devices: Devices,
    cover: float,
) -> Collective:
    """`item` is what the program runs: the instruction itself, or the fusion that it stands in."""
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
        times=item.times,
        bytes=size * group if kind == "all-gather" else size,
        group=group,
        network="dcn" if dcn else "ici",
        blocking=cover == 0,
        dtypes=tuple(dict.fromkeys(array.dtype for array in leaves)),
        span=() if dcn else devices.span(groups),
        hops=devices.hops(groups) if kind == "permute" and not dcn else 0.0,
        name=instruction.op_name or item.instruction.op_name or instruction.name,
        cover_cycles=cover,
    )


def _slices(send: Instruction) -> int:
    """How many slices exchange what is sent: the first set of `"{1,2}x{0:15}"`, or the two of a pair."""
    together = re.search(r'_xla_megascale_target="\{([\d,:]+)\}x', send.attributes)
    if not together:
        return 2
    ends = [part.split(":") for part in together[1].split(",")]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)


def _done(start: Instruction) -> Callable[[Instruction], bool]:
    """Tells what ends an asynchronous instruction."""
    return lambda i: i.opcode.endswith("-done") and start.name in i.operands


def _received(send: Executed) -> Callable[[Instruction], bool]:
    """Tells what ends a send: what was sent comes back reduced or gathered, and the program waits for that."""
    meeting = re.search(r'rendezvous="[^"]*"', send.instruction.attributes)
    around = send.scope.computation.instructions.values()
    receives = [i.name for i in around if i.opcode == "recv" and meeting and meeting[0] in i.attributes]
    return lambda i: i.opcode == "recv-done" and i.operands[0] in receives


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
        return any(
            _has_target(fused, "AsyncCollectiveDone") and _chain(inner) == chain
            for fused, inner in _within(module, instruction)
        )

    return ends


def _check_known(module: Module, instruction: Instruction) -> None:
    """Raises where communications hide in a computation that only an unknown instruction names."""
    if instruction.opcode in _ENTERED:
        return
    for key in ("calls", "to_apply", "called_computations", "async_computation"):
        for name in instruction.computations(key):
            if any(map(_kind, module.computations[name].instructions.values())):
                raise ValueError(
                    f"{instruction.name} is a {instruction.opcode} with communications in {name}; this reader does "
                    "not know the form in which this version of the compiler writes it."
                )


def _within(module: Module, fusion: Instruction) -> list[tuple[Computation, Instruction]]:
    """The communications in a fusion, and where they stand."""
    if fusion.opcode != "fusion":
        return []
    (name,) = fusion.computations("calls")
    fused = module.computations[name]
    return [(fused, inner) for inner in fused.instructions.values() if _kind(inner)]


def _has_target(fused: Computation, target: str) -> bool:
    return any(inner.target == target for inner in fused.instructions.values())
