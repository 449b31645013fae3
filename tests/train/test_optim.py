import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_objectives import objective

from ecgjax.core import mesh as meshes
from ecgjax.core import trees
from ecgjax.train import optim
from ecgjax.train.groups import Group, label, layer_scales

CONSTANT = {"name": "constant", "learning_rate": 0.1}


def test_decay_falls_on_kernels_and_tokens_and_spares_biases_and_norms():
    shapes, _ = jax.eval_shape(objective("masked cls learnable").init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
    tx, _ = optim.build({"name": "adamw", "weight_decay": 0.5, "schedule": CONSTANT}, steps=10)
    ones = {"params": params}
    updates, _ = jax.jit(tx.update)(_zeros(ones), jax.jit(tx.init)(ones), ones)
    # Without a gradient Adam moves nothing: what moves is decay, by rate x decay x value.
    moved = {name for name, leaf in trees.flatten(updates).items() if np.any(np.asarray(leaf))}
    for name in trees.flatten(ones):
        spared = name.rsplit("/", 1)[1] in ("bias", "scale")
        assert (name in moved) != spared, name
    assert any(name.endswith("cls_token") for name in moved)
    assert any(name.endswith("mask_token") for name in moved)
    assert any(name.endswith("positions") for name in moved)
    name = next(name for name in moved if name.endswith("kernel"))
    np.testing.assert_allclose(
        trees.flatten(updates)[name], -0.1 * 0.5 * np.asarray(trees.flatten(ones)[name]), rtol=1e-6
    )


def test_adam_l2_follows_the_equations_of_adam_with_decay_in_the_gradient():
    draw = np.random.default_rng(0)
    w, b1, b2, eps, decay, rate = draw.normal(size=(3, 2)), 0.9, 0.999, 1e-8, 0.01, 0.1
    tx, _ = optim.build({"name": "adam_l2", "weight_decay": decay, "schedule": CONSTANT}, steps=10)
    params = {"bias": jnp.asarray(w, jnp.float32)}
    opt = tx.init(params)
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in range(1, 5):
        gradient = draw.normal(size=w.shape)
        updates, opt = tx.update({"bias": jnp.asarray(gradient, jnp.float32)}, opt, params)
        params = {"bias": params["bias"] + updates["bias"]}
        g = gradient + decay * w
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        w = w - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        # 1 - b2 ** t in float32 is known to 6e-5 of itself: 3e-6 of a step of 0.1.
        np.testing.assert_allclose(params["bias"], w, atol=1e-5)


def test_clip_norm_bounds_the_gradient_before_adam():
    section = {"name": "adamw", "weight_decay": 0.0, "eps": 1.0, "b1": 0.0, "b2": 0.0, "schedule": CONSTANT}
    params = {"kernel": jnp.zeros((1, 2))}
    gradient = {"kernel": jnp.array([[3.0, 4.0]])}
    tx, _ = optim.build({**section, "clip_norm": 1.0}, steps=10)
    updates, _ = tx.update(gradient, tx.init(params), params)
    # Clipped to (0.6, 0.8); without memory Adam divides g by |g| + eps.
    np.testing.assert_allclose(updates["kernel"], [[-0.1 * 0.6 / 1.6, -0.1 * 0.8 / 1.8]], rtol=1e-6)


def test_a_section_without_schedule_names_the_choices():
    with pytest.raises(
        ValueError, match=r"config\.optimizer\.schedule: missing section; name one of warmup_cosine"
    ):
        optim.build({"name": "adamw"}, steps=10)


def test_a_misspelt_rate_is_named_with_its_path():
    schedule = {"name": "constant", "learning_rte": 0.1}
    with pytest.raises(ValueError, match=r"config\.optimizer\.schedule\.learning_rte.*'learning_rate'"):
        optim.build({"name": "adamw", "schedule": schedule}, steps=10)


def test_no_decay_spares_what_it_names():
    params = {"cls_token": jnp.ones((1, 4)), "kernel": jnp.ones((2, 4)), "bias": jnp.ones(4)}
    section = {"name": "adamw", "weight_decay": 0.5, "no_decay": ("cls_token$",), "schedule": CONSTANT}
    tx, _ = optim.build(section, steps=10)
    updates, _ = tx.update(_zeros(params), tx.init(params), params)
    assert {name for name, leaf in updates.items() if np.any(np.asarray(leaf))} == {"kernel"}


def test_lars_brings_every_kernel_to_the_same_share_of_its_norm():
    params = {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.ones(2)}  # The kernel's norm is 4.
    section = {"name": "lars", "momentum": 0.5, "trust": 0.1, "schedule": CONSTANT}
    tx, _ = optim.build(section, steps=10)
    gradient = {"kernel": jnp.array([[3.0, 0.0], [0.0, 4.0]]), "bias": jnp.array([5.0, 0.0])}
    updates, state = tx.update(gradient, tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.1 * 4 / 5 * gradient["kernel"], rtol=1e-6)
    np.testing.assert_allclose(updates["bias"], -0.1 * gradient["bias"], rtol=1e-6)
    updates, _ = tx.update(gradient, state, params)  # Momentum adds half of the step before.
    np.testing.assert_allclose(updates["bias"], -0.1 * 1.5 * gradient["bias"], rtol=1e-6)


PARAMS = {
    "ecg": {"kernel": jnp.full((8, 16), 2.0), "bias": jnp.ones(16)},
    "cmr": {"kernel": jnp.full((16, 8), 3.0)},
    "classifier": {"kernel": jnp.ones((8, 8))},
}


def test_groups_have_rates_and_decay_of_their_own_and_frozen_comes_first():
    section = {
        "name": "sgd",
        "momentum": 0.0,
        "weight_decay": 0.5,
        "schedule": CONSTANT,
        "groups": {
            "slow": {"paths": "^ecg/", "scale": 0.1},
            "online": {"paths": "^classifier/", "learning_rate": 3.0, "weight_decay": 0.0},
        },
    }
    tx, schedule = optim.build(section, steps=10, frozen=("^ecg/bias",))
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, PARAMS), tx.init(PARAMS), PARAMS)
    # Rate x (gradient + decay x value).
    np.testing.assert_allclose(updates["ecg"]["kernel"], -0.1 * 0.1 * (1 + 0.5 * 2), rtol=1e-6)
    np.testing.assert_allclose(updates["cmr"]["kernel"], -0.1 * (1 + 0.5 * 3), rtol=1e-6)
    np.testing.assert_allclose(updates["classifier"]["kernel"], -3.0, rtol=1e-6)
    assert not np.any(np.asarray(updates["ecg"]["bias"]))
    assert schedule(0) == 0.1


def test_the_first_group_that_finds_a_path_takes_it():
    groups = {"a": Group("kernel$", scale=1.0), "b": Group("^ecg/", scale=2.0)}
    assert label(PARAMS, groups=groups) == {
        "ecg": {"kernel": "a", "bias": "b"},
        "cmr": {"kernel": "a"},
        "classifier": {"kernel": "a"},
    }


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            {"online": {"paths": "^clasifier/"}},
            r"groups\.online\.paths is '\^clasifier/', which finds no parameter.*classifier/kernel, cmr/kernel",
        ),
        ({"a": {"paths": "^ecg/"}, "b": {"paths": "^ecg/bias"}}, r"groups\.b\.paths.* in no group before"),
        ({"a": {"paths": "x", "scale": 1, "learning_rate": 2}}, "exclude each other"),
        ({"a": {"path": "x"}}, r"config\.optimizer\.groups\.a\.path: no field of a\. Did you mean 'paths'"),
        ({"a": {"scale": 2.0}}, r"config\.optimizer\.groups\.a\.paths: missing"),
        ({"frozen": {"paths": "x"}}, "'frozen' is what the rest is called"),
    ],
)
def test_a_group_that_makes_no_sense_is_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        optim.build({"name": "sgd", "schedule": CONSTANT, "groups": groups}, steps=10)[0].init(PARAMS)


def transformer(depth):
    block = {"norm1": {"scale": jnp.ones(4)}, "kernel": jnp.ones((4, 4))}
    first = {
        "cls_token": jnp.ones((1, 4)),
        "positions": jnp.ones((3, 4)),
        "patch_embed": {"kernel": jnp.ones((2, 4))},
    }
    return first | {"blocks": {i: block for i in range(depth)}, "norm": {"scale": jnp.ones(4)}}


@pytest.mark.parametrize(
    ("decay", "want"),
    [(0.75, [0.316406, 0.421875, 0.5625, 0.75, 1.0]), (0.5, [0.0625, 0.125, 0.25, 0.5, 1.0])],
)
def test_layer_scales_of_the_tiny_encoder(decay, want):
    params = {"ecg": {"encoder": transformer(3)}, "head": {"kernel": jnp.ones((4, 2))}}
    got = trees.flatten(layer_scales(params, decay))
    for name, scale in got.items():
        layer = int(name.split("/")[3]) + 1 if "blocks" in name else 4
        layer = 0 if re.search("token|positions|patch_embed", name) else layer
        assert scale == pytest.approx(want[layer], rel=1e-5), name
    assert {round(scale, 6) for scale in got.values()} == set(want)


def test_every_tower_counts_its_own_layers():
    got = layer_scales({"a": transformer(1), "b": transformer(2)}, 0.5)
    assert got["a"]["cls_token"] == 0.25
    assert got["b"]["cls_token"] == 0.125
    assert got["a"]["norm"]["scale"] == 1.0


def test_layer_decay_scales_rate_and_decay_together():
    params = transformer(2)
    section = {"name": "adamw", "weight_decay": 0.5, "layer_decay": 0.5, "schedule": CONSTANT}
    tx, _ = optim.build(section, steps=10)
    updates, _ = tx.update(_zeros(params), tx.init(params), params)
    for block, scale in ((0, 0.25), (1, 0.5)):
        np.testing.assert_allclose(updates["blocks"][block]["kernel"], -0.1 * 0.5 * scale, rtol=1e-6)
    with pytest.raises(ValueError, match=r"layer_decay is 0\.5, but no parameter lies in blocks/"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize("name", sorted(optim.OPTIMIZERS))
def test_every_optimiser_takes_the_same_steps_on_one_device_and_on_eight(name):
    groups = {"online": {"paths": "^classifier/", "learning_rate": 0.3}}
    tx, _ = optim.build({"name": name, "weight_decay": 0.1, "schedule": CONSTANT, "groups": groups}, steps=10)
    draw = np.random.default_rng(0)
    params, gradient = (
        jax.tree.map(lambda x: draw.normal(size=x.shape).astype(np.float32), PARAMS) for _ in range(2)
    )

    def three(params, gradient):
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    results = []
    for mesh in (meshes.make_mesh(devices=jax.devices()[:1]), meshes.make_mesh(data=2, fsdp=4)):
        split = meshes.shardings(PARAMS, mesh)
        out = meshes.shardings(jax.eval_shape(three, params, gradient), mesh)
        step = jax.jit(three, in_shardings=(split, split), out_shardings=out)
        results.append(jax.device_get(step(params, gradient)))
    one, eight = map(trees.flatten, results)
    for leaf in one:
        np.testing.assert_allclose(eight[leaf], one[leaf], rtol=1e-5, atol=1e-6, err_msg=leaf)


def _zeros(tree):
    return jax.tree.map(jnp.zeros_like, tree)


def test_every_group_with_a_rate_has_it_logged():
    groups = {
        "slow": {"paths": "^ecg/", "scale": 0.1},
        "online": {"paths": "^classifier/", "learning_rate": 3.0},
        "plain": {"paths": "^cmr/", "weight_decay": 0.0},
    }
    section = {"name": "sgd", "schedule": CONSTANT, "groups": groups}
    _, schedule = optim.build(section, steps=10)
    rates = {name: float(rate(0)) for name, rate in optim.rates(section, schedule).items()}
    assert rates == pytest.approx(
        {
            "learning_rate": 0.1,
            "learning_rate/slow": 0.01,
            "learning_rate/online": 3.0,
            "learning_rate/plain": 0.1,
        }
    )
