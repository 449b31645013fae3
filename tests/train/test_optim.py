import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_objectives import objective

from ecgjax.core import trees
from ecgjax.train import optim

CONSTANT = {"name": "constant", "learning_rate": 0.1}


def test_warmup_cosine_has_the_values_of_its_formula():
    schedule = optim.warmup_cosine(learning_rate=2.0, steps=14, warmup_steps=4, end_rate=0.5)
    got = [float(schedule(step)) for step in (0, 1, 3, 4, 9, 14, 20)]
    # A quarter of the way up at step 0; the top at step 3 and 4; midway (2 + 0.5) / 2 at step 9; the end from 14 on.
    assert got == pytest.approx([0.5, 1.0, 2.0, 2.0, 1.25, 0.5, 0.5])


def test_a_third_of_the_cosine():
    schedule = optim.warmup_cosine(learning_rate=1.0, steps=30, warmup_steps=0)
    assert float(schedule(10)) == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))
    assert float(schedule(0)) == 1.0


@pytest.mark.parametrize("warmup", [10, 11, -1])
def test_a_warm_up_as_long_as_the_run_is_refused(warmup):
    with pytest.raises(ValueError, match=rf"warmup_steps is {warmup}, which must lie in \[0, 10\)"):
        optim.warmup_cosine(learning_rate=1.0, steps=10, warmup_steps=warmup)


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


def _zeros(tree):
    return jax.tree.map(jnp.zeros_like, tree)
