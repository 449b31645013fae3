"""Starting from the checkpoints of several runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from ecgjax.core import mesh as meshes
from ecgjax.runs import initial, opening
from ecgjax.train.state import TrainState


class Nothing:
    """An objective that nobody asks."""

    frozen_paths = ()

    def init(self, key): ...

    def loss(self, params, extra, batch, key, *, train): ...

    def predict(self, params, extra, batch): ...

    def after_update(self, params, extra): ...


def weights(value, *, cmr="cmr"):
    params = {"ecg": {"kernel": jnp.full((4, 2), value)}, cmr: {"norm": {"scale": jnp.full(3, value)}}}
    return params, {cmr: {"norm": {"mean": jnp.full(3, value)}}}


def source(name, value, *rules, **names):
    params, extra = weights(value, **names)
    return initial.Source(opening.Trained(Nothing(), params, extra, 7, {}), name, rules)


@pytest.fixture
def state():
    params, extra = weights(0.0)
    tree = TrainState(jnp.zeros((), jnp.int32), params, extra, {})
    return jax.device_put(tree, meshes.shardings(tree, meshes.make_mesh(data=2, fsdp=4)))


def test_two_runs_give_what_their_rules_say_and_statistics_go_with_their_layer(state, tmp_path, capsys):
    sources = [
        source("/mdm", 1.0, ("^ecg/", "ecg/")),
        source("/simclr", 2.0, ("^image/", "cmr/"), cmr="image"),
    ]
    started = initial.initialise(state, sources, epath.Path(tmp_path))
    assert np.all(started.params["ecg"]["kernel"] == 1)
    assert np.all(started.params["cmr"]["norm"]["scale"] == 2)
    assert np.all(started.extra["cmr"]["norm"]["mean"] == 2)
    for new, old in zip(jax.tree.leaves(started), jax.tree.leaves(state), strict=True):
        assert new.sharding == old.sharding
    text = (tmp_path / "init_from.txt").read_text()
    mdm, simclr = text.split("initialised from /simclr step 7: 2 leaves copied")
    assert mdm.startswith("initialised from /mdm step 7: 1 leaves copied")
    assert mdm.endswith("ecg/kernel\n")
    assert simclr.endswith("cmr/norm/mean\ncmr/norm/scale\n") or simclr.endswith(
        "cmr/norm/scale\ncmr/norm/mean\n"
    )
    assert "initialised from /simclr step 7" in capsys.readouterr().err


def test_what_is_frozen_and_came_from_nowhere_is_said_aloud(state, tmp_path, capsys):
    frozen = ("^ecg/", "^cmr/")
    started = initial.initialise(state, [], epath.Path(tmp_path), frozen=frozen)
    assert "wrote them: cmr/norm, ecg/kernel;" in capsys.readouterr().err
    assert started is state
    assert not list(tmp_path.iterdir())
    initial.initialise(state, [source("/mdm", 1.0, ("^ecg/", "ecg/"))], epath.Path(tmp_path), frozen=frozen)
    assert "wrote them: cmr/norm;" in capsys.readouterr().err
    initial.initialise(state, [source("/mdm", 1.0, ("", ""))], epath.Path(tmp_path), frozen=frozen)
    assert "frozen" not in capsys.readouterr().err


def test_two_runs_that_write_one_leaf_are_refused(state, tmp_path):
    sources = [source("/one", 1.0, ("^ecg/", "ecg/")), source("/two", 2.0, ("^(ecg|cmr)/", r"\1/"))]
    with pytest.raises(
        ValueError, match=r"/one step 7 and /two step 7 both write ecg/kernel \(and 0 more\); make the rules"
    ):
        initial.initialise(state, sources, epath.Path(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_only_sources_with_a_workdir_count():
    one = {"workdir": "", "step": None, "rules": ()}
    two = {"workdir": "/run", "step": "best", "rules": ()}
    assert initial.sections({**one, "also": (one, two)}) == [("config.init_from.also[1]", two)]
    assert initial.sections({**two, "also": ()}) == [("config.init_from", two)]
