"""A run that is killed -9 at any moment, again and again, ends as if nothing had happened."""

import json
import os
import pathlib
import random
import secrets
import signal
import subprocess
import sys

import pytest

from ecgjax.core import trees
from ecgjax.train import checkpoint, checkpoint_files

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Runs:
    """Runs of `killed_runs.py`, one after another."""

    def __init__(self, data, cache, errors):
        environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
        environment |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        script = ROOT / "tests" / "runs" / "killed_runs.py"
        self._errors = errors
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(data), str(cache)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors.open("w"),
            text=True,
        )

    def __call__(self, workdir, kill_after_s=None):
        self._process.stdin.write(json.dumps({"workdir": str(workdir), "kill_after_s": kill_after_s}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self._errors.read_text()
        return json.loads(answer)

    def said(self):
        return self._errors.read_text()

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def runs(tiny_data, tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs")
    runs = Runs(tiny_data, directory / "compile_cache", directory / "said.txt")
    yield runs
    runs.close()


@pytest.fixture(scope="module")
def whole(runs, tmp_path_factory):
    """An undisturbed run, compiled before: its workdir and its seconds."""
    parent = tmp_path_factory.mktemp("whole")
    assert runs(parent / "compiles")["code"] == 0, runs.said()
    answer = runs(parent / "run")
    assert answer["code"] == 0, runs.said()
    return parent / "run", answer["seconds"]


def logged(workdir, key):
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [record["step"] for record in records if key in record]


def digests(workdir):
    """Of every checkpoint, as a resumed run would read it."""
    found = {}
    for step in checkpoint.steps(workdir):
        directory = checkpoint_files.directory_of(workdir) / str(step)
        tree = {
            name: checkpoint_files.ocp.StandardCheckpointHandler().restore(directory / name)
            for name in checkpoint_files.TREES
        }
        found[step] = trees.digest(tree)
    return found


def check(runs, whole, parent, kills):
    """Kills runs at random moments until there were so many `kills`, and looks at every end."""
    seed = secrets.randbelow(10**6)
    print(f"random moments of seed {seed}")
    draw = random.Random(seed)
    reference, seconds = whole
    marker = (reference / "TRAINED").read_text()
    states = {}
    killed, number, newest = 0, 0, -1
    while killed < kills or number == 0 or newest >= 0:
        workdir = parent / str(number)
        answer = runs(workdir, draw.uniform(0.0, seconds) if killed < kills else None)
        restored = answer["restored"]
        if restored is not None:  # Else it was killed before, or there was nothing.
            assert restored["step"] == newest
            states.setdefault(restored["step"], set()).add(restored["digest"])
        assert max(answer["after"], default=-1) >= max([newest, *answer["before"]]), "a checkpoint was lost"
        newest = max(answer["after"], default=-1)
        if answer["code"] == -signal.SIGKILL:
            killed += 1
            continue
        assert answer["code"] == 0, runs.said()
        assert (workdir / "TRAINED").read_text() == marker
        assert logged(workdir, "loss") == logged(reference, "loss")
        assert logged(workdir, "val_loss") == logged(reference, "val_loss")
        assert not (workdir / "damaged").exists()
        assert digests(workdir) == digests(reference)
        number, newest = number + 1, -1
    assert all(len(found) == 1 for found in states.values()), "one step was restored as two states"
    assert "cannot be read" not in runs.said()


def test_a_run_killed_ten_times_ends_bitwise_as_if_undisturbed(runs, whole, tmp_path):
    check(runs, whole, tmp_path, kills=10)


@pytest.mark.slow
def test_a_run_killed_a_hundred_times_ends_bitwise_as_if_undisturbed(runs, whole, tmp_path):
    check(runs, whole, tmp_path, kills=100)
