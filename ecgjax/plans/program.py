"""From the text of a compiled program to what it does in one step."""

from collections.abc import Mapping, Sequence

from ecgjax.plans import records
from ecgjax.plans.collectives import read_collectives
from ecgjax.plans.groups import Devices
from ecgjax.plans.hlo import Instruction, Module, parse_module
from ecgjax.plans.loops import walk
from ecgjax.plans.traffic import BOOKKEEPING, hbm_bytes, product_flops


def read_program(
    text: str,
    *,
    coordinates: Mapping[int, tuple[int, ...]],
    slices: Mapping[int, int],
    wrapped: Sequence[bool] = (),
    strict: bool = False,
) -> records.Program:
    """Reads `compiled.as_text()`.

    `coordinates` and `slices` tell of every position in the executable's device assignment, which is the order of
    the mesh, where that device stands in its torus and in which slice; devices that are no TPU stand at (). `wrapped`
    names the axes of the torus that are rings. `strict` raises at a loop whose trip count depends on data.
    """
    module = parse_module(text)
    devices = Devices(coordinates, slices, partitions=module.partitions, wrapped=wrapped)
    run = walk(module, strict=strict)
    flops = product_flops(module)
    moved = products = cycles = 0
    kernels: dict[str, None] = {}
    unpriced: dict[str, None] = {}
    for item in run.executed:
        computation, instruction = item.scope.computation, item.instruction
        moved += item.times * hbm_bytes(module, computation, instruction)
        products += item.times * flops(computation, instruction)
        cycles += item.times * (instruction.cycles or 0)
        if _is_kernel(instruction):
            kernels[f"{instruction.target}: {instruction.op_name or instruction.name}"] = None
        if instruction.cycles is None and (search := _search(module, instruction)):
            unpriced[f"{search}: {instruction.op_name or instruction.name}"] = None
    timed = any(item.instruction.cycles for item in run.executed)
    return records.Program(
        collectives=tuple(read_collectives(module, run.executed, devices)),
        hbm_bytes=moved,
        flops=float(products),
        cycles=float(cycles) if timed else None,
        unknown_loops=run.unknown_loops,
        kernels=tuple(kernels),
        unpriced=tuple(unpriced) if timed else (),
    )


def _is_kernel(instruction: Instruction) -> bool:
    return (
        instruction.opcode == "custom-call"
        and instruction.target not in BOOKKEEPING
        and instruction.cycles is None
    )


def _search(module: Module, instruction: Instruction) -> str | None:
    """What an instruction, or a fusion, does at places that data name: the compiler seldom says how long it takes."""
    inside = [instruction]
    if instruction.opcode == "fusion":
        (name,) = instruction.computations("calls")
        inside = module.computations[name].instructions.values()
    return next((one.opcode for one in inside if one.opcode in ("gather", "scatter", "sort")), None)
