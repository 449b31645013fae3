"""The downstream encoder, fine-tuning and linear probing, through the objective that does them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from formula import Golden, fill_by_formula, fill_from_state, get, path_of, positions, put

from ecgjax.core.functional import Functional
from ecgjax.core.spec import EcgSpec, InputSpec
from ecgjax.models.mae import block_masking_from_noise, kept_tokens, masking_from_noise
from ecgjax.objectives.finetune import Finetune
from ecgjax.train import optim
from ecgjax.train.groups import decay_mask, layer_scales

USES = {"vit_small": ["*"], "vit_tiny": ["*"]}

POOLINGS = {"avg": "mean", "attn": "attention", "cls": "cls"}
BLOCK_MASK = {
    "lead_ratio": 0.25,
    "time_ratio": 0.5,
}  # Of `logits_avg_blockmask`, as the goldens' README has it.
NO_DECAY = (r"(^|/)(cls_token|positions)$",)
KEY = jax.random.key(0)


@pytest.fixture(scope="module", params=list(USES))
def golden(request, goldens, precision):
    return Golden(goldens, request.param, precision)


def grid(golden):
    """Rows and columns of the tokens: a row a lead."""
    (_, leads, length), (_, patch) = golden.meta["img"], golden.meta["patch"]
    return leads, length // patch


def objective(golden, short="avg", **fields):
    """As the released code computes: the norm of the pooling acts twice, nothing is augmented."""
    (_, leads, length), (_, patch), model = golden.meta["img"], golden.meta["patch"], golden.meta["model"]
    names = tuple(f"lead{i}" for i in range(leads))
    encoder = {
        "name": "vit",
        "patch": patch,
        "width": model["embed_dim"],
        "depth": model["depth"],
        "heads": model["num_heads"],
        "pooling": POOLINGS[short],
        "positions": "learnable",
        "frequencies": "float32",  # Of the newest release, which the goldens come from.
        "dtype": golden.precision,
    }
    statistics = {"kind": "regression", "mean": 0.0, "std": 1.0}
    regressed = tuple({"name": f"y{i}", **statistics} for i in range(golden["y_reg"].shape[1]))
    return Finetune(
        spec=InputSpec(EcgSpec(names, 250.0, length, "normalised", {}), None),
        crop=length,
        labels=({"name": "y", "kind": "binary", "mean": None, "std": None}, *regressed),
        encoder=encoder,
        views="none",
        norm_twice=short != "cls",
        **{"task": "classification", "targets": ("y",), **fields},
    )


def initial(golden, tuned, short="avg"):
    """Parameters as the golden has them, and the batch statistics of a fresh head."""
    zero, extra = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, golden.precision), jax.eval_shape(tuned.init, KEY)
    )
    tree = lift(zero)
    state = golden.state(f"sd_{short}")
    if state:
        fill_from_state(tree, state)
    else:
        names = [name for name in golden["ft_grad__names"].tolist() if name != "pos_embed"]
        if short == "attn":
            names += [f"attention_pool.{part}" for part in ("in_proj_weight", "in_proj_bias")]
            names += [f"attention_pool.out_proj.{part}" for part in ("weight", "bias")]
        if short == "cls":
            names = [name.replace("fc_norm", "norm") for name in names]
        fill_by_formula(tree, names, golden.meta["base_seed"])
        rows, columns = grid(golden)
        width = golden.meta["model"]["embed_dim"]
        table = positions(golden.directory, leads=rows, columns=columns, width=width)
        put(tree, ("positions",), table[None])
    if extra["ecg"]:  # A probe's batch norm starts at mean 0 and variance 1.
        put(extra, ("ecg", "head", "norm", "var"), extra["ecg"]["head"]["norm"]["var"] + 1)
    return lower(tree), extra


def lift(params):
    """The tree at the names of the torch map."""
    return {**params["ecg"]["encoder"], "head": params["ecg"]["head"]["linear"]}


def lower(tree):
    """Reverses `lift`."""
    tree = dict(tree)
    head = tree.pop("head")
    return {"ecg": {"encoder": tree, "head": {"linear": head}}}


def batch(golden):
    label = np.concatenate([golden["y"][:, None], golden["y_reg"]], axis=1)
    return {"ecg": golden.input("x")[:, 0], "label": jnp.asarray(label, golden.precision)}


def test_embedding_logits_and_attention(golden):
    for short in POOLINGS:
        tuned = objective(golden, short)
        params, extra = initial(golden, tuned, short)

        def forward(params, extra, inputs, tuned=tuned):
            encoder = Functional(tuned._encoder)
            attention, _ = encoder.apply(params["ecg"]["encoder"], {}, inputs["ecg"], method="last_attention")
            return tuned.predict(params, extra, inputs), attention

        out, attention = jax.jit(forward)(params, extra, batch(golden))
        golden.check(f"feat_{short}", out["ecg/embedding"])
        golden.check(f"logits_{short}", out["logits"])
        # The released code shuffles the tokens even when it hides none, and its map is in that order.
        order = 1 + np.argsort(golden["noise"], axis=1, kind="stable")
        order = np.concatenate([np.zeros_like(order[:, :1]), order], axis=1)
        maps = np.asarray(attention)
        shuffled = np.stack([m[:, o][:, :, o] for m, o in zip(maps, order, strict=True)])
        samples, _, queries, _ = golden[f"attnmap_last_{short}"].shape
        golden.check(f"attnmap_last_{short}", shuffled[:samples, :, :queries])


def test_masked_tokens(golden):
    tuned = objective(golden)
    params, extra = initial(golden, tuned)
    rows, columns = grid(golden)
    keeps = {
        "logits_avg_blockmask": block_masking_from_noise(
            golden.input("noise_c"),
            golden.input("noise_t"),
            kept_rows=kept_tokens(rows, BLOCK_MASK["lead_ratio"]),
            kept_columns=kept_tokens(columns, BLOCK_MASK["time_ratio"]),
        )
    }
    for key in golden.files:
        if found := re.fullmatch(r"logits_avg_mask([\d.]+)", key):
            kept = kept_tokens(rows * columns, float(found[1]))
            keeps[key] = masking_from_noise(golden.input("noise"), kept=kept).keep
    assert len(keeps) > 1
    ecg = batch(golden)["ecg"]
    for key, keep in keeps.items():
        out, _ = jax.jit(lambda p, k: tuned._model.apply(p["ecg"], extra["ecg"], ecg, keep=k))(params, keep)
        golden.check(key, out["logits"])


def test_fine_tuning_steps(golden):
    settings = golden.meta["ft"]
    weights = tuple(golden["class_weight"].tolist())
    tuned = objective(golden, class_weights=weights, smoothing=settings["smoothing"])
    params, extra = initial(golden, tuned)
    start = params
    tx, _ = optim.build(
        {
            "name": "adamw",
            "b1": settings["betas"][0],
            "b2": settings["betas"][1],
            "weight_decay": settings["wd"],
            "no_decay": NO_DECAY,
            "layer_decay": golden.meta["layer_decay"],
            "schedule": {"name": "constant", "learning_rate": settings["lr"]},
        },
        steps=2,
    )

    @jax.jit
    def step(params, moments):
        def loss(params):
            return tuned.loss(params, extra, batch(golden), KEY, train=True)[0]

        value, gradients = jax.value_and_grad(loss)(params)
        updates, moments = tx.update(gradients, moments, params)
        return value, gradients, optax.apply_updates(params, updates), moments

    moments = tx.init(params)
    for number in range(2):
        value, gradients, params, moments = step(params, moments)
        golden.check(f"ft_loss_step{number}", value, floor=1e-5)
        if not number:
            golden.check_gradients("ft_grad", lift(gradients))
    golden.check_parameters("ft_after2", lift(params), start=lift(start), steps=2, rate=settings["lr"])


def test_rates_and_decay_of_the_layers(golden):
    tuned = objective(golden)
    tree = lift(initial(golden, tuned)[0])
    scales = layer_scales(tree, golden.meta["layer_decay"])
    decayed = decay_mask(tree, NO_DECAY)
    names = golden["lrd_names"].tolist()
    assert len(set(map(path_of, names))) == len(jax.tree.leaves(tree))
    got = [get(scales, path_of(name)) for name in names]
    golden.check("lrd_scale", np.asarray(got, golden.precision))
    got = [golden.meta["ft"]["wd"] * get(decayed, path_of(name)) for name in names]
    golden.check("lrd_wd", np.asarray(got, golden.precision))


def test_squared_error(golden):
    names = tuple(f"y{i}" for i in range(golden["y_reg"].shape[1]))
    tuned = objective(golden, task="regression", targets=names)
    params, extra = initial(golden, tuned)
    value, _ = jax.jit(lambda p: tuned.loss(p, extra, batch(golden), KEY, train=True))(params)
    golden.check("ft_mse", value, floor=1e-5)


def test_linear_probe(golden):
    settings = golden.meta["lp"]
    tuned = objective(golden, mode="probe")
    params, extra = initial(golden, tuned)
    tx, _ = optim.build(
        {
            "name": "lars",
            "momentum": settings["momentum"],
            "trust": settings["trust"],
            "weight_decay": settings["wd"],
            "schedule": {"name": "constant", "learning_rate": settings["lr"]},
        },
        steps=3,
        frozen=tuned.frozen_paths,
    )
    body = params["ecg"]["encoder"]

    @jax.jit
    def step(params, extra, moments):
        def loss(params):
            value, aux = tuned.loss(params, extra, batch(golden), KEY, train=True)
            return value, aux.extra

        (value, extra), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, moments = tx.update(gradients, moments, params)
        return value, extra, optax.apply_updates(params, updates), moments

    ecg = batch(golden)["ecg"]
    out, _ = jax.jit(lambda p, e: tuned._model.apply(p["ecg"], e["ecg"], ecg, train=True))(params, extra)
    golden.check("lp_logits_train", out["logits"])
    moments = tx.init(params)
    for number in range(3):
        value, extra, params, moments = step(params, extra, moments)
        golden.check(f"lp_loss_step{number}", value, floor=1e-5)
    for before, after in zip(*map(jax.tree.leaves, (body, params["ecg"]["encoder"])), strict=True):
        np.testing.assert_array_equal(before, after)
    head, norm = params["ecg"]["head"]["linear"], extra["ecg"]["head"]["norm"]
    golden.check("lp_head_w_after3", head["kernel"].T)
    golden.check("lp_head_b_after3", head["bias"])
    golden.check("lp_bn_mean_after3", norm["mean"])
    golden.check("lp_bn_var_after3", norm["var"])
    golden.check("lp_logits_eval_after3", jax.jit(tuned.predict)(params, extra, batch(golden))["logits"])
