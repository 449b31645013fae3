"""One of two processes, of which the second cannot read the newest checkpoint: NUMBER PORT WORKDIR."""

import json
import sys
import types

import jax
import numpy as np

from ecgjax.core import distributed, files
from ecgjax.core import mesh as meshes
from ecgjax.train import checkpoint, checkpoint_files
from ecgjax.train.checkpoint_writing import Checkpoints
from ecgjax.train.state import TrainState


def make_state(step, mesh):
    draw = np.random.default_rng(step)
    tree = TrainState(np.asarray(step, np.int32), {"kernel": draw.normal(size=(8, 4))}, {}, {})
    return jax.tree.map(
        lambda x, sharding: jax.make_array_from_callback(x.shape, sharding, lambda index: x[index]),
        tree,
        meshes.shardings(tree, mesh),
    )


def blind(directory, state, read=checkpoint_files.read):
    if directory.name == "2":
        raise ValueError("DATA_LOSS: my half is cut short")
    return read(directory, state)


def main(number, port, workdir):
    group = {"coordinator": f"127.0.0.1:{port}", "processes": 2, "process": number, "local_devices": None}
    distributed.start(types.SimpleNamespace(distributed="auto", join_timeout=60, peer_timeout=30, **group))
    mesh = meshes.make_mesh(fsdp=2)
    checkpoints = Checkpoints(workdir)
    for step in (1, 2):
        checkpoints.save(make_state(step, mesh), step, {})
    checkpoints.finish(lambda: None)
    if number == 1:
        checkpoint_files.read = blind
    restored = checkpoints.restore_latest(make_state(0, mesh))
    kept = checkpoint.steps(workdir)
    checkpoints.finish(lambda: checkpoints.save(make_state(2, mesh), 2, {}))
    checkpoints.close()
    own = [shard.data for shard in restored.state.params["kernel"].addressable_shards]
    want = [shard.data for shard in make_state(1, mesh).params["kernel"].addressable_shards]
    found = {
        "step": int(restored.state.step.addressable_data(0)),
        "next_batch": restored.next_batch,
        "bitwise": all(np.array_equal(a, b) for a, b in zip(own, want, strict=True)),
        "kept": kept,
        "after": checkpoint.steps(workdir),
    }
    print(json.dumps(found), flush=True)
    distributed.finish()


if __name__ == "__main__":
    files.WAITS_S = ()
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
