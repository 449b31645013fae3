import pytest
from heart_world import World


@pytest.fixture(scope="session")
def world():
    return World()
