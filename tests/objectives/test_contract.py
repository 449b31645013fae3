"""What every registered objective must satisfy."""

import functools
import json
import os
import pathlib
import re

import jax
import numpy as np
import optax
import pytest
from tiny_objectives import SECTIONS, batch_for, initial, objective

from ecgjax.core import mesh as meshes
from ecgjax.core import trees
from ecgjax.objectives import OBJECTIVES

KEY = jax.random.key(7)
NAMES = list(SECTIONS)
RECORDED = pathlib.Path(__file__).with_name("golden_steps.json")
RECORDING = "ECGJAX_RECORD_GOLDEN_STEPS"


@functools.cache
def compiled(name, mesh):
    """The gradient of one training loss, over a mesh or on one device."""

    def loss(params, extra, inputs, key):
        devices = jax.sharding.get_abstract_mesh() if mesh is None else mesh.abstract_mesh
        with jax.sharding.use_abstract_mesh(devices):
            return objective(name).loss(params, extra, inputs, key, train=True)

    grad = jax.value_and_grad(loss, has_aux=True)
    if mesh is None:
        return jax.jit(grad)
    params, extra = initial(name)
    shard, whole = meshes.shardings({"params": params, "extra": extra}, mesh), meshes.replicated(mesh)
    arguments = (shard["params"], shard["extra"], meshes.batch_sharding(mesh), whole)
    return jax.jit(grad, in_shardings=arguments, out_shardings=((whole, whole), shard["params"]))


def gradients(name, *, key=KEY, mesh=None):
    """Loss, gradients and moved statistics."""
    (value, aux), grads = compiled(name, mesh)(*initial(name), batch_for(name), key)
    return jax.device_get({"loss": value, "metrics": aux.metrics, "extra": aux.extra, "grads": grads})


one_device = functools.cache(gradients)


@functools.cache
def evaluated(name):
    """Loss and predictions of evaluation: as they are, with another key, and of four rows among other neighbours."""

    @jax.jit
    def evaluate(params, extra, inputs, key):
        loss = objective(name).loss(params, extra, inputs, key, train=False)
        return *loss, objective(name).predict(params, extra, inputs)

    inputs, others = batch_for(name), batch_for(name, seed=1)
    among = {field: np.concatenate([inputs[field][:4], others[field][4:]]) for field in inputs}
    asked = ((inputs, 0), (inputs, 1), (among, 0))
    return [jax.device_get(evaluate(*initial(name), x, jax.random.key(key))) for x, key in asked]


def test_every_registered_objective_is_tested():
    assert {section["name"] for section in SECTIONS.values()} == set(OBJECTIVES)


# Both axes of the mesh at once; with one of them, once: every objective compiles for seconds.
_MESHES = [(name, {"data": 4, "fsdp": 2}) for name in NAMES] + [(NAMES[0], {"data": 8, "fsdp": 1})]


@pytest.mark.parametrize(
    ("name", "shape"), _MESHES, ids=lambda x: x if isinstance(x, str) else "x".join(map(str, x.values()))
)
def test_eight_devices_compute_what_one_does(name, shape):
    many, one = gradients(name, mesh=meshes.make_mesh(**shape)), one_device(name)
    # float32 through a network: sums over the batch are merely taken in another order.
    for path, want in trees.flatten(one).items():
        got = trees.flatten(many)[path]
        scale = max(np.abs(want).max(), 1e-2)
        np.testing.assert_allclose(got / scale, want / scale, atol=1e-4, err_msg=path)


@pytest.mark.parametrize("name", NAMES)
def test_one_step_is_the_recorded_one(name):
    """Guards against the accidental change: of draws, of a default, of an order of operations.

    Where a change is meant, record anew (ECGJAX_RECORD_GOLDEN_STEPS=1, without xdist) and explain it in the commit.
    """
    step = one_device(name)
    norms = {branch: float(optax.tree.norm(tree)) for branch, tree in branches(step["grads"]).items()}
    scalars = {key: float(value) for key, value in {"loss": step["loss"], **step["metrics"]}.items()}
    got = {"scalars": scalars, "gradient_norms": norms}
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    if os.environ.get(RECORDING):
        recorded[name] = got
        RECORDED.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
    want = recorded[name]
    for kind in got:
        assert got[kind].keys() == want[kind].keys(), kind
        for key, value in got[kind].items():
            np.testing.assert_allclose(value, want[kind][key], rtol=1e-4, atol=1e-6, err_msg=f"{kind} {key}")


def branches(params):
    """Subtrees two levels down, such as ecg/encoder."""
    return {f"{m}/{part}": tree for m, parts in params.items() for part, tree in parts.items()}


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter_but_frozen_ones(name):
    # What a pooling leaves aside: a class token that nobody reads still feeds the others by attention.
    dead = [path for path, leaf in trees.flatten(one_device(name)["grads"]).items() if not np.any(leaf)]
    frozen = [path for path in dead if any(re.search(rule, path) for rule in objective(name).frozen_paths)]
    assert bool(frozen) == bool(objective(name).frozen_paths)
    # The key bias of attention cancels in the softmax, up to rounding; anything else must move.
    assert not [path for path in set(dead) - set(frozen) if "bias" not in path], dead


@pytest.mark.parametrize("name", NAMES)
def test_frozen_parameters_have_no_gradient(name):
    for path, leaf in trees.flatten(one_device(name)["grads"]).items():
        frozen = any(re.search(pattern, path) for pattern in objective(name).frozen_paths)
        assert not (frozen and np.any(leaf)), path


@pytest.mark.parametrize("name", NAMES)
def test_a_single_batch_is_overfitted(name):
    (params, extra), after_update = jax.device_get(initial(name)), jax.jit(objective(name).after_update)
    first = second = jax.tree.map(np.zeros_like, params)
    losses = []
    for t in range(1, 31):
        (value, aux), grads = compiled(name, None)(params, extra, batch_for(name), KEY)
        grads = jax.device_get(grads)
        # Adam by numpy: optax would compile its arithmetic for the shapes of every objective.
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, grads)
        rate = 3e-3 * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
        params = jax.tree.map(
            lambda p, m, v, rate=rate: (p - rate * m / (np.sqrt(v) + 1e-8)).astype(p.dtype),
            params,
            first,
            second,
        )
        extra = after_update(params, aux.extra)
        losses.append(float(value))
    assert losses[-1] < losses[0] - 0.2 * abs(losses[0])  # Losses of cosines are below zero.


@pytest.mark.parametrize("name", NAMES)
def test_the_key_decides_the_training_loss_and_nothing_else_does(name):
    assert trees.digest(gradients(name)) == trees.digest(one_device(name))
    assert gradients(name, key=jax.random.key(8))["loss"] != one_device(name)["loss"]


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_moves_no_statistics_and_depends_on_the_key_for_masks_and_views_only(name):
    _, extra = initial(name)
    (value, aux, _), (other, _, _), _ = evaluated(name)
    assert trees.digest(aux.extra) == trees.digest(extra)
    draws = SECTIONS[name]["name"] in ("masked", "simclr", "byol", "barlow_twins")
    assert (float(value) != float(other)) == draws


@pytest.mark.parametrize("name", NAMES)
def test_only_batch_norm_has_statistics_and_training_moves_them(name):
    _, extra = initial(name)
    heads = SECTIONS[name]["name"] in ("byol", "barlow_twins", "cross_modal_byol")
    heads |= "cosine_weight" in SECTIONS[name]
    has_batch_norm = heads or any(
        part.get("norm") == "batch" for part in SECTIONS[name].values() if isinstance(part, dict)
    )
    has_batch_norm |= SECTIONS[name].get("mode") == "probe"
    assert bool(jax.tree.leaves(extra)) == has_batch_norm
    assert (trees.digest(one_device(name)["extra"]) != trees.digest(extra)) == has_batch_norm


@pytest.mark.parametrize("name", NAMES)
def test_metrics_are_scalars(name):
    for metric, value in one_device(name)["metrics"].items():
        assert np.shape(value) == (), metric
        assert np.isfinite(value), metric


@pytest.mark.parametrize("name", NAMES)
def test_predictions_of_a_row_do_not_depend_on_its_neighbours(name):
    (*_, whole), _, (*_, among) = evaluated(name)
    # Which patches are hidden depends on the place in the batch; nothing else does.
    keys = [k for k in whole if not k.startswith("reconstruction")]
    assert keys
    for key in keys:
        np.testing.assert_allclose(whole[key][:4], among[key][:4], atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_after_update_keeps_the_structure_of_extra(name):
    params, extra = initial(name)
    assert jax.tree.structure(objective(name).after_update(params, extra)) == jax.tree.structure(extra)
