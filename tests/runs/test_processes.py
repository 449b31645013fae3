"""Several processes train one model: together, after interruptions, on fewer of them, or not at all."""

import json
import signal
import time

import numpy as np
import pytest
from processes import Job, logged
from tiny_runs import cross_modal, masked

from ecgjax.core import trees
from ecgjax.runs import opening

STEPS = 60
EVERY = ("--config.save_every=8", "--config.validate_every=30", "--config.log_every=1")


def arguments(data, workdir, recipe=masked):
    return ["train", *recipe(data, STEPS), *EVERY, f"--workdir={workdir}"]


def parameters(workdir):
    return trees.flatten(opening.open_checkpoint(workdir, STEPS).params)


def losses(workdir):
    records = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if "loss" in record]


def assert_equal_runs(workdir, whole, *, tolerance=5e-5):
    """The same steps, losses and parameters; sums over devices differ in their order.

    Not the biases of keys: attention does not depend on them, so that Adam follows the rounding of a zero gradient.
    """
    assert logged(workdir) == logged(whole) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(losses(workdir), losses(whole), rtol=tolerance)
    found, wanted = parameters(workdir), parameters(whole)
    assert found.keys() == wanted.keys()
    for name in wanted:
        if name.endswith("qkv/bias"):
            found[name], wanted[name] = (x[np.r_[0:16, 32:48]] for x in (found[name], wanted[name]))
        np.testing.assert_allclose(found[name], wanted[name], atol=tolerance, rtol=tolerance, err_msg=name)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def whole(tiny_data, cache, tmp_path_factory):
    """One process throughout, and the batches it read."""
    root = tmp_path_factory.mktemp("whole")
    with Job(root / "job", *arguments(tiny_data, root / "run"), processes=1, cache=cache) as job:
        ended = job.wait()
    assert ended.codes == [0], ended.said
    return root / "run", job.batches()


def test_killed_then_interrupted_then_alone_ends_like_one_process(tiny_data, whole, cache, tmp_path):
    """kill -9 of one of two, both again until SIGTERM, the rest on one: as if nothing had happened."""
    workdir = tmp_path / "run"
    command, read = arguments(tiny_data, workdir), {}

    with Job(tmp_path / "killed", *command, pause_s=0.1, cache=cache) as job:
        job.at_step(workdir, 12, signal.SIGKILL, 1)
        ended = job.wait(timeout_s=60)
    assert ended.codes == [76, -signal.SIGKILL], ended.said
    assert "process 1 of 2" in ended.said[0]
    assert "is gone. The same command, on all processes, goes on" in ended.said[0]
    assert "Traceback" not in ended.said[0]
    read |= job.batches()

    with Job(tmp_path / "interrupted", *command, pause_s=0.1, cache=cache) as job:
        job.at_step(workdir, 20, signal.SIGTERM, 1)
        ended = job.wait(timeout_s=60)
    assert ended.codes == [75, 75], ended.said
    assert "resumed at step 8." in ended.said[0]
    assert not (workdir / "TRAINED").exists()
    saved = logged(workdir)[-1]
    assert f"SIGTERM: saved step {saved}" in ended.said[0]
    assert 20 <= saved < STEPS
    assert "ecgjax" not in ended.said[1], "only the lead speaks"
    read |= job.batches()

    with Job(tmp_path / "alone", *command, processes=1, cache=cache) as job:
        ended = job.wait()
    assert ended.codes == [0], ended.said
    assert f"resumed at step {saved}." in ended.said[0]
    read |= job.batches()

    assert {number: read[number] for number in range(STEPS)} == whole[1]
    assert_equal_runs(workdir, whole[0])


def test_processes_that_disagree_are_refused_with_both_values(tiny_data, tmp_path):
    other = tmp_path / "data"
    other.mkdir()
    for path in tiny_data.iterdir():
        (other / path.name).symlink_to(path)
    manifest = json.loads((tiny_data / "manifest.json").read_text())
    (other / "manifest.json").unlink()
    (other / "manifest.json").write_text(json.dumps(manifest | {"fingerprint": "f" * 64}))
    differing = {1: [f"--config.data.directory={other}", "--config.optimizer.clip_norm=0.5", "--dry_run"]}
    command = arguments(tiny_data, tmp_path / "run")
    with Job(tmp_path / "job", *command, differing=differing) as job:
        ended = job.wait(timeout_s=120)
    assert ended.codes == [1, 1], ended.said
    for said in ended.said:
        assert "process 1 of 2" in said
        assert "config.optimizer.clip_norm: 1.0 -> 0.5" in said
        assert f"config.data.directory: {tiny_data} -> {other}" in said
        assert f"data.fingerprint: {manifest['fingerprint']} -> {'f' * 64}" in said
        assert "command.dry_run: False -> True" in said
        assert "Traceback" not in said
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
def test_four_then_two_then_one_end_like_one_process(tiny_data, whole, cache, tmp_path):
    """SIGTERM at each change, as when a pod comes back smaller."""
    workdir, read = tmp_path / "run", {}
    for processes, step in ((4, 8), (2, 18)):
        with Job(
            tmp_path / str(processes),
            *arguments(tiny_data, workdir),
            processes=processes,
            pause_s=0.1,
            cache=cache,
        ) as job:
            job.at_step(workdir, step, signal.SIGTERM, *range(processes))
            ended = job.wait(timeout_s=90)
        assert ended.codes == [75] * processes, ended.said
        read |= job.batches()
    with Job(tmp_path / "one", *arguments(tiny_data, workdir), processes=1, cache=cache) as job:
        ended = job.wait()
    assert ended.codes == [0], ended.said
    read |= job.batches()
    assert {number: read[number] for number in range(STEPS)} == whole[1]
    assert_equal_runs(workdir, whole[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "processes", "options"),
    [
        (masked, 4, []),
        (masked, 2, ["--config.mesh.fsdp=2"]),
        (masked, 2, ["--config.accumulate=2"]),
        (cross_modal, 2, []),
    ],
    ids=["four", "fsdp", "microbatches", "contrastive"],
)
def test_several_processes_equal_one(tiny_data, tmp_path, recipe, processes, options):
    """Interrupted once, gone on with all: logits are global, parameters may lie in parts."""
    alone, workdir = tmp_path / "alone", tmp_path / "run"
    with Job(
        tmp_path / "one", *arguments(tiny_data, alone, recipe), *options, processes=1, devices=processes
    ) as one:
        ended = one.wait()
    assert ended.codes == [0], ended.said
    command = [*arguments(tiny_data, workdir, recipe), *options]
    with Job(tmp_path / "first", *command, processes=processes, pause_s=0.1) as job:
        job.at_step(workdir, 10, signal.SIGTERM, *range(processes))
        ended = job.wait(timeout_s=60)
    assert ended.codes == [75] * processes, ended.said
    read = job.batches()
    with Job(tmp_path / "second", *command, processes=processes) as job:
        ended = job.wait()
    assert ended.codes == [0] * processes, ended.said
    assert {**read, **job.batches()} == one.batches()
    assert_equal_runs(workdir, alone)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "stands still"])
def test_where_the_coordinator_goes_all_end(tiny_data, tmp_path, number):
    """jax aborts there; the exit code and the message are those of any other death. A machine that stands still
    closes no connection, and takes new ones.
    """
    workdir = tmp_path / "run"
    with Job(tmp_path / "job", *arguments(tiny_data, workdir), pause_s=0.1) as job:
        job.at_step(workdir, 4, number, 0)
        while job.code(1) is None:
            assert job.seconds() < 60, job.said(1)
            time.sleep(0.1)
        code, said = job.code(1), job.said(1)
    assert code == 76, said
    assert "process 0 of 2" in said
    assert "is gone. The same command, on all processes, goes on" in said


@pytest.mark.slow
def test_a_process_that_stands_still_ends_all_with_its_stacks(tiny_data, tmp_path):
    """SIGSTOP: no error, no lost connection, only silence."""
    workdir = tmp_path / "run"
    command = [*arguments(tiny_data, workdir), "--peer_timeout=6"]
    with Job(tmp_path / "job", *command, pause_s=0.1) as job:
        job.at_step(workdir, 4, signal.SIGSTOP, 1)
        with pytest.raises(AssertionError, match="has been silent for 6 s"):
            job.wait(timeout_s=20)  # The stopped one cannot end.
