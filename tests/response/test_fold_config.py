"""The encoder of a run on single beats, shared among the leads of a cohort's recordings."""

import re

import jax
import pytest

from configs import crt_response
from ecgjax.core import config as configs
from ecgjax.core import trees
from ecgjax.core.spec import EcgSpec, ImageSpec, InputSpec
from ecgjax.formats.recording import LEADS
from ecgjax.response import fold_config
from ecgjax.runs.assemble import make_objective
from ecgjax.train import checkpoint
from ecgjax.train.transfer import place

IMAGE = ImageSpec(span=128, win=32, hop=8, n_fft=64, bins=16, frames=16, mean=-4.0, std=1.5)
ALIKE = {
    "unit": "95 % ranges",
    "conditioning": {"normalise": "range"},
    "band_hz": (0.5, 40.0),
    "image": IMAGE,
}
BEATS = EcgSpec(("MLII",), 120.0, 128, window="beat", **ALIKE)
COHORT = EcgSpec(LEADS, 120.0, 1200, beats=6, **ALIKE)
ENCODER = {"name": "stft_cnn", "widths": [8, 16], "mask_times": 4}
LABELS = ({"name": "response", "kind": "binary", "mean": None, "std": None, "prevalence": 0.5, "count": 9},)


@pytest.fixture
def completed(monkeypatch):
    """Completes a recipe from a run on beats of one lead."""
    meta = {
        "config": {"objective": {"name": "finetune", "encoder": ENCODER}, "data": {"crop": 128}},
        "input_spec": InputSpec(BEATS).to_json(),
    }
    monkeypatch.setattr(checkpoint, "choose_step", lambda workdir, step: 7)
    monkeypatch.setattr(checkpoint, "read_meta", lambda workdir, step: meta)

    def complete(recipe, *, leadwise=None, **encoder):
        config = configs.plain(crt_response.get_config(recipe))
        config["data"]["directory"], config["init_from"]["workdir"] = "/data", "/run"
        config["objective"]["encoder"] |= {"encoder": encoder, **(leadwise or {})}
        fold_config.check(config)
        return fold_config.completed(config, InputSpec(COHORT))

    return complete


def test_the_leads_share_the_encoder_of_the_run_with_the_fields_that_the_config_changes(completed):
    config = completed("full", mask_times=0)
    assert config["objective"]["encoder"]["encoder"] == {**ENCODER, "mask_times": 0}
    assert config["objective"]["targets"] == ["response"]
    assert (config["data"]["crop"], config["data"]["crops"]) == (1200, 1)
    assert (config["init_from"]["workdir"], config["init_from"]["step"]) == ("/run", 7)
    assert completed("scratch")["init_from"]["workdir"] == ""


@pytest.mark.parametrize(("recipe", "trained"), [("full", r"."), ("partial", r"blocks/1/|head/")])
def test_every_leaf_of_the_runs_encoder_has_its_place_and_partial_trains_the_last_block(
    completed, recipe, trained
):
    config = completed(recipe)
    parts = {"spec": InputSpec(COHORT), "crop": config["data"]["crop"], "labels": LABELS}
    objective = make_objective(config["objective"], **parts)
    names = list(trees.flatten(jax.eval_shape(objective.init, jax.random.key(0))[0]))
    rules = [tuple(rule) for rule in config["init_from"]["rules"]]
    theirs = [name.replace("/shared/", "/") for name in names if "/encoder/" in name]
    assert len(theirs) == 6
    assert {place(name, rules) for name in theirs} == {n for n in names if "/encoder/" in n}
    assert place("ecg/head/linear/kernel", rules) is None
    frozen = [name for name in names if any(re.search(path, name) for path in objective.frozen_paths)]
    assert frozen == [name for name in names if not re.search(trained, name)]


def test_a_run_on_beats_is_no_start_for_a_recipe_of_whole_recordings(completed):
    with pytest.raises(
        ValueError, match=r"encoder\.name is 'vit', but /run holds a stft_cnn of beats; choose the recipe"
    ):
        completed("vit_full")


@pytest.mark.parametrize("field", ["pool", "join"])
def test_attention_over_beats_or_leads_is_for_modes_that_train_it(completed, field):
    attention = {field: "attention"}
    for mode in ("probe", "random"):
        with pytest.raises(
            ValueError, match=rf"encoder\.{field} is 'attention'.*probe and random do not train"
        ):
            completed(mode, leadwise=attention)
    for mode in ("partial", "full", "scratch"):
        config = completed(mode, leadwise=attention)
        parts = {"spec": InputSpec(COHORT), "crop": config["data"]["crop"], "labels": LABELS}
        objective = make_objective(config["objective"], **parts)
        names = trees.flatten(jax.eval_shape(objective.init, jax.random.key(0))[0])
        weights = [name for name in names if "_attention/" in name]
        assert len(weights) == 1
        assert not any(re.search(path, weights[0]) for path in objective.frozen_paths)
