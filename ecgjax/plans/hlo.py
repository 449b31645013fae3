"""The text of a scheduled HLO module as computations and instructions."""

import dataclasses
import functools
import math
import re


@dataclasses.dataclass(frozen=True)
class ArrayType:
    """An array as the compiler lays it out; `tiles` and `space` are empty and 0 where the text gives none."""

    dtype: str
    dims: tuple[int, ...]
    minor_to_major: tuple[int, ...]
    tiles: tuple[tuple[int, ...], ...]
    space: int

    @property
    def bytes(self) -> int:
        """What its values take."""
        return math.prod(self.dims) * _bits(self.dtype) // 8

    @property
    def padded_bytes(self) -> int:
        """What it takes in memory: every tile is stored whole, and of a tile every smaller tile."""
        dims = [self.dims[axis] for axis in reversed(self.minor_to_major)]
        for tile in self.tiles:
            dims = [1] * (len(tile) - len(dims)) + dims
            whole = len(dims) - len(tile)
            dims = [*dims[:whole], *(-(-n // t) for n, t in zip(dims[whole:], tile, strict=True)), *tile]
        return math.prod(dims) * _bits(self.dtype) // 8

    @property
    def hbm_bytes(self) -> int:
        """As `padded_bytes` for the main memory, space 0; nothing for registers, VMEM, SMEM and the host."""
        return 0 if self.space else self.padded_bytes


Type = ArrayType | tuple
"""An array or, nested as in the text, a tuple of types."""


@dataclasses.dataclass(frozen=True, eq=False)
class Instruction:
    """One line of a computation. `attributes` and `config` are text, `config` being the backend's JSON."""

    name: str
    type: Type
    opcode: str
    arguments: str
    operands: tuple[str, ...]
    attributes: str
    op_name: str
    config: str

    def attribute(self, key: str, pattern: str) -> re.Match[str] | None:
        """Finds ", key=" followed by the pattern."""
        return re.search(rf", {key}={pattern}", self.attributes)

    def computations(self, key: str) -> tuple[str, ...]:
        """The computations that an attribute such as `calls` names."""
        found = self.attribute(key, r"(%[\w.\-]+|\{[^}]*\})")
        return tuple(_NAME.findall(found[1])) if found else ()

    @functools.cached_property
    def cycles(self) -> int | None:
        """The compiler's own estimate of its duration."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.config)
        return int(found[1]) if found else None

    @property
    def target(self) -> str | None:
        """What a custom call calls."""
        found = self.attribute("custom_call_target", r'"([^"]*)"')
        return found[1] if found else None


@dataclasses.dataclass(frozen=True, eq=False)
class Computation:
    """Instructions by name, in the order in which they run."""

    name: str
    instructions: dict[str, Instruction]
    root: Instruction

    @functools.cached_property
    def parameters(self) -> tuple[Instruction, ...]:
        """In the order of their numbers."""
        found = (i for i in self.instructions.values() if i.opcode == "parameter")
        return tuple(sorted(found, key=lambda i: int(i.arguments)))

    def operands(self, instruction: Instruction) -> list[Instruction]:
        """The instructions that one of its own reads."""
        return [self.instructions[name] for name in instruction.operands]

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Who reads what."""
        users: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for operand in dict.fromkeys(instruction.operands):
                users[operand].append(instruction)
        return users


@dataclasses.dataclass(frozen=True, eq=False)
class Module:
    """The computations of one program; `partitions` is the number of devices that run it together in one slice."""

    computations: dict[str, Computation]
    entry: Computation
    partitions: int


def parse_module(text: str) -> Module:
    """Reads what `compiled.as_text()` gives; raises where it is not the text of a scheduled module."""
    header = text[: text.find("\n")]
    if not header.startswith("HloModule") or "is_scheduled=true" not in header:
        raise ValueError(
            f"the text begins with {header[:60]!r}, not as a scheduled HLO module; take compiled.as_text()."
        )
    computations: dict[str, Computation] = {}
    entry = name = None
    for line in text.splitlines():
        if name is None:
            start = _START.match(line)
            if start:
                name, body, root = start[2], {}, None
                entry = name if start[1] else entry
        elif line.startswith("}"):
            computations[name] = Computation(name, body, root)
            name = None
        else:
            instruction = _instruction(line)
            body[instruction.name] = instruction
            if line.lstrip().startswith("ROOT "):
                root = instruction
    if entry not in computations:
        raise ValueError("the HLO text has no whole ENTRY computation; it was cut.")
    partitions = re.search(r"num_partitions=(\d+)", header)
    return Module(computations, computations[entry], int(partitions[1]) if partitions else 1)


def arrays(type_: Type) -> list[ArrayType]:
    """The arrays of a type, tuples taken apart."""
    if isinstance(type_, ArrayType):
        return [type_]
    return [leaf for element in type_ for leaf in arrays(element)]


_START = re.compile(r"(ENTRY )?%([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = ")
_OPCODE = re.compile(r" ([a-z][\w\-]*)\(")
_NAME = re.compile(r"%([\w.\-]+)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_ARRAY = re.compile(r"([a-z]\w*)\[([^\]]*)\](?:\{([^}]*)\})?")


def _instruction(line: str) -> Instruction:
    head = _LINE.match(line)
    if head is None:
        raise ValueError(f"no HLO instruction: {line[:120]!r}")
    end = _closing(line, head.end()) if line[head.end()] == "(" else line.index(" ", head.end())
    opcode = _OPCODE.match(line, end)
    close = _closing(line, opcode.end() - 1)
    attributes, _, config = line[close:].partition(", backend_config=")
    attributes, _, metadata = attributes.partition(", metadata={")
    op_name = _OP_NAME.search(metadata)
    arguments = line[opcode.end() : close - 1]
    return Instruction(
        name=head[1],
        type=_type(line[head.end() : end]),
        opcode=opcode[1],
        arguments=arguments,
        operands=tuple(_NAME.findall(arguments)),
        attributes=attributes,
        op_name=op_name[1] if op_name else "",
        config=config,
    )


_PARENTHESIS = re.compile(r"[()]")


def _closing(text: str, start: int) -> int:
    """One past the parenthesis that closes the one at `start`."""
    depth = 0
    for found in _PARENTHESIS.finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return found.end()
    raise ValueError(f"a parenthesis stays open in {text[:120]!r}")


@functools.lru_cache(maxsize=65536)
def _type(text: str) -> Type:
    text = re.sub(r"/\*.*?\*/", "", text).strip()
    if not text.startswith("("):
        return _array(text)
    elements, depth, start = [], 0, 1
    for at, sign in enumerate(text):
        if sign in ",)" and depth == 1:
            elements.append(text[start:at])
            start = at + 1
        depth += (sign in "([{") - (sign in ")]}")
    return tuple(_type(element) for element in elements if element.strip())


def _array(text: str) -> ArrayType:
    found = _ARRAY.match(text)
    if found is None:
        raise ValueError(f"no HLO type: {text[:120]!r}")
    dims = tuple(int(n.lstrip("<=")) for n in found[2].split(",") if n)
    order, _, layout = (found[3] or "").partition(":")
    tiles = re.search(r"T((?:\([\d,]+\))+)", layout)
    space = re.search(r"S\((\d+)\)", layout)
    return ArrayType(
        dtype=found[1],
        dims=dims,
        minor_to_major=tuple(int(n) for n in order.split(",") if n) or tuple(reversed(range(len(dims)))),
        tiles=tuple(_ints(t) for t in re.findall(r"\(([\d,]+)\)", tiles[1])) if tiles else (),
        space=int(space[1]) if space else 0,
    )


def _ints(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(","))


@functools.lru_cache(maxsize=64)
def _bits(dtype: str) -> int:
    if dtype in ("token", "opaque"):
        return 0
    if dtype == "pred":
        return 8
    return int(re.match(r"[a-z]+(\d+)", dtype)[1])
