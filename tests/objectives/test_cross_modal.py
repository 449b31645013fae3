import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_objectives import LABELS, RESNET, SPEC, TOWERS, batch, filled

from ecgjax.core import mesh as meshes
from ecgjax.core import trees
from ecgjax.losses import contrastive, matrix
from ecgjax.objectives import contrasts
from ecgjax.objectives.cross_modal import CrossModal
from ecgjax.train import optim, state, step

KEY = jax.random.key(3)
SMALL = {**RESNET, "depths": (1,), "widths": (8,)}
FIELDS = {k: v for k, v in TOWERS.items() if k != "name"}
FIELDS |= {"cmr": {**SMALL, "norm": "group"}, "ecg_views": "none", "cmr_views": "none"}
BATCH_NORM = {**SMALL, "norm": "batch"}


def make(**changes):
    return CrossModal(spec=SPEC, crop=40, labels=LABELS, **{**FIELDS, **changes})


@pytest.fixture(scope="module")
def drawn():
    return filled(make())


@pytest.fixture(scope="module")
def projections(drawn):
    """Projections of both modalities of a batch."""
    predict = make().predict
    out = jax.jit(lambda *given: [predict(*given)[f"{m}/projection"] for m in ("cmr", "ecg")])
    return out(*drawn, batch())


def comparing(objective):
    """The contrast of projections as in training."""

    @jax.jit
    def compare(projections, inputs, key=KEY):
        z_cmr, z_ecg = projections
        return objective.compare({}, {"cmr": z_cmr, "ecg": z_ecg}, inputs, key, train=True)[0]

    return compare


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
    got = comparing(make(contrast=contrast, threshold=0.8))(projections, inputs)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize(
    ("contrast", "plain"), [("supervised_contrastive", "info_nce"), ("nt_xent", "nt_xent")]
)
def test_the_loss_compares_projections_and_validation_knows_nobody_alike(
    contrast, plain, drawn, projections, stored
):
    objective = make(contrast=contrast, threshold=0.8)

    @jax.jit
    def both(params, extra, trained, validated):  # The validation split has no rows in the matrix.
        return [
            objective.loss(params, extra, inputs, KEY, train=train)[0]
            for inputs, train in ((trained, True), (validated, False))
        ]

    got, validated = both(*drawn, stored[0], batch())
    np.testing.assert_allclose(got, comparing(objective)(projections, stored[0]), rtol=1e-5)
    want = getattr(contrastive, plain)(*projections, temperature=0.2)
    np.testing.assert_allclose(validated, want, rtol=1e-5)
    if contrast == plain:
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_k_positive_draws_among_who_is_alike(projections, stored):
    inputs, alike = stored
    everyone = matrix.k_positive(*projections, mask=alike, temperature=0.2)
    objective = make(contrast="k_positive", threshold=0.8, positives=16)
    np.testing.assert_allclose(comparing(objective)(projections, inputs), everyone, rtol=1e-5)
    few = comparing(make(contrast="k_positive", threshold=0.8, positives=2))
    assert len({float(few(projections, inputs, jax.random.key(i))) for i in range(4)}) == 4


def test_k_positive_can_draw_and_divide_as_released(projections, stored):
    inputs, _ = stored
    released = comparing(make(contrast="k_positive", threshold=0.8, positives=2, positives_among="count"))
    values = [float(released(projections, inputs, jax.random.key(i))) for i in range(8)]
    # Of each row the own pair and at most one column more, over b (k - 1) with the mean over rows on top.
    own = matrix.k_positive(*projections, mask=jnp.eye(16, dtype=bool), temperature=0.2, divisor=16)
    assert all(value >= float(own) for value in values)
    assert len(set(values)) > 1


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
    got = comparing(objective)(projections, {**inputs, "label": jnp.asarray(label, jnp.float32)})
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_recordings_of_one_subject_are_alike_whatever_the_matrix_says(projections):
    inputs = {**batch(), "similarity": jnp.zeros((16, 16))}
    inputs["subject"] = inputs["subject"].at[1].set(inputs["subject"][0])
    same = jnp.eye(16, dtype=bool).at[0, 1].set(True).at[1, 0].set(True)
    want = matrix.supervised_contrastive(*projections, positives=same, temperature=0.2)
    got = comparing(make(contrast="supervised_contrastive"))(projections, inputs)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_missing_matrix_is_named(projections):
    with pytest.raises(ValueError, match=r"contrast is k_positive.*config\.data\.similarity.*'labels'"):
        jax.eval_shape(comparing(make(contrast="k_positive")), projections, batch())


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
    params, extra = filled(objective)
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


def test_each_tower_may_have_a_rate_of_its_own(drawn):
    section = {
        "name": "adam_l2",
        "weight_decay": 0.0,
        "schedule": {"name": "constant", "learning_rate": 1e-3},
        "groups": {"cmr": {"paths": "^cmr/", "learning_rate": 1e-2}},
    }
    tx, _ = optim.build(section, steps=1)
    params, _ = drawn
    updates, _ = jax.jit(lambda p: tx.update(jax.tree.map(jnp.ones_like, p), tx.init(p), p))(params)
    for path, update in trees.flatten(updates).items():  # The first step of Adam is the rate itself.
        np.testing.assert_allclose(update, -1e-2 if path.startswith("cmr/") else -1e-3, rtol=1e-5)


ONLINE = {"modality": "cmr", "label": "lbbb"}


@pytest.fixture(scope="module")
def online():
    """What training and evaluation find with an online classifier, and training without.

    One program, whose parts are rounded alike: two may be fused otherwise.
    """
    objectives = {
        name: make(cmr=BATCH_NORM, online=fields, cmr_views="weak", ecg_views="weak")
        for name, fields in (("without", None), ("with", ONLINE))
    }
    params, extra = filled(objectives["with"])

    @jax.jit
    def run(params, extra, inputs):
        def loss(name, params, train=True):
            given = params if name == "with" else {m: params[m] for m in ("ecg", "cmr")}
            return objectives[name].loss(given, extra, inputs, KEY, train=train)

        return {
            **{
                name: jax.value_and_grad(functools.partial(loss, name), has_aux=True)(params)
                for name in objectives
            },
            "gradient": jax.grad(lambda p: loss("with", p)[1].metrics["online"])(params),
            "evaluation": loss("with", params, train=False)[1].metrics,
        }

    return jax.device_get(run(params, extra, batch()))


def test_the_online_classifier_touches_nothing_but_itself(online):
    ((plain, plain_aux), without), ((value, aux), with_) = online["without"], online["with"]
    assert all(np.any(leaf) for leaf in jax.tree.leaves(with_["online"]))
    for m in ("ecg", "cmr"):
        assert trees.digest(with_[m]) == trees.digest(without[m])
    assert trees.digest(aux.extra) == trees.digest(plain_aux.extra)
    assert aux.metrics["contrastive"] == plain
    np.testing.assert_allclose(value, plain + aux.metrics["online"], rtol=1e-6)


def test_no_gradient_of_the_online_classifier_reaches_an_encoder(online):
    gradient = online["gradient"]
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient["online"]))
    assert not any(np.any(leaf) for m in ("ecg", "cmr") for leaf in jax.tree.leaves(gradient[m]))


def test_the_online_classifier_reads_the_input_without_augmentation(online):
    (_, aux), _ = online["with"]
    assert aux.metrics["contrastive"] != online["evaluation"]["contrastive"]
    for name in ("online", "online_accuracy", "online_f1"):
        np.testing.assert_allclose(aux.metrics[name], online["evaluation"][name], rtol=1e-5)


def test_a_tower_reads_the_frames_it_names():
    objective = make(cmr={**FIELDS["cmr"], "frames": ("ED", "ES")})
    assert SPEC.cmr.frames == ("ES", "mid", "ED")
    params, extra = filled(objective)
    assert params["cmr"]["encoder"]["conv1"]["kernel"].shape == (3, 3, 2, 8)
    embed = jax.jit(lambda image: objective.predict(params, extra, {"cmr": image})["cmr/embedding"])
    image = batch()["cmr"]
    np.testing.assert_array_equal(embed(image), embed(image.at[..., 1].set(0)))
    for read in (0, 2):
        assert not np.allclose(embed(image), embed(image.at[..., read].set(0)))


def test_the_region_of_interest_is_cut_out_of_training_and_evaluation_alike():
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
    plain, cutting = (make(cmr={**RESNET, "norm": "group"}, cmr_roi=box) for box in (None, roi))

    @jax.jit
    def run(params, extra, inputs, cut):
        def losses(objective, inputs):
            return [objective.loss(params, extra, inputs, KEY, train=train)[0] for train in (True, False)]

        def embedding(objective, inputs):
            return objective.predict(params, extra, {"cmr": inputs["cmr"]})["cmr/embedding"]

        found = losses(cutting, inputs), embedding(cutting, inputs)
        return found, (losses(plain, cut), embedding(plain, cut)), losses(plain, inputs)

    (got, embedded), (want, wanted), whole = jax.device_get(run(*filled(plain), batch(), cut))
    assert np.all(np.abs(np.subtract(want, whole)) > 1e-3)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_allclose(embedded, wanted, atol=1e-5)


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
