import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_objectives import BEATS, LABELS, RESNET, SECTIONS, SPEC, VIT, batch

from ecgjax.augment.mixing import Mixing, mix, mix_targets
from ecgjax.core import config as configs
from ecgjax.core import trees
from ecgjax.losses.supervised import cross_entropy
from ecgjax.objectives.finetune import Finetune
from ecgjax.objectives.labels import columns
from ecgjax.objectives.token_mask import TokenMask

KEY = jax.random.key(0)
BEAT = {"spec": BEATS, "encoder": SECTIONS["finetune beats"]["encoder"]}
THREE = tuple({"name": n, "kind": "binary", "mean": None, "std": None} for n in ("a", "b", "c"))


def finetune(**fields):
    return Finetune(**{"spec": SPEC, "crop": 40, "labels": LABELS, "encoder": VIT, "views": "none", **fields})


CLASSIFY = {"task": "classification", "targets": ("lbbb",)}
REGRESS = {"task": "regression", "targets": ("lvef",)}


@pytest.fixture(scope="module")
def setting():
    """Parameters for two classes; those of one output are cut from them."""
    return jax.jit(finetune(**CLASSIFY).init)(KEY)


@functools.cache
def evaluated(**fields):
    tuned = finetune(**fields)
    return jax.jit(functools.partial(tuned.loss, train=False))


def outputs(params, count):
    """The same network with `count` outputs."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf[..., :count] if "head" in jax.tree_util.keystr(path) else leaf, params
    )


def test_evaluation_is_unweighted_and_unsmoothed(setting):
    plain, _ = evaluated(**CLASSIFY)(*setting, batch(), KEY)
    other, aux = evaluated(**CLASSIFY, class_weights=(1.0, 9.0), smoothing=0.3, lead_mask=0.4)(
        *setting, batch(), KEY
    )
    assert float(plain) == float(other)
    assert set(aux.metrics) == {"accuracy", "auroc"}


def test_one_condition_makes_two_classes_and_several_are_one_hot(setting):
    params, extra = setting
    x = batch()
    label = x["label"][:, 1]
    one_hot = jnp.stack([1 - label, label], 1)
    several = finetune(task="classification", labels=THREE[:2])
    assert jax.eval_shape(several.init, KEY)[0]["ecg"]["head"]["linear"]["kernel"].shape == (16, 2)
    two, _ = jax.jit(functools.partial(several.loss, train=False))(
        params, extra, {**x, "label": one_hot}, KEY
    )
    one, _ = evaluated(**CLASSIFY)(params, extra, x, KEY)
    np.testing.assert_allclose(one, two, rtol=1e-6)
    out = jax.jit(finetune(**CLASSIFY).predict)(params, extra, x)
    np.testing.assert_allclose(out["prediction"], jax.nn.softmax(out["logits"])[:, 1:], rtol=1e-6)
    out = jax.eval_shape(several.predict, params, extra, x)
    assert out["prediction"].shape == (16, 2)
    three = finetune(task="classification", labels=THREE, targets=(0, 3))
    assert jax.eval_shape(three.init, KEY)[0]["ecg"]["head"]["linear"]["kernel"].shape == (16, 3)


def test_regression_is_trained_standardised_and_predicted_in_its_unit(setting):
    params, extra = outputs(setting[0], 1), setting[1]
    x = batch()
    out = jax.jit(finetune(**REGRESS).predict)(params, extra, x)
    loss, aux = evaluated(**REGRESS)(params, extra, x, KEY)
    known = ~np.isnan(x["label"][:, 0])
    error = (np.asarray(out["logits"])[:, 0] - np.asarray(x["label"])[:, 0])[known] / 10
    np.testing.assert_allclose(loss, np.mean(error**2), rtol=1e-4)
    counted, _ = evaluated(**REGRESS, missing="counted")(params, extra, x, KEY)
    np.testing.assert_allclose(counted, np.sum(error**2) / 16, rtol=1e-4)
    assert set(aux.metrics) == {"pcc"}


def test_masks_hide_tokens_in_training_only_unless_asked_for(setting):
    x = batch()
    plain = jax.jit(finetune(**CLASSIFY).predict)(*setting, x)["logits"]
    hidden = jax.jit(finetune(**CLASSIFY, mask_ratio=0.5).predict)(*setting, x)["logits"]
    np.testing.assert_array_equal(plain, hidden)
    always = finetune(**CLASSIFY, mask_ratio=0.5, mask_at_evaluation=True)
    predict = jax.jit(always.predict)
    masked = predict(*setting, x)["logits"]
    assert np.abs(masked - plain).max() > 1e-3
    np.testing.assert_allclose(predict(*setting, {"ecg": x["ecg"][::-1]})["logits"], masked[::-1], atol=1e-5)
    trained = [
        float(jax.jit(functools.partial(tuned.loss, train=True))(*setting, x, KEY)[0])
        for tuned in (finetune(**CLASSIFY, **mask) for mask in ({}, {"time_mask": 0.5}, {"mask_ratio": 0.5}))
    ]
    assert len(set(trained)) == 3


def test_block_mask_keeps_whole_leads_and_times():
    keep = np.asarray(TokenMask(0.0, lead_mask=0.4, time_mask=0.5, rows=3, columns=4).keep(KEY, 5))
    for row in keep:  # 3 leads x 4 times, of which 1 and 2 stay.
        leads, times = np.divmod(row, 4)
        assert (len(row), len(set(leads)), len(set(times))) == (2, 1, 2)


def test_mixing_blends_examples_and_their_classes(setting):
    x, fields = batch(), {"mixup": 0.4, "class_weights": (1.0, 3.0), "smoothing": 0.1}

    def by_hand(params, extra):
        mixed = mix(jax.random.split(KEY, 4)[1], x["ecg"], Mixing(mixup=0.4))
        logits = finetune(**CLASSIFY).predict(params, extra, {"ecg": mixed.x})["logits"]
        label = x["label"][:, 1]
        target = mix_targets(jnp.stack([1 - label, label], 1), mixed.share)
        return cross_entropy(logits, target, class_weights=(1.0, 3.0), smoothing=0.1)

    tuned = finetune(**CLASSIFY, **fields)
    got, _ = jax.jit(functools.partial(tuned.loss, train=True))(*setting, x, KEY)
    np.testing.assert_allclose(got, jax.jit(by_hand)(*setting), rtol=1e-5)


def test_norm_twice_changes_the_logits_once_the_norm_is_no_longer_fresh(setting):
    params, extra = setting
    norm = params["ecg"]["encoder"]["pool_norm"]
    moved = {**params["ecg"]["encoder"], "pool_norm": {**norm, "bias": norm["bias"] + jnp.arange(16.0)}}
    moved = {"ecg": {**params["ecg"], "encoder": moved}}
    once, twice = (
        jax.jit(finetune(**CLASSIFY, norm_twice=flag).predict)(moved, extra, batch())
        for flag in (False, True)
    )
    np.testing.assert_array_equal(once["ecg/embedding"], twice["ecg/embedding"])
    assert np.abs(once["logits"] - twice["logits"]).max() > 1e-3


def test_a_probe_runs_its_encoder_as_in_evaluation():
    probe = finetune(**CLASSIFY, mode="probe", encoder={**VIT, "drop_path": 0.9, "depth": 2})
    params, extra = jax.jit(probe.init)(KEY)
    losses = jax.jit(functools.partial(probe.loss, train=True))
    first, aux = losses(params, extra, batch(), KEY)
    assert float(first) == float(losses(params, extra, batch(), jax.random.key(1))[0])
    assert probe.frozen_paths == (r"^ecg/encoder/",)
    assert trees.digest(aux.extra) != trees.digest(extra)


def test_partial_trains_the_last_block_and_the_head_alone():
    partial = finetune(**CLASSIFY, mode="partial", encoder={**VIT, "depth": 2, "pooling": "mean"})
    params, extra = jax.jit(partial.init)(KEY)
    (frozen,) = partial.frozen_paths
    paths = set(trees.flatten(params))
    trained = {path for path in paths if not re.search(frozen, path)}
    assert {path.rsplit("/", 2)[0] for path in trained if "encoder" not in path} == {"ecg/head"}
    inside = {"/".join(path.split("/")[2:4]) for path in trained if "encoder" in path}
    assert "blocks/1" in inside
    assert not {name for name in inside if name.startswith(("blocks/0", "patch_embed", "positions"))}
    grads = jax.jit(jax.grad(lambda p: partial.loss(p, extra, batch(), KEY, train=True)[0]))(params)
    moving = {path for path, leaf in trees.flatten(grads).items() if np.any(leaf)}
    assert moving <= trained
    assert trained - moving <= {path for path in trained if path.endswith("bias")}


def test_rows_without_a_label_or_a_class_change_nothing(setting):
    x = batch()
    label = np.zeros((16, 2), np.float32)
    label[np.arange(16), np.arange(16) % 2] = 1
    several = finetune(task="classification", labels=THREE[:2])
    losses = jax.jit(functools.partial(several.loss, train=False))

    def of(label):
        value, aux = losses(*setting, {**x, "label": jnp.asarray(label)}, KEY)
        return float(value), several.summary({k: float(v) for k, v in aux.metrics.items()})

    value, summary = of(label)
    known = np.arange(16) >= 6
    nothing = np.where(known[:, None], label, 0)
    missing = np.where(known[:, None], label, np.nan)
    assert of(nothing) == of(missing)
    assert of(nothing)[0] != value
    assert {"macro_f1", "balanced_accuracy", "sensitivity_a", "sensitivity_b", "accuracy", "auroc"} == set(
        summary
    )
    gone, _ = of(np.full((16, 2), np.nan))
    assert gone == 0


def test_weights_follow_from_the_labels_and_what_is_thinned():
    labels = [
        {"name": n, "kind": "binary", "prevalence": p} for n, p in (("N", 0.9), ("S", 0.02), ("V", 0.08))
    ]
    labels[0]["kept"] = 0.1
    tuned = finetune(task="classification", labels=labels, class_weights="inverse")
    np.testing.assert_allclose(tuned._weights, 0.19 / 3 / np.array([0.09, 0.02, 0.08]))
    section = {"task": "classification", "class_weights": "sqrt_invers", "encoder": VIT}
    with pytest.raises(ValueError, match=r"config\.objective\.class_weights: expected tuple or 'inverse' or"):
        configs.build(
            {"finetune": Finetune},
            {"name": "finetune", **section},
            "config.objective",
            spec=SPEC,
            crop=40,
            labels=labels,
        )


def test_images_are_fine_tuned_too():
    tuned = finetune(**CLASSIFY, modality="cmr", encoder={**RESNET, "norm": "batch"}, mode="probe")
    params, extra = jax.eval_shape(tuned.init, KEY)
    out = jax.eval_shape(tuned.predict, params, extra, batch())
    assert out["logits"].shape == (16, 2)
    assert out["cmr/embedding"].shape == (16, 16)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"targets": ("lvef",)}, r"targets: \['lvef'\] are not binary"),
        ({"targets": ("nope",)}, r"targets: unknown \['nope'\]; the data set has lvef, lbbb"),
        ({"targets": (1, 3)}, r"targets \(1, 3\) is no range"),
        ({"targets": ("lbbb", "lbbb")}, "names a column twice"),
        ({"labels": ()}, "the data set has no targets"),
        ({"class_weights": (1.0,)}, "class_weights has 1 weights for 2 classes"),
        ({"smoothing": 1.0}, "smoothing is 1"),
        ({"mask_ratio": 0.5, "lead_mask": 0.4}, "set one kind to 0"),
        ({"lead_mask": 1.0}, r"objective\.lead_mask: "),
        ({"norm_twice": True, "encoder": {**VIT, "pooling": "cls"}}, "norm_twice repeats pool_norm"),
        ({"task": "regression", "targets": ("lvef",), "mixup": 0.2}, "are for classes"),
        ({"cutmix": -1.0}, "cutmix is -1"),
        ({"focal": -1.0}, r"objective\.focal is -1"),
        ({"hidden": -1}, r"objective\.hidden is -1 and mode 'full'"),
        ({"hidden": 8, "mode": "probe"}, r"objective\.hidden is 8 and mode 'probe'; a probe is linear"),
        ({"rhythm": True}, r"objective\.rhythm is True, but the examples are no single beats"),
        ({"rhythm": True, "mixup": 0.2, **BEAT}, "times between beats cannot be mixed"),
        (
            {"class_weights": "inverse", "labels": THREE, "targets": ()},
            r"no train example has the labels \['a'",
        ),
        (
            {"encoder": {"name": "stft_cnn"}},
            r"encoder\.name: stft_cnn reads time-frequency images, for which",
        ),
        (
            {"encoder": BEAT["encoder"], "spec": BEATS, "crop": 32},
            r"spans 40 samples, the encoder is given 32",
        ),
        ({"views": {"jiter": 0.1}}, r"objective\.views\.jiter: no field of views\. Did you mean 'jitter'"),
        ({"modality": "cmr", "encoder": RESNET, "time_mask": 0.5}, "only the tokens of a vit"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        finetune(**{**CLASSIFY, **fields})


def test_bounds_and_names_choose_columns():
    labels = [{"name": f"p{i}", "kind": "regression", "mean": float(i), "std": 1.0} for i in range(82)]
    np.testing.assert_array_equal(columns(labels, (24, 41), "t").index, np.arange(24, 41))
    chosen = columns(labels, ("p7", "p2"), "t")
    np.testing.assert_array_equal(chosen.index, [7, 2])
    np.testing.assert_array_equal(chosen.mean, [7, 2])
    assert len(columns(labels, (), "t").index) == 82
