"""Wherever an objective names a preset, a config may compose a chain."""

import inspect
import json

import jax
import pytest
from tiny_objectives import LABELS, SECTIONS, SPEC, SPECS, batch_for

from ecgjax.core import config as configs
from ecgjax.objectives import OBJECTIVES

ECG = (
    {"name": "mask_windows", "factor": 0.5, "length": 10},
    {"name": "nudge", "samples": 3, "probability": 0.5},
)
CMR = ({"name": "rotate", "degrees": 20.0}, {"name": "random_gamma", "exponent": (0.5, 2.0)})
CHOSEN = [
    "masked",
    "cross_modal group",
    "cross_modal_byol",
    "supervised cmr",
    "simclr halves",
    "byol ecg",
    "finetune beats",
]
"""One of each class that reads views, and both modalities."""


def build(name, ecg=ECG, cmr=CMR):
    """From the section as a checkpoint holds it."""
    section = dict(SECTIONS[name])
    own = cmr if section.get("modality") == "cmr" else ecg
    section |= {"ecg_views": ecg, "cmr_views": cmr} if "cmr" in section else {"views": own}
    given = {"spec": SPECS.get(name, SPEC), "crop": 40, "labels": LABELS}
    return configs.build(OBJECTIVES, json.loads(json.dumps(section)), "config.objective", **given)


@pytest.mark.parametrize("name", CHOSEN)
def test_an_objective_trains_on_a_chain_of_its_config(name):
    objective = build(name)
    params, extra = jax.eval_shape(objective.init, jax.random.key(0))
    loss = jax.eval_shape(
        lambda *args: objective.loss(*args, train=True), params, extra, batch_for(name), jax.random.key(0)
    )
    assert loss[0].shape == ()


@pytest.mark.parametrize("name", CHOSEN)
def test_a_chain_that_cannot_be_is_refused_with_its_place_before_training(name):
    wrong = ({"name": "nudge", "samples": 400},)
    field = "ecg_views" if "cmr" in SECTIONS[name] else "views"
    message = (
        rf"config\.objective\.{field}\[0\](: nudge by up to 400 samples of (40|20)|\.name: unknown 'nudge')"
    )
    with pytest.raises(ValueError, match=message):
        build(name, ecg=wrong, cmr=wrong)


def test_every_objective_with_views_is_among_them():
    have = {
        name
        for name, make in OBJECTIVES.items()
        if any("views" in p for p in inspect.signature(make).parameters)
    }
    assert have - {SECTIONS[name]["name"] for name in CHOSEN} == {"barlow_twins"}  # As SimCLR.
