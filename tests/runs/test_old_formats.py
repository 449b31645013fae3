"""A workdir that another ecgjax left: not resumed, but its weights are as good as ever."""

import json

import pytest
from etils import epath
from killed_runs import STEPS, make_config, make_mean

from ecgjax.core import trees
from ecgjax.objectives import OBJECTIVES
from ecgjax.runs import opening, training
from ecgjax.train import checkpoint


@pytest.fixture(scope="module", autouse=True)
def _mean():
    """The objective of these runs is known while they are tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OBJECTIVES, "mean", make_mean)
        yield


@pytest.fixture(scope="module")
def old(tiny_data, tmp_path_factory):
    """A run as ecgjax 0.1.0 left it before it was done, without a format and with a Grain state for its data; and the
    digest of its parameters.
    """
    workdir = epath.Path(tmp_path_factory.mktemp("old") / "run")
    assert training.train(make_config(str(tiny_data)), workdir) == 0
    digest = json.loads((workdir / "TRAINED").read_text())["params"]
    (workdir / "TRAINED").unlink()
    for step in checkpoint.steps(workdir):
        directory = workdir / "checkpoints" / str(step)
        meta = json.loads((directory / "meta" / "metadata").read_text())
        del meta["format"]
        (directory / "meta" / "metadata").write_text(json.dumps(meta))
        (directory / "data" / "metadata").unlink()
        (directory / "data" / "process_0-of-1.json").write_text(json.dumps({"next_index": step}))
    return workdir, digest


@pytest.mark.parametrize("dry_run", [True, False], ids=["dry run", "run"])
def test_an_old_run_is_refused_before_the_first_step_with_the_way_out(tiny_data, old, dry_run):
    workdir, _ = old
    found = sorted(path.name for path in workdir.iterdir())
    message = (
        rf"checkpoint {STEPS} of .* has format 1, written by ecgjax 0\.1\.0;.*init_from\.workdir={workdir}"
    )
    with pytest.raises(ValueError, match=message):
        training.train(make_config(str(tiny_data)), workdir, dry_run=dry_run)
    assert sorted(path.name for path in workdir.iterdir()) == found


def test_its_weights_serve_evaluation_and_a_new_run(tiny_data, old, tmp_path):
    workdir, digest = old
    assert trees.digest(opening.open_checkpoint(workdir, STEPS).params) == digest
    config = make_config(str(tiny_data))
    config.init_from.workdir = str(workdir)
    with config.unlocked():
        config.init_from.rules = [["^ecg/", "ecg/"]]
    assert training.train(config, epath.Path(tmp_path / "new"), dry_run=True) == 0
