"""The recipes of configs/ecg_cmr.py are what they say they are, and what they ask for beside signals is read."""

import functools
import json

import jax
import numpy as np
import pytest
from etils import epath

from configs import ecg_cmr
from ecgjax.core import config as configs
from ecgjax.core import trees
from ecgjax.core.spec import CmrSpec, EcgSpec, InputSpec
from ecgjax.runs import opening, training
from ecgjax.runs.assemble import make_objective
from ecgjax.train import optim

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
PUBLISHED = InputSpec(
    EcgSpec(LEADS, 500.0, 5000, "1", {}), CmrSpec(("ES", "mid", "ED"), 210, 210, 1.8, "0 to 1", {})
)
LABELS = ({"name": "CAD", "kind": "binary", "mean": None, "std": None},)


@functools.cache
def recipe(name):
    """Config, objective, shapes of its parameters, and its optimiser's update of them."""
    config = configs.plain(ecg_cmr.get_config(name))
    if name == "paper_online":
        config["objective"]["online"]["label"] = "CAD"
    objective = make_objective(config["objective"], spec=PUBLISHED, crop=2500, labels=LABELS)
    params, _ = jax.eval_shape(objective.init, jax.random.key(0))
    tx, schedule = optim.build(
        config["optimizer"],
        steps=config["steps"],
        frozen=objective.frozen_paths,
        batch_size=config["data"]["batch_size"],
        steps_per_epoch=28030 // 256,
    )
    jax.eval_shape(tx.init, params)
    return config, objective, params, schedule


@pytest.mark.parametrize("name", ["paper", "paper_wo_mdm", "paper_online", "frozen_cmr", "unet"])
def test_a_recipe_of_the_paper_repeats_its_settings(name):
    config, objective, params, schedule = recipe(name)
    fields = ("temperature", "balance", "projection", "view_rate", "contrast", "cmr_roi")
    assert tuple(getattr(objective, f) for f in fields) == (
        0.1,
        0.75,
        128,
        0.95,
        "info_nce",
        (0.21, 0.325, 0.375),
    )
    assert config["data"]["batch_size"] == 256
    assert config["steps"] == 300 * 109
    metric = "val_contrastive" if name == "paper_online" else "val_loss"
    assert config["checkpoint"]["best"] == {"metric": metric, "mode": "min", "keep": 1}
    assert config["validate_every"] == config["save_every"] == 109  # Else the best epoch might not be saved.
    rate = {"paper_wo_mdm": 3e-4, "unet": 3e-3}.get(name, 1e-4)
    # The first epoch stands still; the full rate is reached one epoch before the 30 of warm-up end.
    rates = [float(schedule(109 * epoch)) / rate for epoch in (0, 1, 29, 30, 165, 299)]
    np.testing.assert_allclose(rates, [0, 1 / 29, 1, 1, 0.5, 3.3846e-5], atol=1e-6)
    assert objective.frozen_paths == (("^cmr/encoder/",) if name == "frozen_cmr" else ())
    head = 32 if name == "unet" else 512
    assert params["cmr"]["head"]["fc1"]["kernel"].shape == (head if name == "unet" else 2048, head)
    assert params["ecg"]["head"]["fc2"]["kernel"].shape == (head, 128)
    assert ("online" in params) == (name == "paper_online")
    if name == "unet":
        assert params["cmr"]["encoder"]["convs"][0]["kernel"].shape == (3, 3, 2, 16)
    else:
        assert trees.count(params["cmr"]["encoder"]) == 23_508_032


def test_both_towers_of_the_paper_start_from_runs_of_their_own():
    init = recipe("paper")[0]["init_from"]
    rules = [init["rules"], *(source["rules"] for source in init["also"])]
    assert rules == [[["^ecg/encoder/", "ecg/encoder/"]], [["^cmr/encoder/", "cmr/encoder/"]]]


def test_the_online_classifier_has_a_rate_and_a_decay_of_its_own():
    group = recipe("paper_online")[0]["optimizer"]["groups"]["online"]
    assert (group["learning_rate"], group["weight_decay"]) == (3e-4, 1e-4)
    config = configs.plain(ecg_cmr.get_config("paper_online"))
    with pytest.raises(ValueError, match=r"config\.objective\.online\.label: not set; give it as"):
        make_objective(config["objective"], spec=PUBLISHED, crop=2500, labels=LABELS)


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=r"ecg_cmr\.py:papre: unknown; choose from demo, paper, paper_wo_mdm"
    ):
        ecg_cmr.get_config("papre")


@pytest.fixture
def config(tiny_data):
    """Two steps of the smallest transformer and U-Net, with losses by similarity."""
    config = ecg_cmr.get_config("demo")
    config.steps, config.log_every, config.validate_every, config.save_every = 2, 1, 2, 2
    config.data.update({"directory": str(tiny_data), "batch_size": 16, "crop": 100})
    config.objective.ecg.update({"width": 16, "depth": 1, "heads": 2, "patch": 50})
    config.optimizer.schedule.warmup_steps = 1
    with config.unlocked():
        config.objective.cmr = {"name": "unet", "widths": (8, 8), "frames": ("ES", "ED")}
        config.objective.update({"contrast": "k_positive", "threshold": 0.5, "freeze": ("cmr",)})
        config.objective.update({"ecg_views": "none", "cmr_views": "none"})  # Compiling them takes longest.
        config.objective.online = {"modality": "ecg", "label": "LVH"}
        config.optimizer.groups = {"online": {"paths": "^online/", "learning_rate": 3e-4}}
    return config


def test_a_matrix_of_the_training_examples_is_trained_with(config, tmp_path, monkeypatch):
    draw = np.random.default_rng(0).uniform(size=(64, 64)).astype(np.float16)
    np.save(tmp_path / "matrix.npy", draw)
    monkeypatch.chdir(tmp_path)
    config.data.similarity = "matrix.npy"
    workdir = epath.Path(tmp_path / "run")
    assert training.train(config, workdir) == 0
    # What is read again on resume must not hang on where the command was given.
    assert json.loads((workdir / "config.json").read_text())["data"]["similarity"] == str(
        tmp_path / "matrix.npy"
    )
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert any("online_f1" in line for line in lines)
    assert any("val_contrastive" in line for line in lines)
    first, last = (opening.open_checkpoint(workdir, step) for step in (0, 2))
    assert trees.digest(first.params["cmr"]["encoder"]) == trees.digest(last.params["cmr"]["encoder"])
    for part in (("ecg", "encoder"), ("cmr", "head"), ("online",)):
        before, after = (functools.reduce(dict.__getitem__, part, run.params) for run in (first, last))
        assert trees.digest(before) != trees.digest(after), part


@pytest.mark.parametrize(
    ("similarity", "message"),
    [
        (
            None,
            r"contrast is k_positive.*config\.data\.similarity, or set config\.objective\.similarity='labels'",
        ),
        (
            "small.npy",
            r"config\.data\.similarity: .*small\.npy holds float64 \(8, 8\); it must be \(64, 64\)",
        ),
        ("absent.npy", r"config\.data\.similarity: .*absent\.npy cannot be read"),
    ],
)
def test_a_matrix_that_is_missing_or_does_not_fit_is_said_by_the_dry_run(
    config, tmp_path, similarity, message
):
    np.save(tmp_path / "small.npy", np.zeros((8, 8)))
    if similarity is not None:
        config.data.similarity = str(tmp_path / similarity)
    with pytest.raises(ValueError, match=message):
        training.train(config, epath.Path(tmp_path / "run"), dry_run=True)
