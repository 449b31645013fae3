"""Devices as a (dcn, data, fsdp) mesh; where every leaf and every batch lives."""

import difflib
import re
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Int

from ecgjax.core import trees
from ecgjax.core.interfaces import Batch, Tree

AXES = ("dcn", "data", "fsdp")
"""From the slowest network to the fastest: between slices, between the chips of one, and those that share a model.

The batch is split over all three, in this order; parameters over `fsdp` alone. So only gradients (and what a loss
gathers from the batch) cross between slices.
"""

Rules = Sequence[Sequence[str]]
"""Pairs of a regex, searched in a leaf's path, and a layout: `replicated`, `fsdp`, or `fsdp:AXIS`."""

RULES: Rules = (
    (r"(^|/)(kernel|mask_token|cls_token|positions)$", "fsdp"),
    (r"(^|/)(bias|scale|mean|var|count|step)$", "replicated"),
)
"""First match from the top decides, for parameters, statistics and optimiser moments alike (their paths end
alike). `fsdp` splits the largest axis that the fsdp size divides; a leaf without one is replicated. `fsdp:1` splits
axis 1 and nothing else."""


def make_mesh(*, slices: int = 1, data: int = -1, fsdp: int = 1, devices: Sequence | None = None) -> Mesh:
    """Arranges devices; `data=-1` takes all that `slices` and `fsdp` leaves.

    On TPUs `slices` is their number of slices, whose chips lie in the order that the torus likes, so that the rows of
    a process need not be consecutive: `process_rows`. Elsewhere devices are cut into as many consecutive groups.
    """
    devices = list(jax.devices() if devices is None else devices)
    groups = _slices(devices, slices)
    count = len(groups[0])
    if fsdp < 1 or count % fsdp:
        of = " of a slice" if slices > 1 else ""
        raise ValueError(
            f"config.mesh.fsdp is {fsdp}, which does not divide {count} devices{of}; choose one of {_divisors(count)}."
        )
    wanted = count // fsdp if data == -1 else data
    if wanted * fsdp != count:
        raise ValueError(
            f"config.mesh asks for slices {slices} x data {wanted} x fsdp {fsdp} = {slices * wanted * fsdp} devices, "
            f"{len(devices)} are visible; set config.mesh.data=-1 to use all."
        )
    # As mesh_utils.create_hybrid_device_mesh with slices alone on the slow axis, which needs a slice_index.
    grid = [
        mesh_utils.create_device_mesh((1, wanted, fsdp), group, allow_split_physical_axes=True)
        for group in groups
    ]
    # Auto: an explicit axis type refuses z0 @ z1.T, whose rows and columns are split over the same axis.
    return Mesh(np.concatenate(grid), AXES, axis_types=(AxisType.Auto,) * 3)


def _slices(devices: list, slices: int) -> list[list]:
    """The devices of each slice."""
    count = len(devices)
    if devices[0].platform == "tpu":
        # Other platforms count hosts by slice_index, or have none; nor has a described topology of one slice.
        index = [getattr(device, "slice_index", 0) for device in devices]
        found = sorted(set(index))
        if slices != len(found):
            raise ValueError(
                f"config.mesh.slices is {slices}, but the {count} devices make {len(found)} slice(s); "
                f"set config.mesh.slices={len(found)}."
            )
        return [[device for device, i in zip(devices, index, strict=True) if i == one] for one in found]
    if slices < 1 or count % slices:
        raise ValueError(
            f"config.mesh.slices is {slices}, which does not divide {count} devices; choose one of {_divisors(count)}."
        )
    return [devices[i : i + count // slices] for i in range(0, count, count // slices)]


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """The global batch is split over every device; says what would fit where it is not divisible."""
    count = mesh.size
    if batch_size < 1 or batch_size % count:
        below, above = batch_size // count * count, -(-batch_size // count) * count
        choices = f"{below} or {above}" if below > 0 else f"{max(above, count)}"
        fit = max((n for n in range(1, count) if batch_size > 0 and batch_size % n == 0), default=None)
        way = f". A run that has begun keeps its batch: go on with {fit} devices" if fit else ""
        raise ValueError(
            f"config.data.batch_size is {batch_size}, which {count} devices do not divide; take {choices}{way}."
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis over all devices."""
    return NamedSharding(mesh, P(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, P())


def process_rows(mesh: Mesh, batch_size: int, *, process: int | None = None) -> Int[np.ndarray, "r"]:
    """Rows of the global batch, ascending, that the devices of `process` hold; of this process by default.

    Consecutive where the mesh keeps the devices of a process together, which a torus order need not: consecutive rows
    read regardless would permute the batch, and with it whatever is drawn for each row. Together the processes hold
    every row once. `to_global` assembles batches of these rows.
    """
    process = jax.process_index() if process is None else process
    share = batch_size // mesh.size
    rows = np.arange(batch_size).reshape(mesh.size, share)  # The batch is split in the order of the mesh.
    return rows[[device.process_index == process for device in mesh.devices.flat]].reshape(-1)


def shardings(tree: Tree, mesh: Mesh, rules: Rules = ()) -> Tree:
    """One NamedSharding for every leaf of an abstract or concrete tree, by `rules` and then by `RULES`.

    A leaf without a rule is an error, as is one of `rules` that finds no leaf.
    """
    check_rules(rules)
    names = list(trees.flatten(tree))
    for number, (pattern, _) in enumerate(rules):
        if not any(re.search(pattern, name) for name in names):
            near = ", ".join(difflib.get_close_matches(pattern, names, n=3, cutoff=0))
            raise ValueError(
                f"config.mesh.rules[{number}]: {pattern!r} finds no leaf of the training state; near it are {near}."
            )

    def one(name: str, leaf) -> NamedSharding:
        if not leaf.shape:
            return replicated(mesh)
        for pattern, layout in (*rules, *RULES):
            if re.search(pattern, name):
                return NamedSharding(mesh, _spec(name, leaf.shape, layout, mesh.shape["fsdp"]))
        raise ValueError(
            f"no sharding rule for leaf {name} of shape {leaf.shape}; add one to config.mesh.rules, or to "
            f"core.mesh.RULES."
        )

    return trees.map_named(one, tree)


def check_rules(rules: Rules) -> None:
    """Raises where config.mesh.rules are no pairs of a regex and a layout."""
    for number, rule in enumerate(rules):
        path = f"config.mesh.rules[{number}]"
        if not (isinstance(rule, tuple | list) and len(rule) == 2 and all(isinstance(x, str) for x in rule)):
            raise ValueError(f"{path}: expected a pair of a regex and a layout, got {rule!r}.")
        pattern, layout = rule
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{path}: {pattern!r} is no regex: {error}.") from None
        if not re.fullmatch(r"replicated|fsdp(:\d+)?", layout):
            raise ValueError(
                f"{path}: unknown layout {layout!r}; choose fsdp, replicated, or fsdp:AXIS such as fsdp:0."
            )


def _spec(name: str, shape: tuple[int, ...], layout: str, fsdp: int) -> P:
    divisible = [axis for axis, size in enumerate(shape) if size % fsdp == 0 and size >= fsdp]
    if layout == "replicated" or (layout == "fsdp" and not divisible):
        return P()
    if layout == "fsdp":
        axis = max(divisible, key=lambda a: shape[a])
    else:
        axis = int(layout.removeprefix("fsdp:"))
        if axis not in divisible:
            raise ValueError(
                f"config.mesh.rules: {layout} splits axis {axis} of {name} of shape {shape} over {fsdp} devices; "
                f"choose one of the axes {divisible}, or fsdp or replicated."
            )
    return P() if fsdp == 1 else P(*("fsdp" if a == axis else None for a in range(axis + 1)))


def to_global(batch: Batch, mesh: Mesh) -> Mapping[str, jax.Array]:
    """Assembles the global batch from the rows that this process read: `process_rows`, in that order."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(x)) for name, x in batch.items()
    }


def to_host(tree: Tree) -> Tree:
    """The whole tree in every process, one leaf at a time where none holds it whole; every process must call it."""

    def whole(leaf: jax.Array | np.ndarray):
        held = isinstance(leaf, np.ndarray) or leaf.is_fully_addressable or leaf.is_fully_replicated
        return jax.device_get(leaf) if held else multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(whole, tree)


def _divisors(count: int) -> list[int]:
    return [n for n in range(1, count + 1) if count % n == 0]
