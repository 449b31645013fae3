"""Eight fake CPU devices, quick compilation, and where real data and goldens lie."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Compiling is most of what tests cost, and hardly any is about what XLA optimises; those ask for it (`optimised`).
# Its newer emitter of fused kernels takes two to four times as long over a step as the older, which rounds otherwise.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
_FLAGS = {"xla_force_host_platform_device_count": "8", "xla_cpu_use_fusion_emitters": "false"}
_GIVEN = os.environ.get("XLA_FLAGS", "")
_MISSING = [f"--{name}={value}" for name, value in _FLAGS.items() if name not in _GIVEN]
os.environ["XLA_FLAGS"] = " ".join([_GIVEN, *_MISSING]).strip()

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def pytest_configure(config):
    """Grain's worker processes refuse to start while absl flags are unparsed."""
    from absl import flags

    flags.FLAGS.mark_as_parsed()


def pytest_collection_finish(session):
    """As a job does when it starts: tracing is the other half of what tests cost."""
    from ecgjax.core import runtime

    runtime.collect_rarely()


def _directory(variable: str, default: str) -> pathlib.Path:
    path = pathlib.Path(os.environ.get(variable, _ROOT.parent / "shared" / default))
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
