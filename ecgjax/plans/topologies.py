"""Slices that can be rented, by name; libtpu would also compile for shapes that nobody sells."""

import dataclasses
import math
import re

from ecgjax.core.chips import TPUS, Chip

_SQUARES = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_BELOW_A_CUBE = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
_CUBES = ((4, 4, 4), (4, 4, 8), (4, 8, 8), (8, 8, 8), (8, 8, 16), (8, 16, 16), (16, 16, 16))
_LARGEST_JOB = {"v4": 4096, "v5p": 6144, "tpu7x": 9216}

_PRODUCTS = {
    "v4": ("v4", 2),
    "v5litepod": ("v5e", 1),
    "v5e": ("v5e", 1),
    "v5p": ("v5p", 2),
    "v6e": ("v6e", 1),
    "tpu7x": ("tpu7x", 2),
}
"""Product name to generation, and how many of what the number counts make a chip: v4-128 has 64 chips."""

_NAME = re.compile(r"(?:(?P<slices>\d+)x)?(?P<generation>[a-z][a-z0-9]*):(?P<shape>\d+(?:x\d+)*)")
_PRODUCT = re.compile(r"(?:(?P<slices>\d+)x)?(?P<product>[a-z][a-z0-9]*)-(?P<count>\d+)")
_LOCAL = re.compile(r"local:(?P<count>\d+)")


@dataclasses.dataclass(frozen=True)
class Topology:
    """One or several equal slices of TPU chips, or so many `local` devices of the machine that plans.

    `shape` counts the chips of one slice along each axis of the torus. `host` is the part of it that one VM drives.
    """

    name: str
    shape: tuple[int, ...]
    chip: Chip | None = None
    slices: int = 1
    host: tuple[int, ...] = ()

    @property
    def generation(self) -> str:
        """Such as v5e; `local` where the devices are those of this machine."""
        return "local" if self.chip is None else self.chip.name

    @property
    def chips(self) -> int:
        """Of all slices; a local device counts as one."""
        return self.slices * math.prod(self.shape)

    @property
    def devices_per_chip(self) -> int:
        """What JAX sees of one chip."""
        return 1 if self.chip is None else self.chip.devices_per_chip

    @property
    def devices(self) -> int:
        """What JAX sees of all of them."""
        return self.chips * self.devices_per_chip

    @property
    def hosts(self) -> int:
        """Processes that a run starts."""
        return 1 if self.chip is None else self.chips // math.prod(self.host)

    @property
    def wrap(self) -> tuple[bool, ...]:
        """Whether each axis of the torus closes to a ring."""
        if self.chip is None:
            return (False,) * len(self.shape)
        if self.chip.wrap == "axis of 16":
            return tuple(size == 16 for size in self.shape)
        return (all(size % 4 == 0 for size in self.shape),) * len(self.shape)

    def describe(self) -> dict:
        """Keyword arguments of `jax.experimental.topologies.get_topology_desc`."""
        padding = (1,) * (3 - len(self.shape))
        options = {
            "topology_name": f"{self.generation}:{'x'.join(map(str, self.shape))}",
            "platform": "tpu",
            "chips_per_host_bounds": self.host + padding,
            "wrap": self.wrap + (False,) * len(padding),
        }
        if self.slices > 1:
            options["num_slices"] = self.slices
        if self.generation == "v4":  # Otherwise two devices a chip, which no v4 machine shows to JAX.
            options["chip_config_name"] = "megacore"
        return options


def parse(name: str) -> Topology:
    """The topology of that name; raises ValueError, listing the known, for any other.

    `v5e:16x16` counts chips along each axis; `2xv5e:16x16` is two slices joined by the data-centre network;
    `v5litepod-256`, `v5e-256`, `v6e-64`, `v5p-512` and `v4-128` are product names, of which those of v4, v5p and tpu7x
    count cores; `local:8` stands for eight devices of this machine.
    """
    text = name.strip().lower()
    if match := _LOCAL.fullmatch(text):
        if count := int(match["count"]):
            return Topology(name=text, shape=(count,))
        raise ValueError(f"--topology={name}: at least one device; such as local:8.")
    if match := _PRODUCT.fullmatch(text):
        generation, shape = _of_product(name, match["product"], int(match["count"]))
    elif match := _NAME.fullmatch(text):
        generation, shape = match["generation"], tuple(int(x) for x in match["shape"].split("x"))
    else:
        raise ValueError(f"--topology={name}: not understood. {known()}")
    slices = int(match["slices"] or 1)
    if generation not in TPUS:
        raise ValueError(f"--topology={name}: unknown generation {generation!r}. {known()}")
    if not _rentable(generation, shape):
        raise ValueError(f"--topology={name}: no slice of {generation} has that shape. {known()}")
    if slices < 1:
        raise ValueError(f"--topology={name}: at least one slice; such as 2x{generation}:{_written(shape)}.")
    prefix = f"{slices}x" if slices > 1 else ""
    return Topology(
        name=f"{prefix}{generation}:{_written(shape)}",
        shape=shape,
        chip=TPUS[generation],
        slices=slices,
        host=_host(shape),
    )


def known() -> str:
    """The names that `parse` accepts, in two lines."""
    flat = " ".join(_written(shape) for shape in _SQUARES)
    deep = " ".join(_written(shape) for shape in (*_BELOW_A_CUBE, *_CUBES))
    products = ", ".join(f"{name}-N" for name in _PRODUCTS)
    return (
        f"Known: v5e and v6e of {flat}; v4, v5p and tpu7x of {deep} or other multiples of 4 in ascending order; "
        f"product names {products}; 2xv5e:16x16 for two slices; local:N for N devices of this machine."
    )


def _written(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _of_product(name: str, product: str, count: int) -> tuple[str, tuple[int, ...]]:
    if product not in _PRODUCTS:
        raise ValueError(f"--topology={name}: unknown product {product!r}. {known()}")
    generation, per_chip = _PRODUCTS[product]
    shapes = _SQUARES if TPUS[generation].torus == 2 else (*_BELOW_A_CUBE, *_CUBES)
    sizes = {math.prod(shape) * per_chip: shape for shape in shapes if _rentable(generation, shape)}
    if count not in sizes:
        unit = "cores" if per_chip == 2 else "chips"
        raise ValueError(
            f"--topology={name}: {product} comes with {', '.join(map(str, sizes))} {unit}; give another shape as "
            f"{generation}:AxBxC."
        )
    return generation, sizes[count]


def _rentable(generation: str, shape: tuple[int, ...]) -> bool:
    if TPUS[generation].torus == 2:
        return shape in _SQUARES
    if shape in _BELOW_A_CUBE:
        return True
    cubes = len(shape) == 3 and all(size and size % 4 == 0 for size in shape)
    return cubes and list(shape) == sorted(shape) and math.prod(shape) <= _LARGEST_JOB[generation]


def _host(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A VM drives four chips, or the whole of a flat slice that is smaller than two of them."""
    if shape in ((1, 1), (2, 4)):
        return shape
    return (2, 2, 1)[: len(shape)]
