"""What a program runs and how many times: loops multiplied out, branches chosen, trip counts found."""

import dataclasses
import math
import re

from ecgjax.plans.hlo import Computation, Instruction, Module, arrays


@dataclasses.dataclass(frozen=True, eq=False)
class Scope:
    """A computation where it is called: its parameters are the caller's operands, or a loop's initial tuple."""

    computation: Computation
    caller: "Scope | None" = None
    call: Instruction | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Executed:
    """An instruction, how many times a step runs it, and where it stands."""

    instruction: Instruction
    scope: Scope
    times: int


@dataclasses.dataclass(frozen=True)
class Walk:
    """Everything that runs, in order; bodies of `unknown_loops` were taken to run once."""

    executed: tuple[Executed, ...]
    unknown_loops: int


def walk(module: Module, *, strict: bool) -> Walk:
    """Follows the program from its entry; `strict` raises at a loop whose trip count depends on data.

    Fusions are not entered: they run as one instruction. Of a conditional's branches the one that writes the most
    bytes is taken to run.
    """
    walker = _Walker(module, strict)
    return Walk(tuple(walker.run(Scope(module.entry), 1)), walker.unknown)


class _Walker:
    def __init__(self, module: Module, strict: bool):
        self._module, self._strict, self.unknown = module, strict, 0

    def run(self, scope: Scope, times: int) -> list[Executed]:
        executed = []
        for instruction in scope.computation.instructions.values():
            executed.append(Executed(instruction, scope, times))
            match instruction.opcode:
                case "while":
                    executed += self._loop(instruction, scope, times)
                case "conditional":
                    executed += self._dearest(instruction, scope, times)
                case "call":
                    executed += self.run(self._inside(instruction, "to_apply", scope), times)
                case "call-start" | "async-start":
                    key = "to_apply" if instruction.computations("to_apply") else "calls"
                    executed += self.run(self._inside(instruction, key, scope), times)
        return executed

    def _loop(self, loop: Instruction, scope: Scope, times: int) -> list[Executed]:
        count = trip_count(self._module, loop, scope)
        if count is None:
            if self._strict:
                raise ValueError(
                    f"the trip count of loop {loop.name} ({loop.op_name or 'no op_name'}) depends on data, so that "
                    "nothing in it can be counted; bound it by a constant (lax.scan, fori_loop of Python integers)."
                )
            self.unknown += 1
            count = 1
        return self.run(self._inside(loop, "body", scope), times * count)

    def _dearest(self, conditional: Instruction, scope: Scope, times: int) -> list[Executed]:
        names = conditional.computations("branch_computations") or (
            *conditional.computations("true_computation"),
            *conditional.computations("false_computation"),
        )
        before, branches = self.unknown, []
        for name in names:
            self.unknown = before
            run = self.run(Scope(self._module.computations[name]), times)
            cycles = sum(item.times * (item.instruction.cycles or 0) for item in run)
            branches.append((sum(map(_written, run)), cycles, self.unknown, run))
        _, _, self.unknown, run = max(branches, key=lambda branch: branch[:2])
        return run

    def _inside(self, call: Instruction, key: str, scope: Scope) -> Scope:
        (name,) = call.computations(key)
        return Scope(self._module.computations[name], scope, call)


def _written(executed: Executed) -> int:
    return executed.times * sum(array.bytes for array in arrays(executed.instruction.type))


def trip_count(module: Module, loop: Instruction, scope: Scope) -> int | None:
    """How often a while runs; None where start, bound or step is no constant that can be followed.

    The compiler says it on some backends (`known_trip_count`). Elsewhere the condition compares an element of the
    carried tuple with a constant, which may have been hoisted into the tuple, and the body adds a constant to it.
    """
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.config)
    if known:
        return int(known[1])
    (condition,), (body,) = loop.computations("condition"), loop.computations("body")
    values = _Values(module)
    inside = Scope(module.computations[condition], scope, loop)
    compare = values.source(inside, inside.computation.root.name)
    if compare is None or compare[1].opcode != "compare":
        return None
    where, root = compare
    direction = root.attribute("direction", r"(\w+)")[1]
    for counter, bound, sense in ((0, 1, direction), (1, 0, _MIRRORED[direction])):
        index = values.carried(where, root.operands[counter], loop)
        limit = values.constant(where, root.operands[bound])
        if index is None or limit is None:
            continue
        start = values.initial(scope, loop, index)
        step = values.step(Scope(module.computations[body], scope, loop), loop, index)
        if start is not None and step:
            return _count(start, limit, step, sense)
    return None


_MIRRORED = {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE", "NE": "NE", "EQ": "EQ"}


def _count(start: int, limit: int, step: int, sense: str) -> int | None:
    """How many of start, start + step, ... pass the comparison before the first that does not."""
    if sense in ("LE", "GE"):
        limit += 1 if sense == "LE" else -1
    upward = sense in ("LT", "LE") and step > 0
    downward = sense in ("GT", "GE") and step < 0
    exact = sense == "NE" and (limit - start) % step == 0 and (limit - start) // step >= 0
    return max(0, math.ceil((limit - start) / step)) if upward or downward or exact else None


class _Values:
    """Follows scalars to where they come from."""

    def __init__(self, module: Module):
        self._module = module

    def source(self, scope: Scope, name: str) -> tuple[Scope, Instruction] | None:
        """The instruction that makes a value, past copies, tuples, calls and what a loop hands on unchanged."""
        instruction = scope.computation.instructions[name]
        match instruction.opcode:
            case "copy" | "bitcast" | "reshape" | "convert" | "copy-done" | "copy-start":
                return self.source(scope, instruction.operands[0])
            case "get-tuple-element":
                return self._element(scope, instruction.operands[0], _index(instruction))
            case "fusion" | "call":
                inside = self._called(scope, instruction)
                return self.source(inside, inside.computation.root.name)
            case "parameter" if scope.call is not None and scope.call.opcode in ("fusion", "call"):
                return self.source(scope.caller, scope.call.operands[int(instruction.arguments)])
        return scope, instruction

    def _element(self, scope: Scope, name: str, index: int) -> tuple[Scope, Instruction] | None:
        instruction = scope.computation.instructions[name]
        if instruction.opcode == "tuple":
            return self.source(scope, instruction.operands[index])
        if instruction.opcode in ("fusion", "call"):
            inside = self._called(scope, instruction)
            return self._element(inside, inside.computation.root.name, index)
        if instruction.opcode == "while" and self._unchanged(instruction, index):
            return self._element(scope, instruction.operands[0], index)
        if instruction.opcode == "parameter" and scope.call is not None:
            if scope.call.opcode == "while" and self._unchanged(scope.call, index):
                return self._element(scope.caller, scope.call.operands[0], index)
            if scope.call.opcode in ("fusion", "call"):
                return self._element(scope.caller, scope.call.operands[int(instruction.arguments)], index)
        return None

    def _called(self, scope: Scope, call: Instruction) -> Scope:
        (name,) = call.computations("calls" if call.opcode == "fusion" else "to_apply")
        return Scope(self._module.computations[name], scope, call)

    def _unchanged(self, loop: Instruction, index: int) -> bool:
        (body,) = loop.computations("body")
        computation = self._module.computations[body]
        root = computation.root
        return root.opcode == "tuple" and self._passed_on(computation, root.operands[index]) == index

    def _passed_on(self, computation: Computation, name: str) -> int | None:
        """The element of a loop's tuple that a value in its body or condition is, copies aside."""
        instruction = computation.instructions[name]
        while instruction.opcode in ("copy", "bitcast"):
            instruction = computation.instructions[instruction.operands[0]]
        if instruction.opcode != "get-tuple-element":
            return None
        whole = computation.instructions[instruction.operands[0]]
        return _index(instruction) if whole.opcode == "parameter" else None

    def carried(self, scope: Scope, name: str, loop: Instruction) -> int | None:
        """As `_passed_on`, from within the fusions that a condition or a body may consist of."""
        while scope.call is not loop:
            instruction = scope.computation.instructions[name]
            if instruction.opcode != "parameter":
                return None
            scope, name = scope.caller, scope.call.operands[int(instruction.arguments)]
        return self._passed_on(scope.computation, name)

    def constant(self, scope: Scope, name: str) -> int | None:
        """Its value, if it is an integer that the text prints."""
        found = self.source(scope, name)
        if found is None or found[1].opcode != "constant":
            return None
        digits = re.fullmatch(r"-?\d+", found[1].arguments.strip())
        return int(digits[0]) if digits else None

    def initial(self, scope: Scope, loop: Instruction, index: int) -> int | None:
        """The value with which a loop's element starts."""
        found = self._element(scope, loop.operands[0], index)
        return None if found is None else self.constant(found[0], found[1].name)

    def step(self, body: Scope, loop: Instruction, index: int) -> int | None:
        """What one turn of a loop adds to its element."""
        found = self._element(body, body.computation.root.name, index)
        if found is None or found[1].opcode not in ("add", "subtract"):
            return None
        scope, change = found
        for own, other in ((0, 1), (1, 0)):
            if self.carried(scope, change.operands[own], loop) == index:
                amount = self.constant(scope, change.operands[other])
                if amount is None or (change.opcode == "subtract" and own == 1):
                    return None
                return amount if change.opcode == "add" else -amount
        return None


def _index(element: Instruction) -> int:
    return int(element.attribute("index", r"(\d+)")[1])
