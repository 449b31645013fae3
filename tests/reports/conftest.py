import fake_runs
import pytest


@pytest.fixture(scope="session")
def fake(tmp_path_factory):
    """A root with results of six runs and three seeds, and the spec that reads it; read only."""
    root = tmp_path_factory.mktemp("runs")
    return root, fake_runs.write_all(root)


@pytest.fixture(scope="session")
def scored(fake):
    from ecgjax.reports.probe_scores import load

    root, spec = fake
    return load(spec["rows"], root=root, draws=200)
