import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from formula import Golden, fill_by_formula, merge, split, zeros

from ecgjax.losses.contrastive import info_nce
from ecgjax.models.heads import ProjectionHead
from ecgjax.models.posemb import sincos_positions
from ecgjax.models.resnet import VARIANTS, ResNet
from ecgjax.models.towers import Tower
from ecgjax.models.vit import Vit


class Towers(nnx.Module):
    """Both modalities."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.ecg = Tower(
            encoder=Vit(
                leads=12,
                length=600,
                patch=100,
                width=32,
                depth=2,
                heads=4,
                pooling="mean",
                positions="learnable",
                rngs=rngs,
            ),
            head=ProjectionHead(width_in=32, hidden=64, width=16, rngs=rngs),
        )
        self.cmr = Tower(
            encoder=ResNet(**VARIANTS["resnet18"], rngs=rngs),
            head=ProjectionHead(width_in=512, hidden=64, width=16, rngs=rngs),
        )


def lift(params):
    """The tree at the names that the torch map uses; leaves that a modality lacks stay out."""
    tree = {"ecg": params["ecg"]["encoder"], "image": params["cmr"]["encoder"]}
    heads = {"ecg_head": params["ecg"].get("head"), "image_head": params["cmr"].get("head")}
    return {**tree, **{k: v for k, v in heads.items() if v is not None}}


@pytest.fixture(scope="module")
def setting(goldens):
    golden = Golden(goldens, "mmcl_small")
    graphdef, params, stats = zeros(Towers)
    base = golden.meta["base_seed"]
    # The reference trains positions, and keeps norm and head of the encoder without using them.
    ours = [n for n in golden["grad__names"] if "encoder_ecg.norm" not in n and "encoder_ecg.head" not in n]
    fill_by_formula(lift(params), [n for n in ours if not n.endswith("pos_embed")], base)
    params["ecg"]["encoder"]["positions"] = sincos_positions(leads=12, columns=6, width=32)[None]
    stats_tree = {"image": stats["cmr"]["encoder"]}
    fill_by_formula(stats_tree, [n for n in golden["bn_after1__names"] if "running" in n], base)
    image = jnp.asarray(golden["image"].transpose(0, 2, 3, 1))
    return golden, graphdef, params, stats, image, jnp.asarray(golden["ecg"][:, 0])


def run(setting, params, stats, *, train):
    _, graphdef, _, _, image, ecg = setting
    towers = merge(graphdef, params, stats)
    return towers, towers.cmr(image, train=train), towers.ecg(ecg, train=train)


def test_evaluation_forward(setting):
    golden, _, params, stats, *_ = setting
    with jax.default_matmul_precision("highest"):
        cmr, ecg = jax.jit(lambda p, s: run(setting, p, s, train=False)[1:])(params, stats)
    golden.check("eval/img_feat", cmr["embedding"])
    golden.check("eval/z_img", cmr["projection"])
    golden.check("eval/ecg_feat", ecg["embedding"])
    golden.check("eval/z_ecg", ecg["projection"])


def test_training_loss_gradient_and_statistics(setting):
    golden, _, params, stats, *_ = setting

    def loss(params):
        towers, cmr, ecg = run(setting, params, stats, train=True)
        z0, z1 = cmr["projection"], ecg["projection"]
        return info_nce(z0, z1, temperature=0.1), (z0, z1, split(towers)[2])

    with jax.default_matmul_precision("highest"):
        (value, (z_img, z_ecg, moved)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    golden.check("train/z_img", z_img)
    golden.check("train/z_ecg", z_ecg)
    golden.check("train/loss_step0", value, floor=1e-5)
    golden.check_gradients(
        "bn_after1", {"image": moved["cmr"]["encoder"]}, floor=2e-5, only="encoder_imaging"
    )
    golden.check_gradients("grad", lift(gradients))
