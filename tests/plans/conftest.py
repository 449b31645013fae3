import importlib.util
import os

import pytest

from ecgjax.plans import environment


@pytest.fixture(scope="session")
def libtpu():
    """jax.experimental.topologies, where the compiler for TPUs is installed."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip('libtpu is not installed: pip install "ecgjax[plan]"')
    os.environ.update(environment.TPU)  # libtpu reads it when the first topology is described.
    from jax.experimental import topologies

    return topologies
