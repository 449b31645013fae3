import fake_response
import pytest


@pytest.fixture(scope="session")
def trial(tmp_path_factory):
    """A root with every kind of result on a response, and the spec that reads it; read only."""
    root = tmp_path_factory.mktemp("response")
    return root, fake_response.write_all(root)


@pytest.fixture(scope="session")
def found(trial):
    from ecgjax.response.report import contenders

    root, spec = trial
    return contenders.load(spec["runs"], root=root)
