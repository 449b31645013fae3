"""What do contrastive losses in tiles save, and what do they cost?

  python tests/benchmarks/blockwise.py                  # a minute or two on two cores
  python tests/benchmarks/blockwise.py --batch=65536 --tile=1024 --timed=8192

Value and gradient of every loss over eight fake CPU devices, float32. A row is a loss. The first two columns are the
temporaries of a device at the global --batch, as the compiler plans them: nothing of that size is run. `plain` forms
all logits and leaves their sharding to XLA, `tiles` goes round the ring of devices with --tile columns of logits at a
time. The last column is the time of tiles over that of plain at the global batch --timed, the median of --runs runs.
Devices share the cores and their cache here: how much of a ring's way a TPU hides, and what its larger memory and
faster arithmetic make of the ratio, is for `ecgjax plan`. Exit code 1 where InfoNCE in tiles takes more than --limit
MiB.
"""

import argparse
import functools
import os
import pathlib
import statistics
import sys
import time

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np

from ecgjax.core import mesh as meshes
from ecgjax.losses.blockwise import Pairs
from ecgjax.objectives.contrasts import contrast

SETTINGS = {
    "info_nce": {"temperature": 0.1},
    "nt_xent": {"temperature": 0.1},
    "supervised_contrastive": {"temperature": 0.1},
    "remove_false_negatives": {"temperature": 0.1},
    "sigmoid": {"log_scale": float(np.log(10)), "bias": -10.0},
}


def main() -> int:
    """Prints the table; 1 where InfoNCE in tiles takes more than the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=32768, help="global batch of the temporaries")
    parser.add_argument("--width", type=int, default=128, help="of a projection")
    parser.add_argument("--tile", type=int, default=512, help="columns of logits at a time")
    parser.add_argument(
        "--timed", type=int, default=4096, help="global batch of the times; 0 leaves them out"
    )
    parser.add_argument("--runs", type=int, default=5, help="of which the median counts")
    parser.add_argument(
        "--limit", type=float, default=64.0, help="MiB a device that InfoNCE in tiles may take"
    )
    parser.add_argument("--only", action="append", choices=list(SETTINGS), help="a loss; may be repeated")
    args = parser.parse_args()
    mesh = meshes.make_mesh(data=8)
    print("| loss | plain MiB | tiles MiB | plain ms | tiles ms | tiles : plain |")
    print("|---|---|---|---|---|---|")
    exceeded = False
    for name in args.only or SETTINGS:
        step = functools.partial(compiled, name, mesh, width=args.width)
        plain, tiles = (mebibytes(step(args.batch, tile=tile)) for tile in (None, args.tile))
        exceeded |= name == "info_nce" and tiles > args.limit
        row = [name, f"{plain:.1f}", f"{tiles:.1f}", "", "", ""]
        if args.timed:
            inputs = drawn(mesh, args.timed, args.width)
            both = [seconds(step(args.timed, tile=tile), inputs, args.runs) for tile in (None, args.tile)]
            row[3:] = [*(f"{1e3 * t:.0f}" for t in both), f"{both[1] / both[0]:.2f}"]
        print("| " + " | ".join(row) + " |", flush=True)
    print(
        f"\nMiB a device at batch {args.batch} x {args.width}, tiles of {args.tile}; ms at batch {args.timed}."
    )
    return int(exceeded)


def compiled(name: str, mesh, batch: int, *, width: int, tile: int | None):
    """Value and gradient by both projections, with pairs of one subject left out."""

    def same(rows, columns):
        return rows[:, None] == columns

    def loss(z0, z1, subject):
        pairs = Pairs(subject, subject, same)
        return contrast(name, z0, z1, pairs=pairs, tile=tile, **SETTINGS[name])

    over = meshes.batch_sharding(mesh)
    z = jax.ShapeDtypeStruct((batch, width), jnp.float32)
    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), in_shardings=over)
    with jax.set_mesh(mesh):
        return step.lower(z, z, jax.ShapeDtypeStruct((batch,), jnp.int32)).compile()


def mebibytes(step) -> float:
    """Temporaries of one device."""
    return step.memory_analysis().temp_size_in_bytes / 2**20


def drawn(mesh, batch: int, width: int):
    """Projections, and subjects of which a few come twice."""
    draw = np.random.default_rng(0)
    z0, z1 = (draw.normal(size=(batch, width)).astype(np.float32) for _ in range(2))
    subject = draw.integers(0, 50 * batch, size=batch).astype(np.int32)
    return jax.device_put((z0, z1, subject), meshes.batch_sharding(mesh))


def seconds(step, inputs, runs: int) -> float:
    """Median of some runs, after one that does not count."""
    jax.block_until_ready(step(*inputs))
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(step(*inputs))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
