"""Published files, converted as a user would, predict what the reference computed with these weights.

Workdirs hold float32, so there is one precision.
"""

import jax
import published
import pytest
from etils import epath
from formula import Golden

from ecgjax.runs import converting, opening
from ecgjax.weights.conversion import Wishes
from ecgjax.weights.files import write_torch

USES = {
    "vit_small": ["sd_*", "x", "feat_*", "logits_avg", "logits_attn", "logits_cls"],
    "mmcl_small": [
        "eval/img_feat",
        "eval/z_img",
        "eval/ecg_feat",
        "eval/z_ecg",
        "image",
        "ecg",
        "grad__names",
    ],
}
PRECISIONS = ("float32",)
POOLINGS = {"avg": "mean", "attn": "attention", "cls": "cls"}


def predict(file, batch, tmp_path, **wishes):
    """What a workdir made of `file` predicts; also its config."""
    write_torch(tmp_path / "weights.ckpt", file)
    converting.to_workdir(tmp_path / "weights.ckpt", epath.Path(tmp_path / "run"), Wishes(**wishes))
    trained = opening.open_checkpoint(tmp_path / "run", 0)
    with jax.default_matmul_precision("highest"):
        return opening.predictor(trained)(batch), trained.meta["config"]["objective"]


@pytest.mark.parametrize("short", POOLINGS)
def test_an_encoder_of_a_file_gives_the_embedding_of_the_reference(goldens, short, tmp_path):
    golden = Golden(goldens, "vit_small")
    pooling = "cls" if short == "cls" else None  # The file itself tells the two others.
    heads = golden.meta["model"]["num_heads"]
    file, batch = {"model": golden.state(f"sd_{short}")}, {"ecg": golden["x"][:, 0]}
    out, objective = predict(file, batch, tmp_path, pooling=pooling, heads=heads)
    assert objective["ecg"]["pooling"] == POOLINGS[short]
    golden.check(f"feat_{short}", out["ecg/embedding"])
    golden.check(f"logits_{short}", out["logits"])


def test_a_full_contrastive_checkpoint_gives_both_embeddings_and_projections(goldens, tmp_path):
    golden = Golden(goldens, "mmcl_small")
    ecg, settings = golden.meta["ecg_model"], golden.meta["hparams"]
    (_, leads, length), (_, patch) = settings["input_size"], settings["patch_size"]
    shapes = published.transformer(
        ecg["embed_dim"], ecg["depth"], leads=leads, columns=length // patch, patch=patch
    )
    shapes = published.prefixed("encoder_ecg.", shapes)
    shapes |= published.prefixed(
        "encoder_ecg.fc_norm.", {"weight": (ecg["embed_dim"],), "bias": (ecg["embed_dim"],)}
    )
    shapes |= published.resnet((2, 2, 2, 2), (64, 128, 256, 512))
    shapes |= published.heads(ecg["embed_dim"], 512, settings["embedding_dim"], settings["projection_dim"])
    assert {n for n in golden["grad__names"] if not n.startswith("encoder_ecg.head")} <= shapes.keys()
    state = published.by_formula(shapes, base=golden.meta["base_seed"], leads=leads)
    batch = {"ecg": golden["ecg"][:, 0], "cmr": golden["image"].transpose(0, 2, 3, 1)}
    out, objective = predict({"state_dict": state}, batch, tmp_path, heads=ecg["num_heads"])
    assert objective["name"] == "cross_modal"
    golden.check("eval/ecg_feat", out["ecg/embedding"])
    golden.check("eval/z_ecg", out["ecg/projection"])
    golden.check("eval/img_feat", out["cmr/embedding"])
    golden.check("eval/z_img", out["cmr/projection"])
