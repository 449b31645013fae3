"""Who communicates with whom: groups of devices in the spellings of the text, and where they stand in the torus."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence

from ecgjax.plans.hlo import Instruction

Groups = tuple[tuple[int, ...], ...]
"""Positions of devices in the executable's device assignment."""


class Devices:
    """Where the devices of an executable stand, by their position in its device assignment.

    A program over several slices is compiled for one of them and numbers that one's devices from 0.
    """

    def __init__(
        self,
        coordinates: Mapping[int, tuple[int, ...]],
        slices: Mapping[int, int],
        *,
        partitions: int,
        wrapped: Sequence[bool],
    ):
        positions = sorted(coordinates)
        if len(positions) > partitions:
            positions = [p for p in positions if slices[p] == slices[positions[0]]]
        if len(positions) != partitions:
            raise ValueError(
                f"the program runs on {partitions} device(s), coordinates are given for {len(positions)} of one "
                "slice; give those of the mesh that it was compiled for."
            )
        self._coordinates = [tuple(coordinates[p]) for p in positions]
        self._slices = [slices[p] for p in positions]
        self._extent = [max(axis) + 1 for axis in zip(*self._coordinates, strict=True)]
        self._wrapped = [*wrapped, *[False] * (len(self._extent) - len(wrapped))]
        self.all: Groups = (tuple(range(partitions)),)

    def crosses(self, groups: Groups) -> bool:
        """Whether any group has devices of several slices."""
        return any(len({self._slices[device] for device in group}) > 1 for group in groups)

    def span(self, groups: Groups) -> tuple[int, ...]:
        """How many coordinates the widest group has along each axis."""
        spans = [
            [len(set(axis)) for axis in zip(*(self._coordinates[d] for d in group), strict=True)]
            for group in groups
        ]
        return tuple(max(axis) for axis in zip(*spans, strict=True))

    def hops(self, pairs: Groups) -> float:
        """The mean number of links between the two devices of a pair, of those that are not one device."""
        distances = [self._distance(source, target) for source, target in pairs if source != target]
        return sum(distances) / len(distances) if distances else 0.0

    def _distance(self, source: int, target: int) -> int:
        total = 0
        for axis, (a, b) in enumerate(zip(self._coordinates[source], self._coordinates[target], strict=True)):
            straight = abs(a - b)
            total += min(straight, self._extent[axis] - straight) if self._wrapped[axis] else straight
        return total


def replica_groups(instruction: Instruction, everyone: Groups) -> Groups:
    """Who takes part with whom, in any of the spellings of the text.

    `{{0,1},{2,3}}`, `[2,2]<=[2,2]T(1,0)`, `mesh['a'=2,'b'=2] {'a'}` with or without `, device_ids=([2,2]T(1,0))`;
    an axis may be a part of one, `'a':(2)4` being the 4 after the first 2.
    """
    listed = instruction.attribute("replica_groups", r"(\{\}|\{\{[\d,{} ]*\}\})")
    if listed:
        groups = re.findall(r"\{([\d, ]+)\}", listed[1])
        return tuple(tuple(int(n) for n in group.split(",")) for group in groups) or everyone
    iota = instruction.attribute("replica_groups", rf"\[([\d,]+)\]<={_IOTA}")
    if iota:
        shape = _ints(iota[1])
        return _chunks(_iota(iota[2], iota[3]), math.prod(shape[1:]))
    mesh = instruction.attribute(
        "replica_groups", rf"mesh\[([^\]]*)\](?:, device_ids=\((?:{_IOTA}|([\d,]+))\))? \{{([^}}]*)\}}"
    )
    if mesh is None:
        raise ValueError(f"replica_groups of {instruction.name} are unknown: {instruction.attributes[:200]}")
    axes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
    devices = list(range(math.prod(axes.values())))
    if mesh[2]:
        devices = _iota(mesh[2], mesh[3])
    elif mesh[4]:
        devices = list(_ints(mesh[4]))
    return _along(devices, axes, re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", mesh[5]))


def source_target_pairs(permute: Instruction) -> Groups:
    """Who sends to whom."""
    pairs = permute.attribute("source_target_pairs", r"\{([\d,{} ]*)\}")
    return tuple(_ints(pair) for pair in re.findall(r"\{([\d,]+)\}", pairs[1]))


_IOTA = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"


def _iota(shape: str, order: str | None) -> list[int]:
    """As the text writes it: a shape and, after T, the order of its axes."""
    dims = _ints(shape)
    return _transposed(dims, _ints(order) if order else range(len(dims)))


def _transposed(dims: Sequence[int], axes: Sequence[int]) -> list[int]:
    """0, 1, 2, ... in this shape, its axes in another order, read row by row."""
    strides = [math.prod(dims[axis + 1 :]) for axis in range(len(dims))]
    indices = itertools.product(*(range(dims[axis]) for axis in axes))
    return [sum(i * strides[axis] for i, axis in zip(index, axes, strict=True)) for index in indices]


def _along(devices: list[int], axes: Mapping[str, int], chosen: Sequence[tuple[str, str, str]]) -> Groups:
    """The devices of a mesh in groups along some of its axes, or along parts of them."""
    if unknown := {name for name, _, _ in chosen} - set(axes):
        raise ValueError(f"replica_groups name axes {sorted(unknown)}, the mesh has {list(axes)}.")
    dims: list[int] = []
    taken: list[int] = []
    for name, size in axes.items():
        parts = sorted((int(before), int(width)) for n, before, width in chosen if n == name and width)
        whole = (name, "", "") in chosen
        cuts = [(1, size)] if whole else parts
        done = 1
        for before, width in cuts:
            dims.append(before // done)
            taken.append(len(dims))
            dims.append(width)
            done = before * width
        dims.append(size // done)
    others = [axis for axis in range(len(dims)) if axis not in taken]
    places = _transposed(dims, [*others, *taken])
    return _chunks([devices[place] for place in places], math.prod(dims[axis] for axis in taken))


def _chunks(devices: list[int], size: int) -> Groups:
    return tuple(tuple(devices[at : at + size]) for at in range(0, len(devices), size))


def _ints(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(","))
