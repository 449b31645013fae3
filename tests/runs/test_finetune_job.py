"""Fine-tuning and probing through the jobs, from a masked run to results."""

import numpy as np
import pytest
from etils import epath

from configs import finetune
from ecgjax.core import trees
from ecgjax.evaluators.base import Results
from ecgjax.runs import evaluating, opening, training

PUBLISHED = [*finetune._TABLE, "linear_probe"]


@pytest.fixture(scope="module")
def pretrained(make_masked_config, tmp_path_factory):
    """A masked run of eight steps; read only."""
    workdir = epath.Path(tmp_path_factory.mktemp("pretrained") / "run")
    assert training.train(make_masked_config(), workdir) == 0
    return workdir


@pytest.fixture
def demo(make_masked_config):
    """Makes a demo of fine-tuning of eight steps, for the encoder of the masked run."""

    def make(recipe, *, source=""):
        config = finetune.get_config(recipe)
        masked = make_masked_config()
        config.steps, config.log_every, config.validate_every, config.save_every = 8, 1, 4, 4
        config.data.update({name: masked.data[name] for name in ("batch_size", "crop")})
        config.data.directory = masked.data.directory
        sizes = {name: masked.objective.encoder[name] for name in ("width", "depth", "heads", "patch")}
        config.objective.encoder.update({**sizes, "patch_leads": 1})
        config.optimizer.schedule.warmup_steps = 2
        config.init_from.workdir = str(source)
        return config

    return make


def encoder_leaves(workdir, step):
    return trees.flatten(opening.open_checkpoint(workdir, step).params["ecg"]["encoder"])


def test_a_probe_trains_the_head_alone_and_is_scored(demo, pretrained, tmp_path):
    workdir = epath.Path(tmp_path / "probe")
    assert training.train(demo("demo_probe", source=pretrained), workdir) == 0
    before, after = encoder_leaves(workdir, 0), encoder_leaves(workdir, 8)
    source = encoder_leaves(pretrained, 8)
    for name, leaf in after.items():
        np.testing.assert_array_equal(leaf, before[name], err_msg=name)
        if name in source:
            np.testing.assert_array_equal(leaf, source[name], err_msg=name)
    start, end = (opening.open_checkpoint(workdir, step) for step in (0, 8))
    for tree in ("params", "extra"):
        moved = [trees.flatten(getattr(trained, tree)["ecg"]["head"]) for trained in (start, end)]
        assert any(not np.array_equal(moved[0][name], leaf) for name, leaf in moved[1].items()), tree
    assert evaluating.evaluate(workdir, 8, crops=1) == 0
    results = Results.read(workdir, "predictions", 8)
    assert {(row.target, row.metric) for row in results.rows} == {("LVH", "auroc"), ("LVH", "auprc")}
    assert results.arrays["test|logits"].shape == (48, 2)
    assert results.arrays["val|embedding"].shape == (32, 16)


@pytest.mark.parametrize("recipe", ["demo", "demo_phenotypes"])
def test_what_a_recipe_watches_is_known_to_its_validation(demo, recipe, tmp_path, capsys):
    assert training.train(demo(recipe), epath.Path(tmp_path / "run"), dry_run=True) == 0
    watched = "val_pcc" if recipe == "demo_phenotypes" else "val_auroc"
    assert watched in "".join(capsys.readouterr())


@pytest.mark.parametrize("name", PUBLISHED)
def test_recorded_recipes_follow_the_table(name):
    config = finetune.get_config(name)
    scratch = finetune.get_config(f"{name},scratch")
    assert config.optimizer.schedule.base_rate == (
        0.1 if name == "linear_probe" else finetune._TABLE[name][4]
    )
    assert scratch.optimizer.schedule.base_rate == 3e-5
    assert (config.objective.head_deviation, scratch.objective.head_deviation) == (0.01, 0.02)
    assert (config.objective.mode == "probe") == name.startswith("linear_probe")
    assert config.stop.patience == 25
    assert config.evaluators.predictions.targets == config.objective.targets
