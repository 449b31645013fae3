"""Saves while storage fails: on a real disk that is full, and with the words of a bucket."""

import contextlib
import errno
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from orbax.checkpoint._src.path import atomicity

from ecgjax.core import distributed, files
from ecgjax.core import mesh as meshes
from ecgjax.train import checkpoint_files
from ecgjax.train.checkpoint_writing import Checkpoints
from ecgjax.train.state import TrainState

ROOT = pathlib.Path(__file__).resolve().parents[2]
GONE = "UNAVAILABLE: Error writing object: HTTP response code: 503 with body: Service Unavailable"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(files, "WAITS_S", (0.0, 0.0))


def make_state(step):
    tree = TrainState(np.asarray(step, np.int32), {"kernel": np.full((4, 4), step, np.float32)}, {}, {})
    return jax.device_put(tree, meshes.shardings(tree, meshes.make_mesh(devices=jax.devices()[:1])))


@pytest.fixture
def failing(tmp_path, monkeypatch):
    """Checkpoints, and errors that their next commits raise, the last first."""
    checkpoints, errors = Checkpoints(tmp_path), []
    commit = atomicity.AtomicRenameTemporaryPath.finalize

    async def failing_commit(self):
        if errors and self.get_final().parent == tmp_path / "checkpoints":
            raise errors.pop()
        await commit(self)

    monkeypatch.setattr(atomicity.AtomicRenameTemporaryPath, "finalize", failing_commit)
    yield checkpoints, errors
    checkpoints.close()


def left(workdir):
    return sorted(path.name for path in (workdir / "checkpoints").iterdir())


@pytest.mark.parametrize("error", [ValueError(GONE), OSError(errno.EIO, "Input/output error")])
def test_a_save_that_fails_is_said_and_made_good_by_the_next(failing, tmp_path, capsys, error):
    checkpoints, errors = failing
    errors.append(error)
    checkpoints.save(make_state(1), 1, {})
    checkpoints.save(make_state(2), 2, {})
    checkpoints.finish(lambda: None)
    assert left(tmp_path) == ["2"]
    said = capsys.readouterr().err
    assert "writing checkpoint 1 failed" in said
    assert "training goes on" in said


def test_the_last_save_is_tried_again_until_it_is_on_disk(failing, tmp_path, capsys):
    checkpoints, errors = failing
    errors += [ValueError(GONE), ValueError(GONE)]
    checkpoints.finish(lambda: checkpoints.save(make_state(1), 1, {}))
    assert left(tmp_path) == ["1"]
    assert capsys.readouterr().err.count("trying again") == 2


def test_the_third_failure_in_a_row_ends_the_run(failing, tmp_path):
    checkpoints, errors = failing
    errors += [ValueError(GONE)] * 3
    checkpoints.save(make_state(1), 1, {})
    checkpoints.save(make_state(2), 2, {})
    checkpoints.save(make_state(3), 3, {})
    with pytest.raises(
        files.StorageError, match=r"writing checkpoint 3: .*failed again and again.*UNAVAILABLE"
    ):
        checkpoints.save(make_state(4), 4, {})
    assert left(tmp_path) == []


@pytest.fixture
def ended(monkeypatch):
    """Makes this one of several processes; what it ends all with, and the exit codes."""
    said = []
    monkeypatch.setattr(distributed, "several", lambda: True)
    monkeypatch.setattr(distributed, "leave", lambda word, error, *, code: said.append((word, code)))
    return said


@pytest.mark.parametrize(
    ("error", "word", "code"),
    [
        (ValueError(GONE), r"writing checkpoint 1 failed \(UNAVAILABLE.*; the same command, on all", 76),
        (OSError(errno.ENOSPC, "No space left on device"), "writing checkpoint 1: no space is left for", 1),
        (TypeError("a bug"), "(?s)Traceback.*TypeError: a bug", 1),
    ],
    ids=["passing", "full", "bug"],
)
def test_of_several_processes_a_failed_save_ends_all_before_any_of_them_waits(
    ended, failing, tmp_path, error, word, code
):
    checkpoints, errors = failing
    errors.append(error)
    checkpoints.save(make_state(1), 1, {})
    deadline = time.monotonic() + 20
    while not ended:  # Nobody asks for it: the others stand at a barrier.
        assert time.monotonic() < deadline
        time.sleep(0.01)
    ((found, said_code),) = ended
    assert re.match(word, found)
    assert said_code == code


def test_what_is_no_matter_of_storage_is_raised_at_once(failing):
    checkpoints, errors = failing
    errors.append(TypeError("a bug"))
    checkpoints.save(make_state(1), 1, {})
    with pytest.raises(TypeError, match="a bug"):
        checkpoints.finish(lambda: None)


def test_a_checkpoint_that_storage_withholds_is_not_taken_for_damaged(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.finish(lambda: checkpoints.save(make_state(1), 1, {}))
    read, errors = checkpoint_files.read_tree, [ValueError(GONE)] * 2

    def withheld(directory, tree):
        if errors:
            raise errors.pop()
        return read(directory, tree)

    monkeypatch.setattr(checkpoint_files, "read_tree", withheld)
    assert int(checkpoints.restore_latest(make_state(0)).state.step) == 1
    errors += [ValueError(GONE)] * 3
    with pytest.raises(files.StorageError, match="run the same command once the storage is well"):
        checkpoints.restore_latest(make_state(0))
    checkpoints.close()
    assert left(tmp_path) == ["1"]
    assert not (tmp_path / "damaged").exists()


def test_what_a_failed_save_still_writes_is_removed_once_it_stands_still(failing, tmp_path):
    checkpoints, errors = failing
    errors.append(ValueError(GONE))
    checkpoints.save(make_state(1), 1, {})
    while errors:  # Until the commit has failed.
        time.sleep(0.01)
    straggling = tmp_path / "checkpoints" / "1.orbax-checkpoint-tmp" / "params" / "d"
    until = time.monotonic() + 0.5

    def write():
        count = 0
        while time.monotonic() < until:
            with contextlib.suppress(FileNotFoundError, FileExistsError):  # Removed between two looks at it.
                straggling.mkdir(parents=True, exist_ok=True)
                (straggling / str(count := count + 1)).write_bytes(b"x")

    straggler = threading.Thread(target=write)
    straggler.start()
    checkpoints.finish(lambda: checkpoints.save(make_state(2), 2, {}))
    straggler.join()
    assert left(tmp_path) == ["2"]


def test_a_full_disk_is_said_and_what_was_saved_stays_whole(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=4m none "$0" && exec "$@"', str(disk)]
    if subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("needs unshare, and the right to mount a file system of its own")
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
    script = [sys.executable, str(ROOT / "tests" / "train" / "full_disk.py"), str(disk)]
    run = subprocess.run([*mount, *script], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert "writing checkpoint 2 failed (no space left on device); training goes on" in run.stderr
    found = json.loads(run.stdout)
    assert found["left"] == [str(step) for step in found["cleared"]]
    assert found["cleared"][-1] == found["restored"] == 4
    final = (
        r"no space is left for .*/run/checkpoints \([0-9,]+ bytes free\)\..*free space.*a --workdir elsewhere"
    )
    assert re.search(final, found["final"])
    assert re.search(r"writing .*/small.bin: no space is left", found["small"])
    assert found["beside"] == ["filler", "run"]  # No half of small.bin.
