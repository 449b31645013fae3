import fake_response
import fake_runs
import pytest


@pytest.fixture(scope="session")
def fake(tmp_path_factory):
    """A root with results of six runs and three seeds, and the spec that reads it; read only."""
    root = tmp_path_factory.mktemp("runs")
    return root, fake_runs.write_all(root)


@pytest.fixture(scope="session")
def scored(fake):
    from ecgjax.reports.results import load

    root, spec = fake
    return load(spec["rows"], root=root, draws=200)


@pytest.fixture(scope="session")
def trial(tmp_path_factory):
    """A root with every kind of result on a response, and the spec that reads it; read only."""
    root = tmp_path_factory.mktemp("response")
    return root, fake_response.write_all(root)


@pytest.fixture(scope="session")
def found(trial):
    from ecgjax.reports.response import results

    root, spec = trial
    return results.load(spec["runs"], root=root)
