"""Bytes that instructions move through the main memory, and what their products and convolutions cost."""

import functools
import math
import re
from collections.abc import Callable

import numpy as np

from ecgjax.plans.hlo import ArrayType, Computation, Instruction, Module, Type, arrays

NAMES_ONLY = {
    *(
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "after-all",
        "add-dependency",
        "domain",
    ),
    *("opt-barrier", "optimization-barrier", "partition-id", "replica-id"),
    *("while", "conditional", "call", "call-start", "async-start", "async-update"),
}
"""Opcodes that move nothing: they name, or what they call is counted instead."""

BOOKKEEPING = {
    *("AllocateBuffer", "ConcatBitcast", "SliceId", "AsyncCollectiveStart", "AsyncCollectiveDone"),
    *("AssumeGatherIndicesInBound", "GatherScatterIndicesBitpacked"),
    *("PrepareAsyncCallStart", "PrepareAsyncCallDone"),
    "ZeroCrop",  # Between slices: what lies behind the values of a buffer that is to be cut equally.
}
"""Custom calls that are no kernels: they place and name buffers."""


def hbm_bytes(module: Module, computation: Computation, instruction: Instruction) -> int:
    """What one run of a scheduled instruction reads from and writes to the main memory.

    Arrays in VMEM and the like (layout S(n), n > 0) cost nothing, others their padded size; of a slice only what is
    cut out, of an update in place only what is replaced. plan.md section 4.
    """
    opcode = instruction.opcode
    if opcode in NAMES_ONLY or opcode.endswith("-done") or instruction.target in BOOKKEEPING:
        return 0
    operands = computation.operands(instruction)
    if opcode == "fusion":
        (name,) = instruction.computations("calls")
        fused = _Fused(module, module.computations[name])
        return sum(map(fused.read, range(len(operands)))) + fused.written(instruction)
    read = sum(_size(operand.type) for operand in operands)
    match opcode:
        case "copy-start":
            destination, source, *_ = instruction.type
            return _size(destination) + _size(source)
        case "slice-start" | "dynamic-slice-start":
            whole, part, *_ = instruction.type
            source = arrays(whole)[0]
            return _size(part) + (0 if source.space else part.padded_bytes)
        case "dynamic-slice" | "slice" | "gather":
            return min(_size(operands[0].type), _whole(instruction.type)) + _size(instruction.type)
        case "dynamic-update-slice":
            update = operands[1].type
            return _size(update) + (0 if instruction.type.space else update.padded_bytes)
        case "send":
            return _size(operands[0].type)
        case "recv":
            return _size(instruction.type[0])
        case "collective-permute-start" | "all-gather-start":
            return read + _size(instruction.type[1])
    return read + _size(instruction.type)


def _size(type_: Type) -> int:
    return sum(array.hbm_bytes for array in arrays(type_))


def _whole(type_: Type) -> int:
    return sum(array.padded_bytes for array in arrays(type_))


class _Fused:
    """What a fusion does with its operands: it may read a part of one, or write into it."""

    def __init__(
        self, module: Module, computation: Computation, within: "tuple[_Fused, Instruction] | None" = None
    ):
        self._module, self._computation, self._within = module, computation, within
        self._starts = any(i.target == "AsyncCollectiveStart" for i in computation.instructions.values())

    def read(self, number: int) -> int:
        """What it reads of one operand."""
        parameter = self._computation.parameters[number]
        if not isinstance(parameter.type, ArrayType):
            return _size(parameter.type)
        return min(parameter.type.hbm_bytes, self.taken(parameter)) if parameter.type.hbm_bytes else 0

    def taken(self, value: Instruction) -> int:
        """What all uses of a value together take of it; more than the whole where they overlap."""
        total = sum(self._use(user, value) for user in self._computation.users[value.name])
        if self._within and value is self._computation.root:
            outer, fusion = self._within
            total += outer.taken(fusion)
        return total

    def _use(self, user: Instruction, value: Instruction) -> int:
        whole = _whole(value.type)
        match user.opcode:
            case "bitcast" | "reshape":
                return self.taken(user)
            case "dynamic-slice" | "slice" | "gather":
                return _whole(user.type) if user.operands[0] == value.name else whole
            case "dynamic-update-slice":
                return 0 if user.operands[0] == value.name else whole
            case "tuple":
                return whole if self._within else 0
            case "fusion":
                (name,) = user.computations("calls")
                inside = _Fused(self._module, self._module.computations[name], (self, user))
                numbers = [n for n, operand in enumerate(user.operands) if operand == value.name]
                return sum(inside.taken(inside._computation.parameters[n]) for n in numbers)
        if "async_collective_fusion_config" in user.config and not self._starts:
            return 0  # It was read where the collective started.
        return whole

    def written(self, fusion: Instruction) -> int:
        """What it writes of its results."""
        root = self._computation.root
        if root.opcode == "tuple":
            elements = zip(self._computation.operands(root), fusion.type, strict=True)
            return sum(self._result(value, type_) for value, type_ in elements)
        if root.target == "AsyncCollectiveStart":
            aliased = {int(n) for n in re.findall(r"\{(\d+)\}: \(\d+", fusion.attributes)}
            return sum(_size(type_) for n, type_ in enumerate(fusion.type) if n not in aliased)
        return self._result(root, fusion.type)

    def _result(self, value: Instruction, type_: Type) -> int:
        while value.opcode == "bitcast":
            (value,) = self._computation.operands(value)
        if value.opcode == "parameter" or value.target == "AsyncCollectiveDone":
            return 0
        if "async_collective_fusion_config" in value.config:
            return 0
        if value.opcode == "dynamic-update-slice":
            update = self._computation.operands(value)[1].type
            return min(_whole(update), _size(type_))
        return _size(type_)


def product_flops(module: Module) -> Callable[[Computation, Instruction], int]:
    """Returns what counts one run of an instruction: twice its multiplications with a result to add to.

    Only products and convolutions, also those within fusions; windows count where they meet the input, so that
    padding and the holes of dilation cost nothing, as in XLA's own analysis.
    """

    @functools.cache
    def inside(name: str) -> int:
        computation = module.computations[name]
        return sum(count(computation, i) for i in computation.instructions.values())

    def count(computation: Computation, instruction: Instruction) -> int:
        match instruction.opcode:
            case "fusion":
                return sum(map(inside, instruction.computations("calls")))
            case "dot":
                return _dot(computation, instruction)
            case "convolution":
                return _convolution(computation, instruction)
        return 0

    return count


def _dot(computation: Computation, dot: Instruction) -> int:
    left, _ = (operand.type for operand in computation.operands(dot))
    contracted = dot.attribute("lhs_contracting_dims", r"\{([\d,]*)\}")
    sizes = [left.dims[int(axis)] for axis in contracted[1].split(",") if axis] if contracted else []
    return 2 * math.prod(dot.type.dims) * math.prod(sizes)


def _convolution(computation: Computation, convolution: Instruction) -> int:
    left, right = (operand.type for operand in computation.operands(convolution))
    labels = convolution.attribute("dim_labels", r"(\w+)_(\w+)->(\w+)")
    sizes = [
        dict(zip(names, type_.dims, strict=True))
        for names, type_ in zip(labels.groups(), (left, right, convolution.type), strict=True)
    ]
    batch, features, kernels = sizes[0]["b"], sizes[0]["f"], sizes[1]["o"]
    window = _window(convolution)
    spatial = sorted(name for name in sizes[0] if name.isdigit())
    met = [
        _met(sizes[0][axis], sizes[2][axis], sizes[1][axis], *(column[int(axis)] for column in window))
        for axis in spatial
    ]
    groups = _number(convolution, "feature_group_count") * _number(convolution, "batch_group_count")
    return 2 * batch * features * kernels * math.prod(met) // groups


def _window(convolution: Instruction) -> tuple[list[int], list[int], list[int], list[int]]:
    """Stride, padding before, and dilation of input and of kernel, along every spatial axis."""
    found = convolution.attribute("window", r"\{([^}]*)\}")
    fields = dict(field.split("=") for field in found[1].split()) if found else {}
    rank = len(fields["size"].split("x")) if fields else 0

    def column(name: str, otherwise: str) -> list[int]:
        values = fields.get(name, "x".join([otherwise] * rank)).split("x") if rank else []
        return [int(value.split("_")[0]) for value in values]

    return column("stride", "1"), column("pad", "0_0"), column("lhs_dilate", "1"), column("rhs_dilate", "1")


@functools.lru_cache(maxsize=4096)
def _met(
    length: int,
    results: int,
    kernel: int,
    stride: int,
    before: int,
    input_dilation: int,
    kernel_dilation: int,
) -> int:
    """How many pairs of a result and a kernel position meet an input value along one axis."""
    at = np.arange(results)[:, None] * stride + np.arange(kernel) * kernel_dilation - before
    return int(((at >= 0) & (at % input_dilation == 0) & (at // input_dilation < length)).sum())


def _number(instruction: Instruction, key: str) -> int:
    found = instruction.attribute(key, r"(\d+)")
    return int(found[1]) if found else 1
