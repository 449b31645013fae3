"""Eight fake CPU devices, quick compilation, and where real data and goldens lie."""

import dataclasses
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Compiling is most of what tests cost, and hardly any is about what XLA optimises; those ask for it (`optimised`).
# Its newer emitter of fused kernels takes two to four times as long over a step as the older, which rounds otherwise.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Threads that generate code in parallel only cost where every core has a worker of its own.
_FLAGS = {
    "xla_force_host_platform_device_count": "8",
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": "1",
}
_GIVEN = os.environ.get("XLA_FLAGS", "")
_MISSING = [f"--{name}={value}" for name, value in _FLAGS.items() if name not in _GIVEN]
os.environ["XLA_FLAGS"] = " ".join([_GIVEN, *_MISSING]).strip()

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def pytest_configure(config):
    """Grain's worker processes refuse to start while absl flags are unparsed."""
    from absl import flags

    flags.FLAGS.mark_as_parsed()


def pytest_collection_finish(session):
    """As a job does when it starts: tracing is the other half of what tests cost."""
    from ecgjax.core import runtime

    runtime.collect_rarely()


def _directory(variable: str, default: str) -> pathlib.Path:
    path = pathlib.Path(os.environ.get(variable, ROOT.parent / "shared" / default))
    if not path.is_dir():
        pytest.skip(f"{path} is missing; set {variable} to the directory that holds it")
    return path


_MAPS = pathlib.Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def _forget_what_was_compiled():
    """A program holds dozens of the 65,530 memory maps that Linux grants a process; all modules together want more.

    After some modules, not after each: what they have in common would be compiled again for every one.
    """
    yield
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > 20_000:
        import jax

        jax.clear_caches()


@pytest.fixture(scope="module")
def optimised():
    """Compiles with the optimisations of a run, if not with its emitter."""
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def goldens() -> pathlib.Path:
    """Golden arrays for numerical parity."""
    return _directory("ECGJAX_GOLDENS", "goldens")


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Openly licensed ECG and CMR recordings."""
    return _directory("ECGJAX_DATA", "data")


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
def prepared(tmp_path_factory):
    """A prepared directory of 36 examples of no hearts but known numbers; read, never changed."""
    from tiny_cohort import SETTINGS, TinyCohort

    from ecgjax.data.build import build

    directory = tmp_path_factory.mktemp("prepared") / "data"
    build(TinyCohort(), directory, **SETTINGS)
    return directory


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """The synthetic cohort of `configs/prepare.py:tiny`, as `prepare` makes it; read, never changed."""
    from etils import epath

    from configs import prepare
    from ecgjax.runs import preparing

    directory = epath.Path(tmp_path_factory.mktemp("tiny") / "data")
    preparing.prepare(prepare.get_config("tiny"), directory)
    return directory


@pytest.fixture(scope="session")
def make_masked_config(tiny_data):
    """Makes the config of a masked run of eight steps with a transformer of width 16."""
    from configs import mae_ecg

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
