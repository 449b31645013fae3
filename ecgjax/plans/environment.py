"""The environment in which libtpu compiles on a machine without a TPU: set before jax is imported."""

import importlib.util
import re
from collections.abc import Mapping

from ecgjax.plans.topologies import Topology

TPU: Mapping[str, str] = {
    "TPU_SKIP_MDS_QUERY": "1",  # There is no metadata server to ask.
    "JAX_PLATFORMS": "cpu",  # On a TPU host the process would claim the chips.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # Another process may hold libtpu's lock file.
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",  # With the next, silences stderr; planning ignores both.
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
}
"""What each does was measured with libtpu 0.0.42.1."""

_FAKE = "--xla_force_host_platform_device_count"


def of(topology: Topology, base: Mapping[str, str]) -> dict[str, str]:
    """`base` with what the compilation needs; local devices are those that JAX finds, or fake ones on a CPU."""
    # Reading an entry of another process fails with a warning, so the cache costs time and saves none. A run compiles
    # with all optimisations, so a plan does too.
    base = {**base, "JAX_ENABLE_COMPILATION_CACHE": "false", "JAX_DISABLE_MOST_OPTIMIZATIONS": "false"}
    flags = re.sub(rf"{_FAKE}=\d+", "", base.get("XLA_FLAGS", "")).strip()
    if topology.chip is not None:
        return {**base, **TPU, "XLA_FLAGS": flags}
    return {**base, "XLA_FLAGS": f"{flags} {_FAKE}={topology.devices}".strip()}


def check_libtpu() -> None:
    """Raises where the compiler for TPUs is not installed."""
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            'planning for a TPU needs its compiler, which is not installed: pip install "ecgjax[plan]" '
            "(libtpu, about 700 MB; no TPU needed). --topology=local:8 plans without it."
        )
