import pytest
from scripts import Fakes


@pytest.fixture
def fakes(tmp_path) -> Fakes:
    directory = tmp_path / "programs"
    directory.mkdir()
    return Fakes(directory)
