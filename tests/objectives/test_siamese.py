"""What the two-view objectives promise beyond the contract: target arms, halves, and settings refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_objectives import LABELS, RESNET, SECTIONS, SPEC, VIT, batch, initial, objective

from ecgjax.core import mesh as meshes
from ecgjax.core import trees
from ecgjax.losses.matrix import supcon_views
from ecgjax.objectives import OBJECTIVES
from ecgjax.objectives.momentum import average, cosine_momentum
from ecgjax.train import state as states
from ecgjax.train import step

TARGETS = {"byol ecg": ("ecg",), "cross_modal_byol": ("ecg", "cmr")}


def shared(arm):
    return {name: arm[name] for name in ("encoder", "head")}


def assert_close(got, want, **tolerance):
    got, want = trees.flatten(got), trees.flatten(want)
    assert list(got) == list(want)
    for path, leaf in want.items():
        np.testing.assert_allclose(got[path], leaf, err_msg=path, **tolerance)


@pytest.fixture(scope="module", params=TARGETS)
def trained(request):
    """An objective, and its state before and after the first and second step over two devices, donated."""
    name = request.param
    mesh = meshes.make_mesh(data=2, devices=jax.devices()[:2])
    tx = optax.sgd(0.1)
    train_step, _ = step.compile_steps(objective(name), tx, mesh)
    state = states.create(objective(name), tx, mesh, jax.random.key(0))
    # Weights of another run: the parameters alone are replaced.
    state = state._replace(params=jax.tree.map(lambda leaf: leaf * 1.5, state.params))
    history = [jax.device_get(state)]
    for _ in range(2):
        state, _ = train_step(state, meshes.to_global(batch(), mesh), jax.random.key(1))
        history.append(jax.device_get(state))
    return name, history


def test_a_target_starts_from_the_weights_training_starts_from_and_then_follows(trained):
    name, (before, once, twice) = trained
    for i, (old, new) in enumerate(((before, once), (once, twice))):
        momentum = objective(name).momentum
        if name == "byol ecg":
            momentum = float(cosine_momentum(jnp.asarray(i), start=momentum, steps=100))
        for m in TARGETS[name]:
            start = shared(before.params[m]) if i == 0 else old.extra["target"][m]["params"]
            want = average(start, shared(new.params[m]), momentum=momentum)
            assert_close(new.extra["target"][m]["params"], want, rtol=1e-5, atol=1e-6)
    assert int(twice.extra["updates"]) == 2


def test_a_target_has_statistics_of_its_own(trained):
    name, (before, once, twice) = trained
    for m in TARGETS[name]:
        target, online = (
            trees.flatten(s) for s in (twice.extra["target"][m]["stats"], shared_stats(twice.extra[m]))
        )
        assert list(target) == list(online)
        assert any(not np.array_equal(target[path], online[path]) for path in target)
        moved = trees.flatten(once.extra["target"][m]["stats"])
        assert all(
            not np.array_equal(leaf, moved[path])
            for path, leaf in trees.flatten(before.extra["target"][m]["stats"]).items()
        )


def shared_stats(stats):
    return {name: stats[name] for name in ("encoder", "head") if name in stats}


@pytest.mark.parametrize("name", TARGETS)
def test_no_gradient_reaches_a_target(name):
    params, extra = initial(name)
    extra = {**extra, "updates": jnp.ones((), jnp.int32)}  # From the second update on, the target is its own.
    arms = {m: extra["target"][m]["params"] for m in TARGETS[name]}

    def loss(arms):
        targets = {m: {**extra["target"][m], "params": arms[m]} for m in arms}
        value, _ = objective(name).loss(
            params, {**extra, "target": targets}, batch(), jax.random.key(0), train=False
        )
        return value

    value, gradients = jax.jit(jax.value_and_grad(loss))(arms)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))
    other = jax.jit(loss)(jax.tree.map(lambda leaf: leaf + 0.3, arms))
    assert value != other  # Yet the loss depends on it.


def test_momentum_rises_to_one_and_stays_there():
    steps = jnp.array([0, 50, 100, 200])
    got = cosine_momentum(steps, start=0.9, steps=100)
    np.testing.assert_allclose(got, [0.9, 0.95, 1, 1], rtol=1e-6)


def test_the_halves_of_a_record_are_its_views():
    clocs = OBJECTIVES["simclr"](
        spec=SPEC, crop=40, **{**_fields("simclr halves"), "views": "none", "temperature": 0.5}
    )
    params, extra = initial("simclr halves")
    inputs = batch(8)
    loss = jax.jit(
        lambda x: clocs.loss(params, extra, {**inputs, "ecg": x}, jax.random.key(0), train=False)[0]
    )
    swapped = jnp.concatenate([inputs["ecg"][..., 20:], inputs["ecg"][..., :20]], -1)
    # InfoNCE is the same in both directions: which half comes first does not matter, which record does.
    np.testing.assert_allclose(loss(inputs["ecg"]), loss(swapped), rtol=1e-5)
    mixed = inputs["ecg"].at[..., 20:].set(jnp.roll(inputs["ecg"][..., 20:], 1, axis=0))
    assert abs(float(loss(mixed) - loss(inputs["ecg"]))) > 0.05

    predict = jax.jit(clocs.predict)
    first, second = (
        jnp.concatenate([half, half], -1) for half in (inputs["ecg"][..., :20], inputs["ecg"][..., 20:])
    )
    got = predict(params, extra, inputs)
    parts = [predict(params, extra, {"ecg": x}) for x in (first, second)]
    for key in ("ecg/embedding", "ecg/projection"):
        np.testing.assert_allclose(got[key], (parts[0][key] + parts[1][key]) / 2, atol=1e-5)


@pytest.mark.parametrize("rule", ["labels", "data"])
def test_supcon_draws_the_views_of_similar_subjects_together(rule):
    fields = {**_fields("simclr halves"), "views": "none", "temperature": 0.5, "labels": LABELS}
    nt_xent, supcon = (
        OBJECTIVES["simclr"](
            spec=SPEC, crop=40, **{**fields, "contrast": name, "similarity": rule, "threshold": 0.5}
        )
        for name in ("nt_xent", "supcon")
    )
    inputs, key = batch(8), jax.random.key(0)
    label = np.asarray(inputs["label"], np.float64)
    standard = np.nan_to_num((label - [60, 0.5]) / [10, 0.5])
    length = np.maximum(np.linalg.norm(standard, axis=1), 1e-12)
    alike = standard @ standard.T / np.outer(length, length) > 0.5
    assert 8 < alike.sum() < 64
    if rule == "data":
        rows = np.zeros((8, 20), np.float16)
        rows[:, :8] = alike
        inputs["similarity"] = jnp.asarray(rows)
    params, extra = initial("simclr halves")
    (z0, z1), _ = supcon.embed(params, extra, inputs, key, train=True)
    want = supcon_views(z0, z1, positives=jnp.asarray(alike), temperature=0.5)
    value = supcon.loss(params, extra, inputs, key, train=True)[0]
    np.testing.assert_allclose(value, want, rtol=1e-5)
    plain, validated = (o.loss(params, extra, inputs, key, train=False)[0] for o in (nt_xent, supcon))
    np.testing.assert_array_equal(validated, plain)
    assert abs(float(value - plain)) > 0.01


def test_each_view_cuts_its_own_window():
    fields = {**_fields("simclr halves"), "pairs": "views", "views": "none", "window": 20}
    simclr = OBJECTIVES["simclr"](spec=SPEC, crop=40, **fields)
    clock = jnp.broadcast_to(jnp.arange(40.0), (64, 3, 40))  # Every sample says where it was.
    first, second = (np.asarray(view) for view in simclr._views(jax.random.key(0), clock))
    assert first.shape == second.shape == (64, 3, 20)
    np.testing.assert_array_equal(np.diff(first, axis=2), 1)
    starts = np.stack([first[:, 0, 0], second[:, 0, 0]])
    assert starts.min() >= 0
    assert starts.max() <= 20
    assert abs(np.corrcoef(starts)[0, 1]) < 0.4  # 64 independent pairs: a deviation of 0.125.


def test_the_first_view_is_always_changed_and_the_second_at_its_rate():
    simclr = OBJECTIVES["simclr"](spec=SPEC, crop=40, **{**_fields("simclr cmr"), "view_rate": 0.5})
    cmr = jnp.tile(batch()["cmr"], (16, 1, 1, 1))
    first, second = jax.jit(simclr._views)(jax.random.key(0), cmr)
    same = [np.all(np.asarray(view) == np.asarray(cmr), axis=(1, 2, 3)) for view in (first, second)]
    assert not same[0].any()
    np.testing.assert_allclose(same[1].mean(), 0.5, atol=0.12)


def _fields(name):
    return {k: v for k, v in SECTIONS[name].items() if k != "name"}


def test_an_image_head_is_as_wide_inside_as_the_embedding():
    head = initial("simclr cmr")[0]["cmr"]["head"]
    assert head["fc1"]["kernel"].shape == (16, 16)
    assert head["fc2"]["kernel"].shape == (16, 8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modality": "cmr", "encoder": RESNET, "pairs": "halves"}, "not for modality cmr"),
        ({"pairs": "halves", "window": 20}, "leave one out"),
        ({"window": 25}, "multiple of config.objective.encoder.patch = 10"),
        ({"window": 50}, "at most config.data.crop = 40"),
        ({"view_rate": 1.5}, "view_rate is 1.5"),
        ({"pairs": "halves", "encoder": {**VIT, "patch": 40}}, "take a multiple of 80"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"contrast": "supcon", "similarity": "labels"}, "similarity is labels, but the data set has none"),
        ({"contrast": "supcon", "threshold": 1.0}, r"threshold is 1\.0; it must lie in \[-1, 1\)"),
        ({"contrast": "supcon", "tile": 4}, "tile is 4, but supcon is computed on whole logits"),
    ],
)
def test_settings_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        OBJECTIVES["simclr"](spec=SPEC, crop=40, **{**_fields("simclr halves"), "pairs": "views", **fields})


@pytest.mark.parametrize(("field", "value"), [("momentum", 1.1), ("momentum_steps", 0)])
def test_a_momentum_that_cannot_be_is_refused(field, value):
    with pytest.raises(ValueError, match=f"config.objective.{field} is {value}"):
        OBJECTIVES["byol"](spec=SPEC, crop=40, **{**_fields("byol ecg"), field: value})
