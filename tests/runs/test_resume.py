"""A run that is killed, started again, ends as if nothing had happened."""

import json
import signal
import time

import pytest
from tiny_runs import cross_modal

from ecgjax.train import checkpoint

STEPS = 40
WATCHED = [
    "--config.accumulate=2",
    "--config.optimizer.layer_decay=0.75",
    "--config.checkpoint.best.metric=val_loss",
    "--config.checkpoint.best.mode=min",
    "--config.checkpoint.best.keep=1",
    "--config.stop.metric=val_loss",
    "--config.stop.mode=min",
]
"""Microbatches, and what validation decides: all of it goes on where it was."""


def arguments(data, workdir):
    return ["train", *cross_modal(data, STEPS), *WATCHED, f"--workdir={workdir}"]


def logged(workdir):
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [record["step"] for record in records if "loss" in record]


def marker(workdir):
    return json.loads((workdir / "TRAINED").read_text())


@pytest.fixture(scope="module")
def finished(command, tiny_data, tmp_path_factory):
    """An uninterrupted run, traced on its way, and what it said."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    code, said = command(*arguments(tiny_data, workdir), "--profile=2:4")
    assert code == 0, said
    return workdir, said


@pytest.fixture(scope="module")
def whole(finished):
    return finished[0]


def interrupt(command, tiny_data, workdir, number):
    """Starts the run and sends a signal once a checkpoint beyond the first is there; returns code and output."""
    process = command.start(*arguments(tiny_data, workdir))
    deadline = time.monotonic() + 200
    try:
        while not [step for step in checkpoint.steps(workdir) if step > 0] and process.poll() is None:
            assert time.monotonic() < deadline, "no checkpoint appeared"
            time.sleep(0.002)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, said


# test_kills does it with a smaller model, many times.
_KILL = pytest.param(signal.SIGKILL, marks=pytest.mark.slow, id="kill -9")


@pytest.mark.parametrize("number", [_KILL, pytest.param(signal.SIGTERM, id="SIGTERM")])
def test_an_interrupted_run_ends_bitwise_like_an_uninterrupted_one(
    command, tiny_data, whole, tmp_path, number
):
    workdir = tmp_path / "run"
    code, said = interrupt(command, tiny_data, workdir, number)
    assert code == (75 if number == signal.SIGTERM else -signal.SIGKILL), said
    assert not (workdir / "TRAINED").exists()
    code, said = command(*arguments(tiny_data, workdir))
    assert code == 0, said
    assert "resumed at step" in said
    assert marker(workdir) == marker(whole)
    assert logged(workdir) == logged(whole) == list(range(1, STEPS + 1))
    assert checkpoint.read_scores(workdir) == checkpoint.read_scores(whole)
    assert checkpoint.choose_step(workdir, "best") == checkpoint.choose_step(whole, "best")
    counted, wanted = (checkpoint.read_meta(w, STEPS)["stop"] for w in (workdir, whole))
    assert counted == wanted
    assert counted["best"] is not None


def test_a_trained_run_is_left_alone(command, tiny_data, whole):
    before = (whole / "metrics.jsonl").read_text()
    code, said = command(*arguments(tiny_data, whole))
    assert code == 0
    assert "is trained already" in said
    assert (whole / "metrics.jsonl").read_text() == before


def test_the_trace_of_a_run_lies_in_its_workdir_and_is_announced(finished):
    workdir, said = finished
    assert {path.suffix for path in (workdir / "profile").rglob("*") if path.is_file()} == {".pb", ".gz"}
    assert "profiling steps 3 to 4." in said
    assert f"tensorboard --logdir={workdir / 'profile'}" in said


def test_each_step_of_a_run_is_compiled_exactly_once(finished):
    assert "compiled: train step 1 x, eval step 1 x, " in finished[1]


def test_on_a_cpu_speed_is_per_device_and_nothing_else_is_claimed(finished):
    workdir, said = finished
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if "step_ms" in record]
    assert len(steps) == STEPS
    for record in steps:
        assert record["examples_per_s_per_chip"] == record["examples_per_s"]
        assert not {"mfu", "hbm_gib", "hbm_peak_gib"} & set(record)
    assert "no MFU: nobody has entered the peak of 'cpu'" in said
