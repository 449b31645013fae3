import pytest
from tiny_cohort import SETTINGS, TinyCohort

from ecgjax.data.build import build


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A prepared directory of 36 examples that tests read and never change."""
    directory = tmp_path_factory.mktemp("prepared") / "data"
    build(TinyCohort(), directory, **SETTINGS)
    return directory
