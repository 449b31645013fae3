"""`train`, run many times in children of one process that has imported everything and touched no device.

A start costs the imports once; jax may be forked until it has made its threads. Reads a JSON object from each line of
its input, {"workdir": DIR, "kill_after_s": SECONDS or null}, runs that child, and answers with a line of its own.
"""

import json
import os
import signal
import sys
import time

import jax
import jax.numpy as jnp
import ml_collections
import tensorboardX  # noqa: F401  The writer imports it where it is opened.
from etils import epath

from configs import mae_ecg
from ecgjax.core import runtime, trees
from ecgjax.core.interfaces import Aux
from ecgjax.objectives import OBJECTIVES
from ecgjax.runs import training
from ecgjax.train import checkpoint
from ecgjax.train.checkpoint_writing import Checkpoints

STEPS = 40


class Mean:
    """The smallest objective: learns the mean of every lead, from noisy views of it; traced in no time."""

    frozen_paths = ()

    def init(self, key):
        return {"ecg": {"kernel": jax.random.normal(key, (12, 64))}}, {"mean": jnp.zeros(())}

    def loss(self, params, extra, batch, key, *, train):
        x = batch["ecg"].mean(axis=-1) + (jax.random.normal(key, (len(batch["ecg"]), 12)) if train else 0.0)
        value = jnp.mean((x[:, :, None] - params["ecg"]["kernel"]) ** 2)
        return value, Aux({}, {"mean": extra["mean"] + jnp.mean(x)} if train else extra)

    def predict(self, params, extra, batch):
        return {}

    def after_update(self, params, extra):
        return extra


def make_mean(*, spec, crop, labels) -> Mean:
    """As the table of objectives wants it."""
    return Mean()


def make_config(data: str) -> ml_collections.ConfigDict:
    """Saves after every other step, keeps all, logs every step; `mean` must stand in the table of objectives."""
    config = mae_ecg.get_config("demo")
    config.steps, config.log_every, config.validate_every, config.save_every = STEPS, 1, 10, 2
    config.data.update({"directory": data, "batch_size": 16, "crop": 100})
    config.checkpoint.keep = STEPS
    config.optimizer.schedule.warmup_steps = 2
    with config.unlocked():
        config.objective = ml_collections.ConfigDict({"name": "mean"})
    return config


def say_restored(report) -> None:
    """Has every restore of this process write its step and digest to the file descriptor `report`."""
    restore = Checkpoints.restore_latest

    def reporting(self, state):
        restored = restore(self, state)
        if restored is not None:
            said = {"step": int(restored.state.step), "digest": trees.digest(restored.state)}
            os.write(report, json.dumps(said).encode())
        return restored

    Checkpoints.restore_latest = reporting


def run(data: str, cache: str, workdir: str, kill_after_s: float | None) -> dict:
    """One child; what it restored, the newest checkpoint before and after its end, its exit and its time."""
    read, report = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            say_restored(report)
            runtime.start(compile_cache=cache)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
            code = training.train(make_config(data), epath.Path(workdir))
        finally:
            os._exit(code)
    os.close(report)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        before = checkpoint.steps(workdir)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    seconds = time.monotonic() - start
    if kill_after_s is None:
        before = checkpoint.steps(workdir)
    said = os.read(read, 4096)
    os.close(read)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": seconds,
        "before": before,
        "after": checkpoint.steps(workdir),
        "restored": json.loads(said) if said else None,
    }


if __name__ == "__main__":
    OBJECTIVES["mean"] = make_mean
    for line in sys.stdin:
        print(json.dumps(run(sys.argv[1], sys.argv[2], **json.loads(line))), flush=True)
