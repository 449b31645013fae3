"""What is particular to masked data modelling; the contract tests hold the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_objectives import SPEC, VIT, initial

from configs import mae_ecg
from ecgjax.core import config as configs
from ecgjax.core import trees
from ecgjax.core.spec import EcgSpec, InputSpec
from ecgjax.models.mae import random_masking
from ecgjax.objectives.masked import Masked, _spread
from ecgjax.train import optim

DECODER = {"width": 16, "depth": 1, "heads": 2}
HEADS = {"cosine_weight": 0.1, "projector_hidden": 16, "predictor_hidden": 8}


def make(**changes):
    fields = {"encoder": VIT, "decoder": DECODER, "mask_ratio": 0.5, **changes}
    return Masked(spec=SPEC, crop=40, **fields)


def shapes(objective):
    return jax.eval_shape(objective.init, jax.random.key(0))


def test_without_a_weight_the_cosine_term_has_neither_heads_nor_a_second_pass():
    params, extra = shapes(make())
    assert (set(params["ecg"]), extra) == ({"encoder", "decoder"}, {})
    params, extra = shapes(make(**HEADS))
    assert set(params["ecg"]) == {"encoder", "decoder", "projector", "predictor"}
    assert set(extra["ecg"]) == {"projector", "predictor"}
    # The last norm of the projector has no parameters, no layer a bias.
    paths = {path.partition("/")[2] for path in trees.flatten(params) if "proj" in path.split("/")[1]}
    assert paths == {f"projector/{p}" for p in ("fc1/kernel", "fc2/kernel", "norm1/bias", "norm1/scale")}

    ecg = jax.ShapeDtypeStruct((4, 3, 40), "float32")

    def activations(objective):
        def loss(params, extra, ecg):
            return objective.loss(params, extra, {"ecg": ecg}, jax.random.key(0), train=False)[0]

        return str(jax.make_jaxpr(loss)(*shapes(objective), ecg)).count("erfc")

    assert activations(make(**HEADS)) == activations(make()) + VIT["depth"]


def test_heads_have_the_published_sizes():
    params, _ = shapes(make(cosine_weight=0.1))
    width = VIT["width"]
    assert params["ecg"]["projector"]["fc1"]["kernel"].shape == (width, 1024)
    assert params["ecg"]["predictor"]["fc1"]["kernel"].shape == (width, 128)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loss_and_metrics_are_float32_whatever_the_model_computes_in(dtype):
    objective = make(encoder={**VIT, "dtype": dtype}, decoder={**DECODER, "dtype": dtype}, **HEADS)
    masking = random_masking(jax.random.key(0), batch=4, tokens=12, mask_ratio=0.5)
    ecg = jax.ShapeDtypeStruct((4, 3, 40), "float32")

    def loss(params, extra, ecg):
        return objective.loss_of_maskings(params, extra, ecg, masking, masking, train=True)

    value, aux = jax.eval_shape(loss, *shapes(objective), ecg)
    assert set(aux.metrics) == {"mse", "ncc", "cosine", "cos_embed", "z_std"}
    assert {x.dtype.name for x in jax.tree.leaves((value, aux.metrics, aux.extra))} == {"float32"}


def test_several_channels_reach_the_loss():
    """A batch of our pipeline has one; whoever makes more of it, such as a spectrum, names their number."""
    objective = make(encoder={**VIT, "channels": 2})
    masking = random_masking(jax.random.key(0), batch=4, tokens=12, mask_ratio=0.5)
    params, _ = shapes(objective)
    assert params["ecg"]["decoder"]["predict"]["kernel"].shape == (16, 2 * VIT["patch"])

    def step(params, ecg):
        waves = jnp.fft.fft(ecg)
        spectrum = jnp.stack([waves.real, waves.imag], axis=1)
        loss, aux = objective.loss_of_maskings(params, {}, spectrum, masking, None, train=True)
        return loss, aux.metrics, objective.predict(params, {}, {"ecg": spectrum})

    value, metrics, out = jax.eval_shape(step, params, jax.ShapeDtypeStruct((4, 3, 40), "float32"))
    assert (value.shape, set(metrics)) == ((), {"mse", "ncc"})
    assert out["reconstruction"].shape == out["reconstruction_mask"].shape == (4, 2, 3, 40)


def test_one_channel_may_come_with_its_axis():
    objective = make()
    masking = random_masking(jax.random.key(0), batch=2, tokens=12, mask_ratio=0.5)
    params, _ = initial("masked")  # Of the same sizes.
    ecg = jax.random.normal(jax.random.key(1), (2, 3, 40))
    losses = [
        jax.jit(lambda p, x: objective.loss_of_maskings(p, {}, x, masking, None, train=True)[0])(params, x)
        for x in (ecg, ecg[:, None])
    ]
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_spread_is_one_for_directions_of_a_normal_and_zero_for_one_direction():
    directions = jax.random.normal(jax.random.key(0), (4000, 16))
    assert abs(float(_spread(directions)) - 1) < 0.01
    collapsed = jnp.ones((8, 1)) * jnp.arange(1.0, 17)
    np.testing.assert_allclose(_spread(collapsed), 0, atol=1e-6)


def test_kept_patches_can_be_rounded():
    encoder = {**VIT, "patch": 4}  # 30 patches, of which 0.2 leaves 5.999999999999998 or 6.
    visible = {}
    for kept in ("truncated", "rounded"):
        objective = make(encoder=encoder, mask_ratio=0.8, kept=kept)
        visible[kept] = objective._masking(jax.random.key(0), jnp.zeros((2, 3, 40))).keep.shape[1]
    assert visible == {"truncated": 5, "rounded": 6}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"cosine_weight": -1.0}, "config.objective.cosine_weight: -1.0; it must be at least 0"),
        ({"encoder": {**VIT, "drop_path": 0.1}}, "encoder.drop_path: 0.1; masked pre-training has none"),
        ({"encoder": {"name": "vit", "variant": "mmcl_pluto", "patch": 10}}, "mmcl_pluto cannot be built"),
        ({"decoder": {"variant": "mmcl_big"}}, "config.objective.decoder.variant: unknown 'mmcl_big'"),
        ({"encoder": {**VIT, "init": "contrastive"}}, "config.objective.encoder: init 'contrastive' draws"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        make(**changes)


@pytest.mark.parametrize("recipe", ["paper", "head"])
def test_the_recipe_of_the_paper_is_the_published_one(recipe):
    config = mae_ecg.get_config(recipe)
    spec = InputSpec(EcgSpec(tuple(f"lead {i}" for i in range(12)), 500.0, 5000, "mV", {}))
    objective = configs.build(
        {"masked": Masked}, config.objective.to_dict(), "config.objective", spec=spec, crop=config.data.crop
    )
    params, _ = shapes(objective)
    counts = {name: trees.count(tree) for name, tree in params["ecg"].items()}
    assert (counts["encoder"], counts["decoder"]) == (5_363_328, 1_704_548)
    assert objective._masking(jax.random.key(0), jnp.zeros((1, 12, 2500))).keep.shape == (1, 59)
    assert ("projector" in params["ecg"]) == (recipe == "head")
    epoch = 28030 // 128
    _, schedule = optim.build(
        config.optimizer.to_dict(),
        steps=config.steps,
        batch_size=config.data.batch_size,
        steps_per_epoch=epoch,
    )
    rates = [float(schedule(at * epoch)) for at in (0, 20, 40, 220, 399)]
    np.testing.assert_allclose(rates, [0, 1.6e-4, 3.2e-4, 1.6e-4, 6.0923e-9], rtol=1e-3, atol=1e-12)
    fields = config.optimizer
    assert (fields.name, fields.b1, fields.b2, fields.weight_decay, fields.clip_norm) == (
        "adamw",
        0.9,
        0.95,
        0.15,
        None,
    )
    assert (config.checkpoint.best.metric, config.checkpoint.best.mode, config.checkpoint.best.keep) == (
        "val_ncc",
        "max",
        5,
    )
