"""Every recipe of the two-view objectives builds on data of the size it is written for."""

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


@pytest.mark.parametrize(
    ("module", "recipe"),
    [
        (unimodal, "simclr_cmr"),
        (unimodal, "simclr_ecg"),
        (unimodal, "byol_ecg"),
        (unimodal, "barlow_ecg"),
        (unimodal, "clocs_ecg"),
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
    config = configs.plain(module.get_config(recipe))
    inputs = spec(demo="demo" in recipe)
    crop, size = config["data"]["crop"], config["data"]["batch_size"]
    objective = configs.build(
        OBJECTIVES, config["objective"], "config.objective", spec=inputs, crop=crop, labels=()
    )
    tx, _ = optim.build(
        config["optimizer"], steps=config["steps"], batch_size=size, steps_per_epoch=28030 // size
    )
    state = states.abstract_state(objective, tx, meshes.make_mesh(devices=jax.devices()[:1]))
    batch = {"subject": jax.ShapeDtypeStruct((size, 2), "uint32")}
    if "ecg" in config["data"]["modalities"]:
        batch["ecg"] = jax.ShapeDtypeStruct((size, len(LEADS), crop), "float32")
    if "cmr" in config["data"]["modalities"]:
        batch["cmr"] = jax.ShapeDtypeStruct((size, inputs.cmr.height, inputs.cmr.width, 3), "float32")
    after, metrics = jax.eval_shape(step.make_train_step(objective, tx), state, batch, jax.random.key(0))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, state)
    assert {"loss", "grad_norm", "top1"} <= set(metrics)
