"""Devices as a (dcn, data, fsdp) mesh; where every leaf and every batch lives."""

import re
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ecgjax.core import trees
from ecgjax.core.interfaces import Batch, Tree

AXES = ("dcn", "data", "fsdp")
"""From the slowest network to the fastest: between slices, between the chips of one, and those that share a model.

The batch is split over all three, in this order; parameters over `fsdp` alone.
"""

RULES: tuple[tuple[str, str], ...] = (
    (r"(^|/)(kernel|mask_token|cls_token|positions)$", "fsdp"),
    (r"(^|/)(bias|scale|mean|var|count|step)$", "replicated"),
)
"""First match from the top decides, for parameters, statistics and optimiser moments alike (their paths end
alike). `fsdp` splits the largest axis that the fsdp size divides; a leaf without one is replicated."""


def make_mesh(*, data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Arranges devices; `data=-1` takes all that `fsdp` leaves."""
    devices = list(jax.devices() if devices is None else devices)
    count = len(devices)
    if fsdp < 1 or count % fsdp:
        raise ValueError(
            f"config.mesh.fsdp is {fsdp}, which does not divide {count} devices; choose one of {_divisors(count)}."
        )
    wanted = count // fsdp if data == -1 else data
    if wanted * fsdp != count:
        raise ValueError(
            f"config.mesh asks for data {data} x fsdp {fsdp} = {wanted * fsdp} devices, {count} are visible; "
            f"set config.mesh.data=-1 to use all."
        )
    # Auto: an explicit axis type refuses z0 @ z1.T, whose rows and columns are split over the same axis.
    return jax.make_mesh((1, wanted, fsdp), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """The global batch is split over every device; says what would fit where it is not divisible."""
    count = mesh.size
    if batch_size < 1 or batch_size % count:
        below, above = batch_size // count * count, -(-batch_size // count) * count
        choices = f"{below} or {above}" if below > 0 else f"{max(above, count)}"
        raise ValueError(
            f"config.data.batch_size is {batch_size}, which {count} devices do not divide; take {choices}."
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis over all devices."""
    return NamedSharding(mesh, P(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, P())


def shardings(tree: Tree, mesh: Mesh, rules: Sequence[tuple[str, str]] = RULES) -> Tree:
    """One NamedSharding for every leaf of an abstract or concrete tree; a leaf without a rule is an error."""

    def one(name: str, leaf) -> NamedSharding:
        if not leaf.shape:
            return replicated(mesh)
        for pattern, layout in rules:
            if re.search(pattern, name):
                return NamedSharding(mesh, _spec(leaf.shape, mesh.shape["fsdp"]) if layout == "fsdp" else P())
        raise ValueError(
            f"no sharding rule for leaf {name} of shape {leaf.shape}; add one to core.mesh.RULES."
        )

    return trees.map_named(one, tree)


def _spec(shape: tuple[int, ...], fsdp: int) -> P:
    divisible = [axis for axis, size in enumerate(shape) if size % fsdp == 0 and size >= fsdp]
    if fsdp == 1 or not divisible:
        return P()
    axis = max(divisible, key=lambda a: shape[a])
    return P(*("fsdp" if a == axis else None for a in range(axis + 1)))


def to_global(batch: Batch, mesh: Mesh) -> Mapping[str, jax.Array]:
    """Assembles the global batch from what this process read."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(x)) for name, x in batch.items()
    }


def to_host(tree: Tree) -> Tree:
    """The whole tree in every process, one leaf at a time where none holds it whole; every process must call it."""

    def whole(leaf: jax.Array):
        held = leaf.is_fully_addressable or leaf.is_fully_replicated
        return jax.device_get(leaf) if held else multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(whole, tree)


def _divisors(count: int) -> list[int]:
    return [n for n in range(1, count + 1) if count % n == 0]
