"""Every recipe of the two-view objectives builds on data of the size it is written for."""

import functools

import jax
import pytest

from configs import cross_modal_byol, unimodal
from ecgjax.core import config as configs
from ecgjax.core import mesh as meshes
from ecgjax.core.spec import CmrSpec, EcgSpec, InputSpec
from ecgjax.objectives import OBJECTIVES
from ecgjax.train import optim, step
from ecgjax.train import state as states

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def spec(*, demo):
    length, rate, size = (1000, 100.0, 32) if demo else (5000, 500.0, 210)
    return InputSpec(
        EcgSpec(LEADS, rate, length, "mV", {}), CmrSpec(("ES", "mid", "ED"), size, size, 4.0, "0 to 1", {})
    )


def written_for(module, recipe):
    """Config of a recipe, its objective, and shapes of a batch as large as it says."""
    config = configs.plain(module.get_config(recipe))
    inputs = spec(demo="demo" in recipe)
    crop, size = config["data"]["crop"], config["data"]["batch_size"]
    objective = configs.build(
        OBJECTIVES, config["objective"], "config.objective", spec=inputs, crop=crop, labels=()
    )
    batch = {"subject": jax.ShapeDtypeStruct((size, 2), "uint32")}
    if "ecg" in config["data"]["modalities"]:
        batch["ecg"] = jax.ShapeDtypeStruct((size, len(LEADS), crop), "float32")
    if "cmr" in config["data"]["modalities"]:
        batch["cmr"] = jax.ShapeDtypeStruct((size, inputs.cmr.height, inputs.cmr.width, 3), "float32")
    return config, objective, batch


def types(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize(
    ("module", "recipe"),
    [
        (unimodal, "simclr_cmr"),
        (unimodal, "byol_ecg"),
        (unimodal, "demo_simclr_cmr"),
        (unimodal, "demo_simclr_ecg"),
        (unimodal, "demo_byol_ecg"),
        (unimodal, "demo_barlow_ecg"),
        (unimodal, "demo_clocs_ecg"),
        (cross_modal_byol, "demo"),
        pytest.param(cross_modal_byol, "paper", marks=pytest.mark.slow),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__.removeprefix("configs."),
)
def test_a_recipe_traces_one_step(module, recipe):
    config, objective, batch = written_for(module, recipe)
    size = config["data"]["batch_size"]
    tx, _ = optim.build(
        config["optimizer"], steps=config["steps"], batch_size=size, steps_per_epoch=28030 // size
    )
    state = states.abstract_state(objective, tx, meshes.make_mesh(devices=jax.devices()[:1]))
    after, metrics = jax.eval_shape(step.make_train_step(objective, tx), state, batch, jax.random.key(0))
    assert types(after) == types(state)
    assert {"loss", "grad_norm", "top1"} <= set(metrics)


@pytest.mark.parametrize("recipe", ["simclr_ecg", "barlow_ecg", "clocs_ecg"])
def test_a_recipe_of_the_size_of_the_paper_traces_its_loss(recipe):
    """The step round it is that of `byol_ecg`."""
    _, objective, batch = written_for(unimodal, recipe)
    params, extra = jax.eval_shape(objective.init, jax.random.key(0))
    value, aux = jax.eval_shape(
        functools.partial(objective.loss, train=True), params, extra, batch, jax.random.key(0)
    )
    assert (value.shape, value.dtype) == ((), "float32")
    assert types(aux.extra) == types(extra)
    assert "top1" in aux.metrics
