"""The contrastive model: both towers, local and global, its maps, and training with coupled decay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from formula import Golden, draw, fill_by_formula, merge, positions, split, zeros

from ecgjax.losses.contrastive import info_nce, similarity
from ecgjax.models import localisation as maps
from ecgjax.models.heads import ProjectionHead
from ecgjax.models.resnet import VARIANTS, ResNet
from ecgjax.models.towers import Tower
from ecgjax.models.vit import Vit
from ecgjax.train.optim import adam_l2

USES = {"mmcl_small": ["*"], "mmcl_r50_210": ["*"]}

UNUSED = tuple(f"encoder_ecg.{layer}.{leaf}" for layer in ("norm", "head") for leaf in ("weight", "bias"))
"""What the reference's encoder holds and does not use where it pools patch tokens: it gets no gradient and no decay."""

CRITERION = "classifier_criterion.weight"
"""A buffer of the online classifier, which takes no part."""


def ecg_encoder(golden, pooling):
    config, sizes = golden.meta["hparams"], golden.meta["ecg_model"]
    _, leads, length = config["input_size"]
    return Vit(
        leads=leads,
        length=length,
        patch=config["patch_size"][1],
        patch_leads=config["patch_size"][0],
        width=sizes["embed_dim"],
        depth=sizes["depth"],
        heads=sizes["num_heads"],
        drop_path=config["drop_path"],
        pooling=pooling,
        positions="learnable",
        dtype=golden.precision,
        rngs=nnx.Rngs(0),
    )


class Towers(nnx.Module):
    """Both modalities."""

    def __init__(self, golden):
        config, rngs = golden.meta["hparams"], nnx.Rngs(0)
        towers = {
            "ecg": ecg_encoder(golden, "mean"),
            "cmr": ResNet(**VARIANTS[config["model"]], dtype=golden.precision, rngs=rngs),
        }
        for name, encoder in towers.items():
            head = ProjectionHead(
                width_in=encoder.width,
                hidden=config["embedding_dim"],
                width=config["projection_dim"],
                dtype=golden.precision,
                rngs=rngs,
            )
            setattr(self, name, Tower(encoder=encoder, head=head))


def lift(params):
    """The tree at the names that the torch map uses."""
    return {
        "ecg": params["ecg"]["encoder"],
        "image": params["cmr"]["encoder"],
        "ecg_head": params["ecg"]["head"],
        "image_head": params["cmr"]["head"],
    }


def write_positions(golden, encoder):
    config = golden.meta["hparams"]
    columns = config["input_size"][2] // config["patch_size"][1]
    width = golden.meta["ecg_model"]["embed_dim"]
    table = positions(golden.directory, leads=config["input_size"][1], columns=columns, width=width)
    encoder["positions"] = jnp.asarray(table[None], golden.precision)


@pytest.fixture(scope="module", params=USES)
def setting(request, goldens, precision):
    golden = Golden(goldens, request.param, precision)
    graphdef, params, stats = zeros(lambda: Towers(golden))
    base = golden.meta["base_seed"]
    names = [name for name in golden["grad__names"].tolist() if not name.endswith("pos_embed")]
    assert not set(names) & set(UNUSED)
    fill_by_formula(lift(params), names, base)
    write_positions(golden, params["ecg"]["encoder"])
    names = [name for name in golden["bn_after1__names"].tolist() if name != CRITERION]
    fill_by_formula({"image": stats["cmr"]["encoder"]}, names, base)
    size, b = golden.meta["img_size"], golden.meta["B"]
    if "image" in golden:
        image = golden.input("image")
    else:
        drawn = np.random.RandomState(base + 21).rand(b, 3, size, size).astype(np.float32)
        image = jnp.asarray(drawn, precision)
    assert image.shape == (b, 3, size, size)
    return golden, graphdef, params, stats, image.transpose(0, 2, 3, 1), golden.input("ecg")[:, 0]


def localised(towers, cmr, ecg, image_shape, config):
    """Local projections of the first samples and every map, by the golden's name."""
    leads, length = config["input_size"][1:]
    options = {"temperature": config["temp"]}
    cmr_local = towers.cmr.head(maps.upsample_image(cmr["map"], factor=config["upsample_factor_img"]))
    # As one row, where the end of a lead mixes with the start of the next.
    tokens = maps.upsample_tokens(ecg["local_tokens"], rows=1, factor=config["upsample_factor_ecg"])
    tokens = tokens.reshape(len(tokens), leads, -1, tokens.shape[-1])
    ecg_local = towers.ecg.head(tokens)
    image = maps.importance(cmr_local, ecg["projection"], **options)
    signal = maps.importance(ecg_local, cmr["projection"], **options)
    return {
        "eval/z_img_local": cmr_local,
        "eval/z_ecg_local": ecg_local.reshape(len(ecg_local), -1, ecg_local.shape[-1]),
        "loc/image": image,
        "loc/ecg": signal,
        "loc/image_softmax": maps.softmax_map(image),
        "loc/ecg_softmax": maps.softmax_map(signal),
        "loc/pairwise": maps.pairwise_importance(ecg_local, cmr_local, **options),
        "loc/pairwise_softmax": maps.pairwise_importance(ecg_local, cmr_local, softmax=True, **options),
        "loc/image_full": maps.resize_image(image, height=image_shape[0], width=image_shape[1]),
        "loc/ecg_full": maps.resize_time(signal, length=length),
    }


def attention_within_lead(attention, *, rows):
    """The reference's plot: of the first lead's patches among themselves, mean over queries, length 1, softmax."""
    own = slice(1, 1 + (attention.shape[-1] - 1) // rows)
    received = attention[:, :, own, own].mean(2)
    return jax.nn.softmax(received / jnp.linalg.norm(received, axis=-1, keepdims=True), axis=-1)


def test_features_projections_and_maps(setting):
    golden, graphdef, params, stats, image, ecg = setting
    config = golden.meta["hparams"]
    assert not config["use_softmax"]

    @jax.jit
    def evaluate(params, stats):
        towers = merge(graphdef, params, stats)
        out = {"img": towers.cmr(image, train=False), "ecg": towers.ecg(ecg, train=False)}
        got = {f"eval/{name}_feat": value["embedding"] for name, value in out.items()}
        got |= {f"eval/z_{name}": value["projection"] for name, value in out.items()}
        attention = attention_within_lead(
            towers.ecg.encoder.last_attention(ecg), rows=config["input_size"][1]
        )
        got["loc/attn_lead0_full"] = maps.resize_time(attention, length=config["input_size"][2])
        return got | localised(towers, out["img"], out["ecg"], image.shape[1:3], config)

    got = evaluate(params, stats)
    pooled = {"eval/ecg_feat_cls", "eval/ecg_feat_attn"}
    wanted = {key for key in golden.files if key.startswith(("eval/", "loc/"))} - pooled
    assert wanted == got.keys()
    for key, value in got.items():
        golden.check(key, value[: len(golden[key])])  # Of some the first samples are stored.


@pytest.mark.parametrize(("key", "pooling"), [("cls", "cls"), ("attn", "attention")])
def test_features_of_the_other_poolings(setting, key, pooling):
    golden, *_, ecg = setting
    if f"eval/ecg_feat_{key}" not in golden:
        pytest.skip("stored for the small model only")
    graphdef, params, _ = zeros(lambda: ecg_encoder(golden, pooling))
    names = [name for name in golden["grad__names"].tolist() if name.startswith("encoder_ecg.")]
    names = [name for name in names if not name.endswith("pos_embed")]
    if pooling == "cls":
        names = [name.replace("fc_norm", "norm") for name in names]
    else:
        pool = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
        names += [f"encoder_ecg.attention_pool.{name}" for name in pool]
    fill_by_formula({"ecg": params}, names, golden.meta["base_seed"])
    write_positions(golden, params)
    got = jax.jit(lambda p: merge(graphdef, p)(ecg)["embedding"])(params)
    golden.check(f"eval/ecg_feat_{key}", got)


def test_training_with_coupled_decay(setting):
    golden, graphdef, params, stats, image, ecg = setting
    config, adam = golden.meta["hparams"], golden.meta["adam"]
    temperature = config["temperature"]
    optimizer = adam_l2(
        schedule=optax.constant_schedule(adam["lr"]),
        b1=adam["betas"][0],
        b2=adam["betas"][1],
        eps=adam["eps"],
        weight_decay=adam["wd_l2"],
    )

    def loss(params, stats):
        towers = merge(graphdef, params, stats)
        z_img, z_ecg = (t(x, train=True)["projection"] for t, x in ((towers.cmr, image), (towers.ecg, ecg)))
        value = info_nce(z_img, z_ecg, temperature=temperature, balance=config["lambda_0"])
        logits = similarity(z_img, z_ecg) / temperature
        return value, ({"z_img": z_img, "z_ecg": z_ecg, "logits": logits}, split(towers)[2])

    @jax.jit
    def step(params, stats, moments):
        (value, (out, stats)), gradients = jax.value_and_grad(loss, has_aux=True)(params, stats)
        updates, moments = optimizer.update(gradients, moments, params)
        return optax.apply_updates(params, updates), stats, moments, value, out, gradients

    start = jax.tree.map(lambda leaf: jnp.asarray(leaf, golden.precision), params)
    moments = optimizer.init(start)
    now, now_stats = start, stats
    for number in range(sum(key.startswith("train/loss_step") for key in golden.files)):
        now, now_stats, moments, value, out, gradients = step(now, now_stats, moments)
        golden.check(f"train/loss_step{number}", value, floor=1e-5)
        done = f"after{number + 1}"
        if number == 0:
            for name, got in out.items():
                golden.check(f"train/{name}", got)
            golden.check_gradients("grad", lift(gradients))
            golden.check_gradients(
                "bn_after1", {"image": now_stats["cmr"]["encoder"]}, floor=2e-5, skip=(CRITERION,)
            )
        if f"{done}__names" in golden:
            golden.check_parameters(
                done, lift(now), start=lift(start), steps=number + 1, rate=adam["lr"], skip=UNUSED
            )


def test_what_the_reference_holds_unused_stays_as_drawn(setting):
    golden, *_ = setting
    base = golden.meta["base_seed"]
    trained = set(golden["grad__names"].tolist())
    seen = 0
    for prefix in ("after1", "after3", "bn_after1"):
        if f"{prefix}__names" not in golden:
            continue
        names, norms, firsts = (golden[f"{prefix}__{part}"] for part in ("names", "norm", "first16"))
        idle = [n for n in names.tolist() if n not in trained and "running" not in n]
        assert sorted(idle) == sorted(UNUSED if prefix != "bn_after1" else (CRITERION,))
        for name, norm, first in zip(names.tolist(), norms, firsts, strict=True):
            if name in idle:
                drawn = draw(name, shape_of(golden, name), base).ravel()
                np.testing.assert_allclose(np.linalg.norm(drawn.astype(np.float64)), norm, rtol=1e-6)
                np.testing.assert_array_equal(np.resize(drawn[:16], min(16, drawn.size)), first[: drawn.size])
                seen += 1
    assert seen


def shape_of(golden, name):
    """Of a tensor that we have no leaf for."""
    width, classes = golden.meta["ecg_model"]["embed_dim"], golden.meta["hparams"]["num_classes"]
    return {
        "encoder_ecg.norm.weight": (width,),
        "encoder_ecg.norm.bias": (width,),
        "encoder_ecg.head.weight": (classes, width),
        "encoder_ecg.head.bias": (classes,),
        CRITERION: (classes,),
    }[name]
