"""A checkpoint that one process of two cannot read is given up by both."""

import json
import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_all_processes_fall_back_where_one_cannot_read(tmp_path):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS" and not k.startswith("SLURM_")}
    environment |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    script = str(ROOT / "tests" / "train" / "half_blind.py")
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(number), str(port), str(tmp_path)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    found = [json.loads(said.splitlines()[-1]) for said, _ in outputs]
    assert found[0] == {"step": 1, "next_batch": 1, "bitwise": True, "kept": [1], "after": [1, 2]}
    assert found[0] == found[1]
    assert (tmp_path / "damaged" / "2").is_dir()
    # The lead alone speaks, and says what the other met with.
    assert "checkpoint 2 of" in outputs[0][1]
    assert "DATA_LOSS: my half is cut short" in outputs[0][1]
    assert "checkpoint 2 of" not in outputs[1][1]
