"""Several `python -m ecgjax` processes of one job on this machine, and what each of them did."""

import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECORDED = pathlib.Path(__file__).with_name("recorded.py")


@dataclasses.dataclass(frozen=True)
class Ended:
    """Exit codes and output of all processes, and the seconds from the last signal, or the start, to the last end."""

    codes: list[int]
    said: list[str]
    seconds: float


class Job:
    """Processes on loopback, `devices` fake ones each; outputs and batch numbers land in `directory`.

    A context: whatever happens inside, none outlives it.
    """

    def __init__(
        self, directory, *arguments, processes=2, devices=1, pause_s=0.0, differing=None, cache=None
    ):
        self._directory = pathlib.Path(directory)
        self._directory.mkdir(parents=True)
        self._count, self._children = processes, []
        self._arguments = [*arguments, *([f"--compile_cache={cache}"] if cache else [])]
        self._pause_s, self._differing, self._devices = pause_s, differing or {}, devices

    def __enter__(self):
        port = _free_port()
        self._since = time.monotonic()
        for number in range(self._count):
            group = [f"--coordinator=127.0.0.1:{port}", f"--processes={self._count}", f"--process={number}"]
            command = [sys.executable, RECORDED, self._batches(number), str(self._pause_s), *self._arguments]
            command += [*self._differing.get(number, []), *(group if self._count > 1 else [])]
            with self._output(number).open("w") as output:
                self._children.append(
                    subprocess.Popen(
                        command, cwd=ROOT, env=self._environment(), stdout=output, stderr=subprocess.STDOUT
                    )
                )
        return self

    def __exit__(self, *_):
        for child in self._children:
            child.kill()
            child.wait()

    def at_step(self, workdir, step: int, number: signal.Signals, *receivers: int) -> None:
        """Sends a signal to some processes once `step` is logged in `workdir`."""
        deadline = time.monotonic() + 240
        while step not in logged(workdir):
            assert time.monotonic() < deadline, self._all_said()
            assert all(child.poll() is None for child in self._children), self._all_said()
            time.sleep(0.02)
        for receiver in receivers:
            self._children[receiver].send_signal(number)
        self._since = time.monotonic()

    def wait(self, timeout_s: float = 240) -> Ended:
        """Returns once all have ended by themselves; a process that hangs fails the test."""
        deadline = time.monotonic() + timeout_s
        while any(child.poll() is None for child in self._children):
            assert time.monotonic() < deadline, f"still running: {self._all_said()}"
            time.sleep(0.02)
        seconds = time.monotonic() - self._since
        return Ended([child.returncode for child in self._children], self._all_said(), seconds)

    def code(self, number: int) -> int | None:
        """The exit code of one process; None while it runs."""
        return self._children[number].poll()

    def said(self, number: int) -> str:
        """What one process has said so far."""
        return self._output(number).read_text()

    def seconds(self) -> float:
        """Since the last signal, or the start."""
        return time.monotonic() - self._since

    def batches(self) -> dict[int, list[int]]:
        """The example numbers of every global batch that all processes have read, by its number."""
        records = [_lines(self._batches(number)) for number in range(self._count)]
        parts = [{record["batch"]: record["index"] for record in lines} for lines in records]
        shared = set.intersection(*(set(part) for part in parts))
        return {batch: [index for part in parts for index in part[batch]] for batch in shared}

    def _environment(self):
        # Compiling costs more than running here.
        flags = f"--xla_force_host_platform_device_count={self._devices} --xla_backend_optimization_level=0"
        own = {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}
        return {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")} | own

    def _output(self, number):
        return self._directory / f"{number}.txt"

    def _batches(self, number):
        return self._directory / f"{number}.jsonl"

    def _all_said(self):
        return [self._output(number).read_text() for number in range(self._count)]


def logged(workdir) -> list[int]:
    """Training steps in the log of a workdir, in the order they were written."""
    return [record["step"] for record in _lines(pathlib.Path(workdir) / "metrics.jsonl") if "loss" in record]


def _lines(path):
    """Records of a file that may be being written."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]
