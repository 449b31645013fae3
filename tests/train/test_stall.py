"""A loop that stands still is ended with its stacks; one that works is left alone."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOOP = """
import sys, threading, time
from ecgjax.train.stall import Watchdog

def stuck():
    print("stuck", flush=True)
    threading.Event().wait(60)

with Watchdog(2 / 60, sys.argv[1]) as watchdog:
    time.sleep(3)  # The start may take six times as long as a step.
    for step in range(4):
        watchdog.at(f"step {step}")
        time.sleep(0.2)
    watchdog.at("the validation of step 4", rare=True)
    time.sleep(3)
    watchdog.at("step 5")
    stuck()
"""


def test_a_loop_that_stands_still_is_ended_with_its_stacks(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", LOOP, str(tmp_path)]
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 76
    assert ended.stdout == "stuck\n", "it was ended before it stood still"
    assert "no progress for 2 s at step 5; stacks in" in ended.stderr
    assert "The same command goes on from the last checkpoint." in ended.stderr
    assert " in stuck" in (tmp_path / "stalled" / "0.txt").read_text()
