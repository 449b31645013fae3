import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_objectives import LABELS, RESNET, SPEC, TOWERS, batch

from ecgjax.core import mesh as meshes
from ecgjax.core import trees
from ecgjax.losses import contrastive, matrix
from ecgjax.objectives import contrasts
from ecgjax.objectives.cross_modal import CrossModal
from ecgjax.train import optim, state, step

KEY = jax.random.key(3)
FIELDS = {k: v for k, v in TOWERS.items() if k != "name"}
FIELDS |= {"cmr": {**RESNET, "norm": "group"}, "ecg_views": "none", "cmr_views": "none"}
BATCH_NORM = {**RESNET, "norm": "batch"}


def make(**changes):
    return CrossModal(spec=SPEC, crop=40, labels=LABELS, **{**FIELDS, **changes})


@functools.cache
def drawn(objective_fields=()):
    """Initial values; equal encoders are drawn alike whatever the loss."""
    return jax.jit(make(**dict(objective_fields)).init)(jax.random.key(0))


def loss(objective, inputs, *, train=True, given=None):
    params, extra = drawn() if given is None else given
    value, aux = jax.jit(functools.partial(objective.loss, train=train))(params, extra, inputs, KEY)
    return float(value), {name: float(x) for name, x in aux.metrics.items()}


def predictions(objective, given, inputs, *keys):
    """Some of the predictions; what is not asked for is not computed."""

    @jax.jit
    def ask(params, extra, inputs):
        out = objective.predict(params, extra, inputs)
        return [out[key] for key in keys]

    return ask(*given, inputs)


@pytest.fixture(scope="module")
def projections():
    return predictions(make(), drawn(), batch(), "cmr/projection", "ecg/projection")


@pytest.fixture(scope="module")
def stored():
    """A batch that is rows 20 to 35 of a set of 40 in another order, and which of its subjects are alike."""
    draw = np.random.default_rng(0)
    whole = draw.uniform(size=(40, 40)).astype(np.float16)
    whole = np.maximum(whole, whole.T)
    index = draw.permutation(np.arange(20, 36)).astype(np.int32)
    inputs = {**batch(), "index": jnp.asarray(index), "similarity": jnp.asarray(whole[index])}
    alike = (whole[np.ix_(index, index)] > 0.8) | np.eye(16, dtype=bool)
    assert 16 < alike.sum() < 128
    return inputs, jnp.asarray(alike)


@pytest.mark.parametrize("contrast", ["supervised_contrastive", "remove_false_negatives"])
def test_a_contrast_takes_who_is_alike_from_the_stored_matrix(contrast, projections, stored):
    inputs, alike = stored
    who = {"positives": alike} if contrast == "supervised_contrastive" else {"similar": alike}
    want = getattr(matrix, contrast)(*projections, **who, temperature=0.2)
    objective = make(contrast=contrast, threshold=0.8)
    np.testing.assert_allclose(loss(objective, inputs)[0], want, rtol=1e-5)
    # The validation split has no rows in the matrix.
    plain = contrastive.info_nce(*projections, temperature=0.2)
    np.testing.assert_allclose(loss(objective, batch(), train=False)[0], plain, rtol=1e-5)


def test_k_positive_draws_among_who_is_alike(projections, stored):
    inputs, alike = stored
    everyone = matrix.k_positive(*projections, mask=alike, temperature=0.2)
    objective = make(contrast="k_positive", threshold=0.8, positives=16)
    np.testing.assert_allclose(loss(objective, inputs)[0], everyone, rtol=1e-5)
    few = make(contrast="k_positive", threshold=0.8, positives=2)
    run = jax.jit(functools.partial(few.loss, train=True))
    values = {float(run(*drawn(), inputs, jax.random.key(i))[0]) for i in range(4)}
    assert len(values) == 4


def test_k_positive_can_draw_and_divide_as_released(projections, stored):
    inputs, _ = stored
    released = make(contrast="k_positive", threshold=0.8, positives=2, positives_among="count")
    run = jax.jit(functools.partial(released.loss, train=True))
    values = [float(run(*drawn(), inputs, jax.random.key(i))[0]) for i in range(8)]
    # Of each row the own pair and at most one column more, over b (k - 1) with the mean over rows on top.
    own = matrix.k_positive(*projections, mask=jnp.eye(16, dtype=bool), temperature=0.2, divisor=16)
    assert all(value >= float(own) for value in values)
    assert len(set(values)) > 1


def test_nt_xent_is_trained_and_validated(projections):
    want = contrastive.nt_xent(*projections, temperature=0.2)
    for train in (True, False):
        np.testing.assert_allclose(loss(make(contrast="nt_xent"), batch(), train=train)[0], want, rtol=1e-5)


def test_labels_say_who_is_alike(projections):
    inputs = batch()
    label = np.asarray(inputs["label"], np.float64)
    label[3, 1] = np.nan
    standard = np.nan_to_num((label - [60, 0.5]) / [10, 0.5])
    length = np.maximum(np.linalg.norm(standard, axis=1), 1e-12)
    alike = (standard @ standard.T / np.outer(length, length) > 0.9) | np.eye(16, dtype=bool)
    assert alike.sum() > 16
    want = matrix.remove_false_negatives(*projections, similar=jnp.asarray(alike), temperature=0.2)
    objective = make(contrast="remove_false_negatives", similarity="labels")
    got, _ = loss(objective, {**inputs, "label": jnp.asarray(label, jnp.float32)})
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_recordings_of_one_subject_are_alike_whatever_the_matrix_says(projections):
    inputs = {**batch(), "similarity": jnp.zeros((16, 16))}
    inputs["subject"] = inputs["subject"].at[1].set(inputs["subject"][0])
    same = jnp.eye(16, dtype=bool).at[0, 1].set(True).at[1, 0].set(True)
    want = matrix.supervised_contrastive(*projections, positives=same, temperature=0.2)
    np.testing.assert_allclose(loss(make(contrast="supervised_contrastive"), inputs)[0], want, rtol=1e-5)


def test_a_missing_matrix_is_named():
    with pytest.raises(ValueError, match=r"contrast is k_positive.*config\.data\.similarity.*'labels'"):
        jax.eval_shape(
            functools.partial(make(contrast="k_positive").loss, train=True), *drawn(), batch(), KEY
        )


def compared(objective, projections, inputs):
    """The comparison alone, on eight devices where it is in tiles."""
    mesh = meshes.make_mesh(data=4, fsdp=2)
    z_cmr, z_ecg = projections

    @jax.jit
    def run(z_cmr, z_ecg, inputs):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return objective.compare({}, {"cmr": z_cmr, "ecg": z_ecg}, inputs, KEY, train=True)

    return jax.device_get(run(*jax.device_put((z_cmr, z_ecg, inputs), meshes.batch_sharding(mesh))))


@pytest.mark.parametrize(
    ("contrast", "similarity"),
    [("supervised_contrastive", "data"), ("remove_false_negatives", "labels")],
)
def test_tiles_know_who_is_alike(contrast, similarity, projections, stored):
    whole, tiles = (
        make(contrast=contrast, similarity=similarity, threshold=0.8, tile=tile) for tile in (None, 2)
    )
    inputs, _ = stored
    inputs = {**inputs, "subject": inputs["subject"].at[1].set(inputs["subject"][0])}
    (want, metrics), (got, found) = (compared(x, projections, inputs) for x in (whole, tiles))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert found == metrics


def test_a_tile_that_does_not_divide_a_device_is_refused():
    z = jax.ShapeDtypeStruct((48, 8), "float32")
    message = r"config\.objective\.tile is 4, which does not divide the 6 examples .* 8 device.* one of \[1, 2, 3, 6\]"
    with jax.set_mesh(meshes.make_mesh(data=8)), pytest.raises(ValueError, match=message):
        jax.eval_shape(functools.partial(contrasts.ranks, tile=4), z, z)


@pytest.mark.parametrize("frozen", ["cmr", "ecg"])
def test_nothing_moves_a_frozen_encoder_or_its_statistics(frozen):
    objective = make(cmr=BATCH_NORM, freeze=(frozen,), ecg={**FIELDS["ecg"], "drop_path": 0.1})
    section = {
        "name": "adam_l2",
        "weight_decay": 0.1,
        "schedule": {"name": "constant", "learning_rate": 1e-2},
    }
    tx, _ = optim.build(section, steps=3, frozen=objective.frozen_paths)
    params, extra = drawn((("cmr", _Hashable(BATCH_NORM)),))
    before = jax.device_get({"params": params, "extra": extra})
    now = state.TrainState(jnp.zeros((), jnp.int32), params, extra, tx.init(params))
    train = jax.jit(step.make_train_step(objective, tx))
    for i in range(3):
        now, _ = train(now, batch(seed=i), KEY)
    after = jax.device_get({"params": now.params, "extra": now.extra})
    moved = {
        path
        for path, leaf in trees.flatten(after).items()
        if not np.array_equal(leaf, trees.flatten(before)[path])
    }
    other = "ecg" if frozen == "cmr" else "cmr"
    stays = [p for p in trees.flatten(before) if f"{frozen}/encoder/" in p]
    assert stays
    assert not moved & set(stays)
    assert {p for p in trees.flatten(before) if f"{frozen}/head/" in p} <= moved
    assert {p for p in trees.flatten(before) if f"{other}/encoder/" in p and "kernel" in p} <= moved
    if frozen == "ecg":
        assert {p for p in trees.flatten(before) if p.startswith("extra/cmr")} <= moved


def test_each_tower_may_have_a_rate_of_its_own():
    section = {
        "name": "adam_l2",
        "weight_decay": 0.0,
        "schedule": {"name": "constant", "learning_rate": 1e-3},
        "groups": {"cmr": {"paths": "^cmr/", "learning_rate": 1e-2}},
    }
    tx, _ = optim.build(section, steps=1)
    params, _ = drawn()
    updates, _ = jax.jit(lambda p: tx.update(jax.tree.map(jnp.ones_like, p), tx.init(p), p))(params)
    for path, update in trees.flatten(updates).items():  # The first step of Adam is the rate itself.
        np.testing.assert_allclose(update, -1e-2 if path.startswith("cmr/") else -1e-3, rtol=1e-5)


class _Hashable(dict):
    def __hash__(self):
        return hash(str(self))


ONLINE = {"modality": "cmr", "label": "lbbb"}


def test_the_online_classifier_touches_nothing_but_itself():
    gradients = {}
    for name, online in (("without", None), ("with", ONLINE)):
        objective = make(cmr=BATCH_NORM, online=online, cmr_views="weak")
        params, extra = drawn((("cmr", _Hashable(BATCH_NORM)), ("online", _Hashable(ONLINE))))
        if online is None:
            params = {m: params[m] for m in ("ecg", "cmr")}
        grad = jax.value_and_grad(functools.partial(objective.loss, train=True), has_aux=True)
        with (
            jax.disable_jit()
        ):  # Operation by operation: two compiled programs may fuse, and so round, otherwise.
            gradients[name] = jax.device_get(grad(params, extra, batch(), KEY))
    ((plain, plain_aux), without), ((value, aux), with_) = gradients["without"], gradients["with"]
    assert all(np.any(leaf) for leaf in jax.tree.leaves(with_.pop("online")))
    assert trees.digest(with_) == trees.digest(without)
    assert trees.digest(aux.extra) == trees.digest(plain_aux.extra)
    assert aux.metrics["contrastive"] == plain
    np.testing.assert_allclose(value, plain + aux.metrics["online"], rtol=1e-6)


def test_no_gradient_of_the_online_classifier_reaches_an_encoder():
    objective = make(cmr=BATCH_NORM, online=ONLINE, cmr_views="weak")
    params, extra = drawn((("cmr", _Hashable(BATCH_NORM)), ("online", _Hashable(ONLINE))))
    grad = jax.jit(jax.grad(lambda *given: objective.loss(*given, train=True)[1].metrics["online"]))
    gradient = grad(params, extra, batch(), KEY)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient.pop("online")))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_the_online_classifier_reads_the_input_without_augmentation():
    objective = make(online=ONLINE, cmr_views="weak", ecg_views="weak")
    given = drawn((("online", _Hashable(ONLINE)),))
    train = loss(objective, batch(), given=given)[1]
    plain = loss(objective, batch(), train=False, given=given)[1]
    assert train["contrastive"] != plain["contrastive"]
    for name in ("online", "online_accuracy", "online_f1"):
        np.testing.assert_allclose(train[name], plain[name], rtol=1e-5)


def test_a_tower_reads_the_frames_it_names():
    objective = make(cmr={**FIELDS["cmr"], "frames": ("ED", "ES")})
    assert SPEC.cmr.frames == ("ES", "mid", "ED")
    params, extra = drawn((("cmr", _Hashable({**FIELDS["cmr"], "frames": ("ED", "ES")})),))
    assert params["cmr"]["encoder"]["conv1"]["kernel"].shape == (3, 3, 2, 8)
    embed = jax.jit(lambda image: objective.predict(params, extra, {"cmr": image})["cmr/embedding"])
    image = batch()["cmr"]
    np.testing.assert_array_equal(embed(image), embed(image.at[..., 1].set(0)))
    for read in (0, 2):
        assert not np.allclose(embed(image), embed(image.at[..., read].set(0)))


def test_the_region_of_interest_is_cut_out_of_training_and_evaluation_alike(projections):
    roi = (0.25, 0.5, 0.5)  # Rows 2 to 5, columns 4 to 7 of 8 x 8.
    image = np.asarray(batch()["cmr"])[:, 2:6, 4:8]
    at = np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)
    low, weight = at.astype(int), at - at.astype(int)
    high = np.minimum(low + 1, 3)
    for axis in (1, 2):
        shape = [1, 1, 1, 1]
        shape[axis] = 8
        w = weight.reshape(shape)
        image = image.take(low, axis) * (1 - w) + image.take(high, axis) * w
    cut = {**batch(), "cmr": jnp.asarray(image, jnp.float32)}
    want, plain = loss(make(), cut)[0], loss(make(), batch())[0]
    objective = make(cmr_roi=roi)
    assert abs(want - plain) > 1e-3
    np.testing.assert_allclose(loss(objective, batch())[0], want, rtol=1e-5)
    np.testing.assert_allclose(loss(objective, batch(), train=False)[0], want, rtol=1e-5)
    (got,) = predictions(objective, drawn(), {"cmr": batch()["cmr"]}, "cmr/embedding")
    (want,) = predictions(make(), drawn(), {"cmr": cut["cmr"]}, "cmr/embedding")
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_it_computes_in_float64():
    with jax.enable_x64(True):
        sections = {m: {**FIELDS[m], "dtype": "float64"} for m in ("ecg", "cmr")}
        objective = make(
            **sections, contrast="k_positive", similarity="labels", online=ONLINE, cmr_roi=(0.0, 0.0, 1.0)
        )
        params, extra, inputs = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, "float64" if x.dtype == "float32" else x.dtype),
            (*jax.eval_shape(objective.init, KEY), batch()),
        )
        grads, aux = jax.eval_shape(
            jax.grad(functools.partial(objective.loss, train=True), has_aux=True), params, extra, inputs, KEY
        )
    assert {leaf.dtype.name for leaf in jax.tree.leaves(grads)} == {"float64"}
    assert aux.metrics["online"].dtype == aux.metrics["contrastive"].dtype == jnp.float64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"contrast": "supervised_contrastive", "similarity": "labels", "labels": ()},
            "similarity is labels",
        ),
        ({"threshold": 1.0}, r"threshold is 1.0; it must lie in \[-1, 1\)"),
        ({"positives": 1}, "positives is 1; it must be at least 2"),
        ({"freeze": ("image",)}, r"freeze: unknown \['image'\]; choose from ecg, cmr"),
        ({"cmr_roi": (0.5, 0.0, 0.75)}, "cmr_roi: box .* choose shares that stay inside"),
        ({"cmr_roi": (0.0, 0.0, 0.01)}, "cmr_roi: box"),
        ({"cmr": {**FIELDS["cmr"], "frames": ("ES", "dia")}}, "cmr.frames is .* among ES, mid, ED"),
        ({"cmr": {**FIELDS["cmr"], "frames": ()}}, "cmr.frames is"),
        ({"cmr": {**FIELDS["cmr"], "reads": (0,)}}, "cmr.reads: set by the program"),
        ({"tile": 0}, "tile is 0; it must be at least 1, or None"),
        ({"tile": 8, "contrast": "k_positive"}, "tile is 8, but k_positive draws among all"),
        (
            {"online": {**ONLINE, "label": "lvef"}},
            "'lvef' is no binary label of the data set; choose from lbbb",
        ),
        ({"online": {**ONLINE, "class_weights": (1.0, 0.0)}}, "class_weights is .*; give two above 0"),
        ({"online": {"modality": "cmr"}}, "config.objective.online.label: missing"),
        ({"online": {**ONLINE, "rate": 1.0}}, "config.objective.online.rate: no field"),
    ],
)
def test_wrong_settings_say_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes) if "labels" not in changes else dataclasses.replace(make(), **changes)
