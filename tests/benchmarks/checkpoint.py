"""How long do checkpoints take, and how large are they?

  python tests/benchmarks/checkpoint.py                          # base ViT, 80 CPU seconds, 5 GB of memory
  python tests/benchmarks/checkpoint.py --variant=tiny --dir=/mnt/disk

The state of masked pre-training (configs/mae_ecg.py:paper) with the sizes of a variant: parameters and two moments
of Adam, float32 noise. Written by eight fake CPU devices over which every leaf is split (fsdp), the second time of
two; then read onto eight, four, two and one: all that training needs to go on, and the ECG encoder alone, as
config.init_from reads it. MB are 10^6 bytes of arrays. What was written a moment ago lies in the page cache: a cold
disk or a bucket has its own speed. Every read is compared with what was written, bit by bit; exit code 1 where one
differs.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]
os.chdir(ROOT)  # Recipes are named by their path.

import jax
import numpy as np

from configs import mae_ecg
from ecgjax.core import config as configs
from ecgjax.core import trees
from ecgjax.runs.assemble import assemble
from ecgjax.runs.planned_data import data_of
from ecgjax.train import checkpoint
from ecgjax.train.checkpoint_writing import Checkpoints
from ecgjax.train.state import TrainState


def main() -> int:
    """Prints the table; 1 where something came back changed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", default="base", help="sizes of the encoder, as in ecgjax.models.vit")
    parser.add_argument("--dir", help="where to write; default: the directory of temporary files")
    arguments = parser.parse_args()
    state = noise(shapes(arguments.variant, 8))
    want = trees.digest(state)
    print(f"{arguments.variant}: {trees.count(state.params):,} parameters")
    print("| what | devices | arrays, MB | seconds | MB/s |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=arguments.dir) as workdir:
        write(workdir, state)
        encoder = trees.digest(encoder_of(state.params))
        del state
        same = [
            read(workdir, shapes(arguments.variant, count), want, encoder, count) for count in (8, 4, 2, 1)
        ]
        files = pathlib.Path(workdir, "checkpoints", "1").rglob("*")
        on_disk = sum(path.stat().st_size for path in files if path.is_file())
    print(f"\n{on_disk / 1e6:.0f} MB on disk; all bitwise equal: {all(same)}")
    return int(not all(same))


def shapes(variant: str, count: int) -> TrainState:
    """The state on so many devices, among which parameters are split."""
    config = configs.plain(mae_ecg.get_config("paper"))
    config["objective"]["encoder"]["variant"] = config["objective"]["decoder"]["variant"] = variant
    config["mesh"]["fsdp"] = count
    data, _ = data_of(config, "configs/prepare.py:paper")
    return assemble(config, data, devices=jax.devices()[:count]).state


def noise(state: TrainState) -> TrainState:
    """Values that do not compress, as those of a trained model do not."""
    draw = np.random.default_rng(0)

    def fill(leaf):
        whole = draw.normal(size=leaf.shape).astype(leaf.dtype)
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: whole[index])

    step = jax.device_put(np.asarray(1, np.int32), state.step.sharding)
    return jax.tree.map(fill, state)._replace(step=step)


def write(workdir: str, state: TrainState) -> None:
    """One checkpoint; the time until training could go on, and until it is on disk."""
    checkpoints = Checkpoints(workdir)
    first = jax.device_put(np.asarray(0, np.int32), state.step.sharding)
    checkpoints.finish(lambda: checkpoints.save(state._replace(step=first), 0, {}))
    start = time.perf_counter()
    checkpoints.save(state, 1, {})
    returned = time.perf_counter() - start
    checkpoints.finish(lambda: None)
    row("write, until training goes on", 8, state, returned)
    row("write, until on disk", 8, state, time.perf_counter() - start)
    checkpoints.close()


def read(workdir: str, state: TrainState, want: str, encoder: str, count: int) -> bool:
    """All, and the encoder alone; whether both are what was written."""
    checkpoints = Checkpoints(workdir)
    restored = timed("restore all", count, lambda: checkpoints.restore_latest(state).state)
    checkpoints.close()
    same = trees.digest(restored) == want
    del restored

    def read_encoder():
        params, _ = checkpoint.read_params(
            workdir, 1, state.params, state.extra, wanted=lambda name: name.startswith("ecg/encoder/")
        )
        return encoder_of(params)

    return same and trees.digest(timed("read the encoder", count, read_encoder)) == encoder


def encoder_of(params):
    """The part that is most often passed on."""
    return params["ecg"]["encoder"]


def timed(what: str, count: int, call: Callable):
    """Its result, once it lies on the devices; prints the row."""
    start = time.perf_counter()
    tree = jax.block_until_ready(call())
    row(what, count, tree, time.perf_counter() - start)
    return tree


def row(what: str, count: int, tree, seconds: float) -> None:
    """One line of the table."""
    megabytes = sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) / 1e6
    print(f"| {what} | {count} | {megabytes:.0f} | {seconds:.2f} | {megabytes / seconds:.0f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
