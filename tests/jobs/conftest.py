import dataclasses
import os
import pathlib
import subprocess
import sys

import pytest
from etils import epath

from configs import mae_ecg, prepare
from ecgjax.jobs import prepare as prepare_job

ROOT = pathlib.Path(__file__).resolve().parents[2]
_OF_TESTS = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")


@dataclasses.dataclass(frozen=True)
class Command:
    """`python -m ecgjax` in a process of its own, on one device."""

    cache: pathlib.Path

    def start(self, *arguments, **options) -> subprocess.Popen:
        environment = {k: v for k, v in os.environ.items() if k not in _OF_TESTS}
        environment |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        compiles = arguments[0] in ("train", "evaluate", "export")
        shared = [f"--compile_cache={self.cache}"] if compiles else []
        command = [sys.executable, "-m", "ecgjax", *arguments, *shared]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )

    def __call__(self, *arguments) -> tuple[int, str]:
        process = self.start(*arguments)
        try:
            said, _ = process.communicate(timeout=300)
        finally:
            process.kill()
        return process.returncode, said


@pytest.fixture(scope="session")
def command(tmp_path_factory) -> Command:
    return Command(tmp_path_factory.mktemp("compile_cache"))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> epath.Path:
    """The synthetic cohort of `configs/prepare.py:tiny`, as `prepare` makes it; read, never changed."""
    directory = epath.Path(tmp_path_factory.mktemp("tiny") / "data")
    prepare_job.prepare(prepare.get_config("tiny"), directory)
    return directory


@pytest.fixture(scope="session")
def make_masked_config(tiny_data):
    """Makes the config of a masked run of eight steps with a transformer of width 16."""

    def make():
        config = mae_ecg.get_config("demo")
        config.steps, config.log_every, config.validate_every, config.save_every = 8, 1, 4, 4
        config.data.update({"directory": str(tiny_data), "batch_size": 16, "crop": 100})
        config.objective.encoder.update({"width": 16, "depth": 1, "heads": 2, "patch": 50, "patch_leads": 1})
        config.objective.decoder.update({"width": 16, "depth": 1, "heads": 2})
        config.optimizer.schedule.warmup_steps = 2
        return config

    return make


@pytest.fixture
def masked_config(make_masked_config):
    return make_masked_config()
