"""Does the number of devices change what is computed?

  python tests/benchmarks/sharding.py                   # every objective, ten minutes of CPU
  python tests/benchmarks/sharding.py --only="cross_modal batch" --only=masked

Loss and gradients of every objective, on every mesh, against one device. A row is an objective in its smallest instance
(tests/objectives/tiny_objectives.py), a column a mesh of fake CPU devices, slices x data x fsdp. Printed is the largest
deviation of any value: loss, metrics, moved statistics, every gradient, each relative to the largest magnitude of its
array (at least 0.01). float32 through a network: sums over the batch are merely taken in another order, so 1e-4 is the
tolerance. Exit code 1 where a deviation exceeds it.
"""

import argparse
import os
import pathlib
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "objectives")]

import jax
import numpy as np
from tiny_objectives import SECTIONS, batch_for, initial, objective

from ecgjax.core import mesh as meshes
from ecgjax.core import trees

KEY = jax.random.key(7)
TOLERANCE = 1e-4
SHAPES = ((1, 2, 1), (1, 1, 2), (1, 4, 1), (1, 2, 2), (2, 2, 1), (1, 8, 1), (1, 4, 2), (2, 2, 2))


def main() -> int:
    """Prints the table; 1 where a mesh disagrees with one device."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", action="append", choices=list(SECTIONS), help="an objective; may be repeated"
    )
    names = parser.parse_args().only or list(SECTIONS)
    jax.config.update("jax_disable_most_optimizations", True)  # Halves the wait; the comparison is the same.
    columns = [" x ".join(map(str, shape)) for shape in SHAPES]
    print("| objective | " + " | ".join(columns) + " |")
    print("|---" * (1 + len(columns)) + "|")
    every = []
    for name in names:
        found = deviations(name)
        every += found
        print(f"| {name} | " + " | ".join(f"{value:.0e}" for value in found) + " |", flush=True)
    worst = np.max(every)  # Not Python's max, which overlooks NaN.
    print(
        f"\nlargest deviation {worst:.1e}, tolerance {TOLERANCE:.0e}; batch of 16; meshes are slices x data x fsdp"
    )
    return int(not worst <= TOLERANCE)


def deviations(name: str) -> list[float]:
    """The largest relative deviation from one device, for each mesh."""
    one = trees.flatten(computed(name, (1, 1, 1)))
    return [
        np.max([deviation(value, one[path]) for path, value in trees.flatten(computed(name, shape)).items()])
        for shape in SHAPES
    ]


def deviation(got, want) -> float:
    """Of two arrays, relative to the largest magnitude of the second; NaN where either is not finite."""
    scale = np.maximum(np.abs(want).max(initial=0), 1e-2)
    return float(np.abs(np.subtract(got, want)).max(initial=0) / scale)


def computed(name: str, shape: tuple[int, int, int]):
    """Loss, metrics, moved statistics and gradients of one training loss on a mesh."""
    slices, data, fsdp = shape
    mesh = meshes.make_mesh(
        slices=slices, data=data, fsdp=fsdp, devices=jax.devices()[: slices * data * fsdp]
    )
    params, extra, inputs = *initial(name), batch_for(name)
    shard, whole = meshes.shardings({"params": params, "extra": extra}, mesh), meshes.replicated(mesh)

    def loss(params, extra, inputs, key):
        return objective(name).loss(params, extra, inputs, key, train=True)

    arguments = (shard["params"], shard["extra"], meshes.batch_sharding(mesh), whole)
    step = jax.jit(jax.value_and_grad(loss, has_aux=True), in_shardings=arguments)
    with jax.set_mesh(mesh):
        (value, aux), grads = step(params, extra, inputs, KEY)
    return jax.device_get({"loss": value, "metrics": aux.metrics, "extra": aux.extra, "grads": grads})


if __name__ == "__main__":
    sys.exit(main())
