"""A run that is killed, started again, ends as if nothing had happened."""

import json
import signal
import time

import pytest
from tiny_runs import cross_modal

from ecgjax.train import checkpoint

STEPS = 40


def logged(workdir):
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [record["step"] for record in records if "loss" in record]


def marker(workdir):
    return json.loads((workdir / "TRAINED").read_text())


@pytest.fixture(scope="module")
def whole(command, tiny_data, tmp_path_factory):
    """An uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    code, said = command("train", *cross_modal(tiny_data, STEPS), f"--workdir={workdir}")
    assert code == 0, said
    return workdir


def interrupt(command, tiny_data, workdir, number):
    """Starts the run and sends a signal once a checkpoint beyond the first is there; returns code and output."""
    process = command.start("train", *cross_modal(tiny_data, STEPS), f"--workdir={workdir}")
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


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "SIGTERM"])
def test_an_interrupted_run_ends_bitwise_like_an_uninterrupted_one(
    command, tiny_data, whole, tmp_path, number
):
    workdir = tmp_path / "run"
    code, said = interrupt(command, tiny_data, workdir, number)
    assert code == (75 if number == signal.SIGTERM else -signal.SIGKILL), said
    assert not (workdir / "TRAINED").exists()
    code, said = command("train", *cross_modal(tiny_data, STEPS), f"--workdir={workdir}")
    assert code == 0, said
    assert "resumed at step" in said
    assert marker(workdir) == marker(whole)
    assert logged(workdir) == logged(whole) == list(range(1, STEPS + 1))


def test_a_trained_run_is_left_alone(command, tiny_data, whole):
    before = (whole / "metrics.jsonl").read_text()
    code, said = command("train", *cross_modal(tiny_data, STEPS), f"--workdir={whole}")
    assert code == 0
    assert "is trained already" in said
    assert (whole / "metrics.jsonl").read_text() == before
