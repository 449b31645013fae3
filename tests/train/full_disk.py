"""Saves on a disk that fills up and is cleared: run on a small file system of its own, given as the first argument."""

import json
import os
import pathlib
import sys

import jax
import numpy as np

from ecgjax.core import files
from ecgjax.core import mesh as meshes
from ecgjax.train import checkpoint
from ecgjax.train.checkpoint_writing import Checkpoints
from ecgjax.train.state import TrainState
from ecgjax.train.writer import MetricWriter

files.WAITS_S = (0.01, 0.01)


def make_state(step):
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    kernel = {"kernel": np.random.default_rng(step).normal(size=(64, 1024)).astype(np.float32)}  # 256 kB.
    tree = TrainState(np.asarray(step, np.int32), kernel, {}, {"mu": dict(kernel)})
    return jax.device_put(tree, meshes.shardings(tree, mesh))


def main(disk):
    workdir, filler = disk / "run", disk / "filler"

    def fill():
        disk_state = os.statvfs(disk)
        filler.write_bytes(b"x" * (disk_state.f_bavail * disk_state.f_bsize - 2**16))

    states = [make_state(step) for step in range(6)]
    checkpoints, writer = Checkpoints(workdir), MetricWriter(workdir)

    def save(step):
        checkpoints.save(states[step], step, {})

    save(0)
    save(1)
    checkpoints.finish(lambda: save(1))
    fill()
    save(2)
    writer.write(2, {"loss": 1.0})
    save(3)
    filler.unlink()
    checkpoints.finish(lambda: save(4))
    found = {"cleared": checkpoint.steps(workdir), "left": sorted(os.listdir(workdir / "checkpoints"))}
    fill()
    try:
        checkpoints.finish(lambda: save(5))
    except files.StorageError as error:
        found["final"] = str(error)
    try:
        files.write_bytes(disk / "small.bin", bytes(2**18))
    except files.StorageError as error:
        found["small"] = str(error)
    found["beside"] = sorted(os.listdir(disk))
    filler.unlink()
    checkpoints.close()
    writer.close()
    checkpoints = Checkpoints(workdir)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), states[0])
    found["restored"] = int(checkpoints.restore_latest(shapes).state.step)
    checkpoints.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
