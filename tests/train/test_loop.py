import functools
import json
import math
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.core import mesh as meshes
from ecgjax.core import trees
from ecgjax.core.interfaces import Aux
from ecgjax.train import checkpoint, loop, optim, state, step
from ecgjax.train.checkpoint_writing import Checkpoints
from ecgjax.train.gauge import Gauge
from ecgjax.train.meter import NotFinite
from ecgjax.train.once import Once, counting
from ecgjax.train.profile import Profile
from ecgjax.train.stall import Watchdog
from ecgjax.train.watch import Best, Stopping
from ecgjax.train.writer import MetricWriter

STEPS = 10
BEST = {"metric": "val_score", "mode": "max", "keep": 3}
META = {"config": {"checkpoint": {"best": BEST}}}


class Mean:
    """The smallest objective: learns the mean of what it sees, from noisy views of it."""

    frozen_paths = ()

    def init(self, key):
        return {"kernel": jax.random.normal(key, (2, 4))}, {"mean": jnp.zeros(())}

    def loss(self, params, extra, batch, key, *, train):
        x = batch["ecg"] + (jax.random.normal(key, batch["ecg"].shape) if train else 0.0)
        value = jnp.mean((x[:, None, None] - params["kernel"]) ** 2)
        return value, Aux({"spread": jnp.std(x)}, {"mean": extra["mean"] + 1} if train else extra)

    def predict(self, params, extra, batch):
        return {}

    def after_update(self, params, extra):
        return extra


OBJECTIVE = Mean()


class Numbers:
    """Batch k holds eight of the values, drawn by k."""

    def __init__(self, values=range(64)):
        self.values, self.next_batch = np.asarray(list(values), np.float32), 0

    def __next__(self):
        epoch, place = divmod(self.next_batch, len(self.values) // 8)
        order = np.random.default_rng(epoch).permutation(len(self.values))
        self.next_batch += 1
        return {"ecg": self.values[order[8 * place : 8 * place + 8]]}


@functools.cache
def program():
    """Mesh, optimiser, its rate, and both steps, compiled once."""
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    tx, schedule = optim.build(
        {"name": "adamw", "schedule": {"name": "warmup_cosine", "learning_rate": 0.1, "warmup_steps": 2}},
        steps=STEPS,
    )
    train_step, eval_step = step.compile_steps(OBJECTIVE, tx, mesh)
    return mesh, tx, schedule, Once(train_step, "train step"), Once(eval_step, "eval step")


def fit(
    workdir,
    *,
    steps=STEPS,
    stop_at=None,
    values=range(64),
    log_every=1,
    save_every=3,
    validate_every=4,
    best=None,
    stopping=None,
    scores=None,
    profile=None,
):
    """Trains in `workdir`, resuming what is there; a SIGTERM arrives once `stop_at` batches were read.

    `scores` are the values of the metric `val_score` from step 1 on.
    """
    mesh, tx, schedule, train_step, eval_step = program()
    batches = Numbers(values)
    checkpoints = Checkpoints(workdir, best=best)
    restored = checkpoints.restore_latest(state.abstract_state(OBJECTIVE, tx, mesh))
    now = restored.state if restored else state.create(OBJECTIVE, tx, mesh, jax.random.key(0))
    if restored:
        batches.next_batch = restored.next_batch
    if stopping is not None and restored:
        stopping.resume(restored.meta["stop"])

    def interrupted_step(now, batch, key):
        if stop_at is not None and int(now.step) + 1 == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(now, batch, key)

    def scored(now):
        return {"val_score": scores[int(now.step) - 1] if int(now.step) else 99.0}

    validate = loop.mean_over(eval_step, lambda: [next(Numbers(values))], jax.random.key(2), mesh)
    writer = MetricWriter(workdir, start_step=int(now.step))
    try:
        return loop.fit(
            now,
            train_step=interrupted_step,
            validate=validate if scores is None else scored,
            batches=batches,
            key=jax.random.key(1),
            mesh=mesh,
            rhythm=loop.Rhythm(steps, log_every, validate_every, save_every),
            checkpoints=checkpoints,
            writer=writer,
            meta=META,
            rates={"learning_rate": schedule},
            name="test",
            gauge=Gauge(chips=1),
            profile=profile or Profile(),
            watchdog=Watchdog(10.0, workdir),
            stopping=stopping,
        )
    finally:
        writer.close()
        checkpoints.close()


def logged(workdir, key="loss"):
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [record["step"] for record in records if key in record]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, fit(workdir)


def test_every_step_is_logged_once(whole):
    assert logged(whole[0]) == list(range(1, STEPS + 1))


def test_validation_comes_at_its_rhythm_and_at_both_ends(whole):
    assert logged(whole[0], "val_loss") == [0, 4, 8, 10]


def test_checkpoints_come_at_their_rhythm_and_at_both_ends(whole):
    assert checkpoint.steps(whole[0]) == [0, 9, 10]


def test_what_the_watcher_needs_is_logged(whole):
    line = (whole[0] / "metrics.jsonl").read_text().splitlines()[1]
    assert {
        "loss",
        "spread",
        "grad_norm",
        "learning_rate",
        "step_ms",
        "examples_per_s",
        "data_wait",
        "time",
    } < set(json.loads(line))


def test_after_the_first_step_nothing_is_compiled_not_for_a_save_nor_a_validation(tmp_path, monkeypatch):
    """Steps refuse a second program themselves; this counts what the loop evaluates beside them, too."""
    write, counts = MetricWriter.write, {}

    def noting(self, step, scalars):
        counts.setdefault(step, sum(compilations.values()))
        write(self, step, scalars)

    monkeypatch.setattr(MetricWriter, "write", noting)
    with counting() as compilations:
        fit(tmp_path)
    assert set(counts) == set(range(STEPS + 1))
    assert {counts[step] for step in range(1, STEPS + 1)} == {sum(compilations.values())}


def test_the_rate_logged_is_the_rate_used(whole):
    records = [json.loads(line) for line in (whole[0] / "metrics.jsonl").read_text().splitlines()]
    rates = {r["step"]: r["learning_rate"] for r in records if "loss" in r}
    assert rates[1] == pytest.approx(0.05)  # Half of the way up after one of two steps.
    assert rates[7] == pytest.approx(0.05 * (1 + math.cos(math.pi * 4 / 8)))


def test_logged_are_every_fourth_step_and_what_is_saved(tmp_path):
    fit(tmp_path, log_every=4, save_every=5)
    assert logged(tmp_path) == [4, 5, 8, 10]


def test_batch_statistics_follow_every_step(whole):
    assert float(whole[1].extra["mean"]) == STEPS


def test_sigterm_saves_and_the_resumed_run_is_bitwise_the_uninterrupted_one(whole, tmp_path, capsys):
    stopped = fit(tmp_path, stop_at=5)
    assert int(stopped.step) == 5
    assert checkpoint.steps(tmp_path)[-1] == 5
    assert "SIGTERM: saved step 5; run the same command to go on" in capsys.readouterr().err
    finished = fit(tmp_path)
    assert trees.digest(finished) == trees.digest(whole[1])
    assert logged(tmp_path) == list(range(1, STEPS + 1))
    assert logged(tmp_path, "val_loss") == [0, 4, 8, 10]


def test_handlers_of_signals_are_put_back(whole):
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_the_last_good_checkpoint(tmp_path):
    with pytest.raises(
        ValueError, match=r"the loss is nan, the gradient norm nan at step 1; lower config\.optimizer"
    ):
        fit(tmp_path, values=[float("nan")] * 64)
    assert checkpoint.steps(tmp_path) == [0]


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    # The first seven batches are sound; no step but the last would be logged.
    poisoned = [float("nan") if i == 60 else 1.0 for i in range(64)]
    with pytest.raises(ValueError, match=r"the loss is nan.* at step \d"):
        fit(tmp_path, values=poisoned, log_every=100, save_every=1)
    state_of_last = checkpoint.steps(tmp_path)[-1]
    params, _ = checkpoint.read_params(
        tmp_path, state_of_last, {"kernel": jax.ShapeDtypeStruct((2, 4), "float32")}, {}
    )
    assert np.all(np.isfinite(params["kernel"]))


@pytest.mark.parametrize("stopped_after", [None, 2], ids=["to the end", "SIGTERM"])
def test_the_first_step_that_is_not_finite_is_known_though_none_was_logged(tmp_path, stopped_after):
    values = [float("nan") if i == 60 else 1.0 for i in range(64)]
    batches = Numbers(values)
    number = next(number for number in range(8) if np.isnan(next(batches)["ecg"]).any())
    stop_at = None if stopped_after is None else number + stopped_after
    with pytest.raises(NotFinite) as raised:
        fit(tmp_path, values=values, log_every=100, save_every=100, validate_every=100, stop_at=stop_at)
    assert raised.value.step == number + 1
    assert checkpoint.steps(tmp_path) == [0]


@pytest.mark.parametrize("field", ["steps", "log_every", "validate_every", "save_every"])
def test_a_rhythm_below_one_is_refused(field):
    fields = {"steps": 2, "log_every": 1, "validate_every": 1, "save_every": 1, field: 0}
    with pytest.raises(ValueError, match=rf"config\.{field} is 0; it must be at least 1"):
        loop.Rhythm(**fields)


def test_validation_is_the_mean_over_batches():
    mesh = meshes.make_mesh(devices=jax.devices()[:1])

    def eval_step(_, batch, key):
        return {"loss": batch["ecg"].mean()}

    inputs = [{"ecg": np.full((8,), value, np.float32)} for value in (1.0, 2.0, 6.0)]
    validate = loop.mean_over(eval_step, lambda: inputs, jax.random.key(0), mesh)
    nothing = state.TrainState(jnp.zeros((), jnp.int32), {}, {}, {})
    assert validate(nothing) == {"val_loss": 3.0}


# The best three are steps 2, 5 and 8; 1 and 3 are among the best for a while, 4, 6, 7, 9 and 10 never.
SCORES = (1.0, 8.0, 5.0, 0.5, 7.0, float("nan"), 2.0, 9.0, 3.0, 4.0)


def test_the_best_by_validation_are_kept_beside_the_last(tmp_path):
    fit(tmp_path, best=Best(**BEST), scores=SCORES, validate_every=1, save_every=100)
    # Step 10 ends the run; before it steps 1, 2, 3, 5 and 8 entered the best, and 8 was saved last.
    assert checkpoint.steps(tmp_path) == [0, 2, 5, 8, 10]
    assert checkpoint.choose_step(tmp_path, "best") == 8
    assert checkpoint.read_scores(tmp_path) == {
        2: {"val_score": 8.0},
        5: {"val_score": 7.0},
        8: {"val_score": 9.0},
        10: {"val_score": 4.0},
    }


def test_an_interrupted_run_keeps_the_same_best(tmp_path):
    options = {"best": Best(**BEST), "scores": SCORES, "validate_every": 1, "save_every": 100}
    fit(tmp_path, stop_at=6, **options)
    fit(tmp_path, **options)
    assert checkpoint.steps(tmp_path) == [0, 2, 5, 8, 10]


def test_without_a_metric_only_the_rhythm_saves(whole):
    assert checkpoint.read_scores(whole[0]).keys() == {10}  # Step 9 is saved, but not validated.
    with pytest.raises(ValueError, match=r"holds no checkpoint with a finite val_score"):
        checkpoint.choose_step(whole[0], "best")


def stopping():
    return Stopping(metric="val_score", mode="max", patience=2)


# Best at step 2; steps 3 to 5 are worse, one more than the patience.
WORSE = (1.0, 8.0, 5.0, 4.0, 7.0, 99.0, 99.0, 99.0, 99.0, 99.0)


@pytest.mark.parametrize("stop_at", [None, 4, 5])
def test_a_run_stops_early_at_the_same_step_however_often_it_was_interrupted(tmp_path, stop_at, capsys):
    options = {"scores": WORSE, "validate_every": 1, "save_every": 100}
    if stop_at is not None:
        assert int(fit(tmp_path, stop_at=stop_at, stopping=stopping(), **options).step) == stop_at
    watch = stopping()
    ended = fit(tmp_path, stopping=watch, **options)
    assert int(ended.step) == 5
    assert watch.stopped
    assert checkpoint.steps(tmp_path)[-1] == 5
    said = "stopped early at step 5: val_score was worse than its best, 8, 3 times in a row"
    assert said in capsys.readouterr().err


def test_a_batch_of_another_shape_is_refused_with_the_difference(tmp_path, monkeypatch):
    place, sizes = meshes.to_global, iter([8, 8, 4])  # Of validation, of step 1, of step 2.

    def shrinking(batch, mesh):
        size = next(sizes)
        return place({name: x[:size] for name, x in batch.items()}, mesh)

    monkeypatch.setattr(meshes, "to_global", shrinking)
    differs = r"batch\['ecg'\].* compiled with float32\[8\] and called with float32\[4\]"
    with pytest.raises(ValueError, match=rf"(?s)the train step is compiled.*{differs}"):
        fit(tmp_path)


@pytest.mark.parametrize("what", ["train", "eval"])
def test_an_implicit_transfer_at_a_step_is_refused(tmp_path, monkeypatch, what):
    if what == "train":
        monkeypatch.setattr(loop, "mean_over", lambda *_: lambda now: {})
    monkeypatch.setattr(meshes, "to_global", lambda batch, mesh: batch)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        fit(tmp_path)
