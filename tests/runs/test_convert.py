"""Published PyTorch weights to a workdir, and back."""

import argparse
import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import published
import pyarrow.parquet
import pytest
from etils import epath
from test_workdirs import evaluation, parsed

from configs import prepare
from ecgjax.core import config as configs
from ecgjax.core import mesh as meshes
from ecgjax.core import runtime, trees
from ecgjax.core.files import read_json
from ecgjax.data.manifest import read_manifest
from ecgjax.formats.recording import LEADS
from ecgjax.jobs import convert as convert_job
from ecgjax.jobs import evaluate as evaluate_job
from ecgjax.jobs import export as export_job
from ecgjax.models.posemb import sincos_positions
from ecgjax.runs import converting, describing, evaluating, initial, opening, training
from ecgjax.runs.assemble import make_objective
from ecgjax.signals.input_specs import cmr_spec, ecg_spec
from ecgjax.train import checkpoint
from ecgjax.train.state import TrainState
from ecgjax.weights.conversion import Wishes
from ecgjax.weights.files import read_safetensors, read_torch, write_safetensors, write_torch

ECG = published.transformer(16, 1)
MASKED = {**ECG, **published.decoder(8, 1, encoder_width=16)}
IMAGE = published.resnet()
LIGHTNING = {
    **published.prefixed("encoder_ecg.", ECG),
    **IMAGE,
    **published.heads(16, 8),
    "classifier.model.weight": (2, 16),
    "criterion_train.weight": (2,),
}
HEADS = {"heads": 2, "decoder_heads": 2}


@pytest.fixture(autouse=True)
def _no_process_wide_settings(monkeypatch):
    monkeypatch.setattr(runtime, "start", lambda **_: None)


def flagged(**values):
    standard = {
        "dry_run": False,
        "pooling": None,
        "leads": None,
        "rate_hz": 500.0,
        "length": 5000,
        "crop": None,
    }
    standard |= {"heads": 2, "decoder_heads": 2, "data": None, "step": None, "part": None, "omit": []}
    return parsed(**(standard | values))


def run(source, target, **values):
    assert convert_job.run(flagged(**{"from": str(source), "to": str(target)}, **values)) == 0


@pytest.fixture(scope="module")
def spec(tiny_data):
    return read_manifest(tiny_data).input_spec


@pytest.fixture(scope="module")
def workdirs(spec, tiny_data, tmp_path_factory):
    """The layouts of published files as files and as workdirs on the tiny cohort; read only."""
    root = epath.Path(tmp_path_factory.mktemp("converted"))
    tuned = {**ECG, "fc_norm.weight": (16,), "fc_norm.bias": (16,), "head.weight": (2, 16), "head.bias": (2,)}
    probe = {**published.norm("head.0", 16, affine=False), "head.1.weight": (3, 16), "head.1.bias": (3,)}
    probe = {**{n: s for n, s in tuned.items() if not n.startswith(("head", "norm"))}, **probe}
    layouts = {
        "mdm": {"model": published.by_formula(MASKED), "epoch": 399},
        "cosine": {"model": published.by_formula({**MASKED, **published.negative_free(16)})},
        "probe": {"model": published.by_formula(probe)},
        "mmcl": {"model": published.by_formula(ECG, moved_positions=True)},
        "image": {"state_dict": published.by_formula(IMAGE)},
        "both": {
            "state_dict": published.by_formula(LIGHTNING, moved_positions=True),
            "hyper_parameters": {"lr": 1.0},
        },
        "tuned": {"model": published.by_formula(tuned, moved_positions=True)},
    }
    for name, tree in layouts.items():
        write_torch(root / f"{name}.pth", tree)
        converting.to_workdir(root / f"{name}.pth", root / name, Wishes(spec=spec, **HEADS), data=tiny_data)
    return root


@pytest.mark.parametrize(
    ("name", "objective", "pooling"),
    [
        ("mdm", "masked", "mean_of_normed"),
        ("cosine", "masked", "mean_of_normed"),
        ("mmcl", "encoder", "mean"),
        ("image", "encoder", None),
        ("both", "cross_modal", "mean"),
        ("tuned", "encoder", "mean"),
        ("probe", "encoder", "mean"),
    ],
)
def test_every_layout_becomes_an_objective(workdirs, name, objective, pooling):
    config = read_json(workdirs / name / "config.json")
    assert config["objective"]["name"] == objective
    section = opening.encoder_section(config, "ecg")
    assert (section and section["pooling"]) == pooling
    assert sorted(path.name for path in (workdirs / name).iterdir()) == [
        "TRAINED",
        "checkpoints",
        "config.json",
        "convert.txt",
        "input_spec.json",
    ]
    assert checkpoint.steps(workdirs / name) == [0]


def test_the_account_names_every_tensor(workdirs):
    for name in ("mdm", "cosine", "mmcl", "image", "both", "tuned", "probe"):
        text = (workdirs / name / "convert.txt").read_text()
        tree = read_torch(workdirs / f"{name}.pth")
        for tensor in tree.get("model", tree.get("state_dict")):
            assert tensor in text or tensor.endswith("num_batches_tracked"), tensor
    text = (workdirs / "mmcl" / "convert.txt").read_text()
    assert "as drawn: ecg/encoder/pool_norm/scale (16,)" in text
    assert "no place: norm.weight (16,) float32" in text
    assert "no place: classifier.model.weight" in (workdirs / "both" / "convert.txt").read_text()
    assert "equal to our fixed table: decoder_pos_embed" in (workdirs / "mdm" / "convert.txt").read_text()


@pytest.mark.parametrize("name", ["mdm", "cosine", "image", "tuned", "probe", "both"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_round_trip_keeps_every_bit(workdirs, tmp_path, name, suffix):
    converting.to_file(workdirs / name, tmp_path / f"back{suffix}")
    before = read_torch(workdirs / f"{name}.pth")
    before = before.get("model", before.get("state_dict"))
    if suffix == ".pth":
        (key, after), *rest = read_torch(tmp_path / "back.pth").items()
        assert not rest
        assert key == ("model" if name in ("mdm", "cosine", "tuned", "probe") else "state_dict")
    else:
        after = read_safetensors(tmp_path / "back.safetensors")
    text = (workdirs / name / "convert.txt").read_text()
    lost = {n for n in before if f"no place: {n} " in text}
    added = {"encoder_ecg.fc_norm.weight", "encoder_ecg.fc_norm.bias"} if name == "both" else set()
    assert after.keys() == before.keys() - lost | added
    for tensor in after.keys() - added:
        assert after[tensor].dtype == before[tensor].dtype
        np.testing.assert_array_equal(after[tensor], before[tensor], err_msg=tensor)


def test_our_own_run_goes_to_torch_and_back_bit_by_bit(workdirs, spec, tmp_path):
    ours = opening.open_checkpoint(workdirs / "both", 0)
    converting.to_file(workdirs / "both", tmp_path / "a.pth")
    converting.to_workdir(tmp_path / "a.pth", epath.Path(tmp_path / "run"), Wishes(spec=spec, **HEADS))
    again = opening.open_checkpoint(tmp_path / "run", 0)
    assert trees.digest(again.params) == trees.digest(ours.params)
    assert trees.digest(again.extra) == trees.digest(ours.extra)


def test_one_tower_of_two_is_written_like_the_published_files(workdirs, tmp_path):
    converting.to_file(workdirs / "both", tmp_path / "ecg.pth", part="ecg", omit=["fc_norm"])
    assert read_torch(tmp_path / "ecg.pth")["model"].keys() == ECG.keys() - {"norm.weight", "norm.bias"}
    converting.to_file(workdirs / "both", tmp_path / "cmr.pth", part="cmr")
    assert read_torch(tmp_path / "cmr.pth")["state_dict"].keys() == IMAGE.keys()
    with pytest.raises(ValueError, match=r"--part=cmr: .*mdm has no cmr, only ecg"):
        converting.to_file(workdirs / "mdm", tmp_path / "x.pth", part="cmr")
    with pytest.raises(ValueError, match="exists; choose another name"):
        converting.to_file(workdirs / "mdm", tmp_path / "cmr.pth")


@pytest.mark.parametrize("name", ["mdm", "mmcl", "image"])
def test_a_converted_workdir_is_evaluated_and_exported_as_our_own(workdirs, name):
    assert evaluating.evaluate(workdirs / name, 0, crops=1) == 0
    modality = "cmr" if name == "image" else "ecg"
    results = read_json(workdirs / name / "results" / "linear_probe" / "0.json")
    assert results["objective"] == ("masked" if name == "mdm" else "encoder")
    settings = {
        "step": "last",
        "crops": 1,
        "keys": None,
        "splits": ["test"],
        "data": None,
        "plot": None,
        "compile_cache": None,
    }
    output = str(workdirs / name / "out")
    assert export_job.run(parsed(workdir=str(workdirs / name), output=output, **settings)) == 0
    (table,) = epath.Path(output).glob("*.parquet")
    column = pyarrow.parquet.read_table(table)[f"{modality}/embedding"].to_pylist()
    assert np.shape(column) == (48, {"ecg": 16, "cmr": 8}[modality])
    assert np.isfinite(column).all()
    assert np.std(column, axis=0).min() > 0


def test_the_readout_of_a_fine_tuned_file_comes_along(workdirs):
    """Unless tokens are pooled otherwise than it was trained on."""
    for name, outputs, mode in (("tuned", 2, "full"), ("probe", 3, "probe")):
        trained = opening.open_checkpoint(workdirs / name, 0)
        section = trained.meta["config"]["objective"]
        assert (section["outputs"], section["mode"], section["norm_twice"]) == (outputs, mode, True)
        out = jax.eval_shape(
            trained.objective.predict, trained.params, trained.extra, {"ecg": np.ones((4, 12, 100))}
        )
        assert out["logits"].shape == (4, outputs)
    run(workdirs / "tuned.pth", workdirs / "tuned_cls", pooling="cls")
    assert "outputs" not in read_json(workdirs / "tuned_cls" / "config.json")["objective"]
    assert "no place: head.weight (2, 16)" in (workdirs / "tuned_cls" / "convert.txt").read_text()


def test_inspect_describes_a_converted_workdir(workdirs):
    said = "\n".join(describing.describe_workdir(workdirs / "mmcl"))
    assert "converted from mmcl.pth" in said
    assert "no place: norm.weight" in said


def test_training_starts_from_a_converted_workdir_and_never_in_one(workdirs, spec, masked_config, tmp_path):
    config = masked_config
    config.data.crop, config.objective.encoder.positions = 200, "learnable"
    config.init_from.update(
        {"workdir": str(workdirs / "mmcl"), "rules": ((r"^ecg/encoder/", "ecg/encoder/"),)}
    )
    assert training.train(config, epath.Path(tmp_path / "run"), dry_run=True) == 0
    with pytest.raises(ValueError, match="belongs to another config"):
        training.train(config, workdirs / "mmcl")
    plain = configs.plain(config)
    target = make_objective(plain["objective"], spec=spec, crop=200, labels=())
    state = TrainState(jnp.zeros((), jnp.int32), *jax.eval_shape(target.init, jax.random.key(0)), ())
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    leaves, (account,) = initial._copy(state, initial.open_sources(plain, spec, state, mesh))
    assert account.resized == ("ecg/encoder/positions: 24 to 48 positions",)
    kernel = read_torch(workdirs / "mmcl.pth")["model"]["blocks.0.attn.qkv.weight"].T
    np.testing.assert_array_equal(leaves["ecg/encoder/blocks/0/attention/qkv/kernel"], kernel)


def test_the_objective_encoder_is_not_offered_to_training(make_masked_config, tmp_path):
    config = make_masked_config()
    config.objective = {"name": "encoder", "ecg": {"name": "vit", "variant": "tiny", "patch": 50}}
    with pytest.raises(ValueError, match=r"config\.objective\.name: unknown 'encoder'"):
        training.train(config, epath.Path(tmp_path))


def test_the_objective_encoder_says_why_it_has_no_loss(workdirs):
    objective = opening.open_checkpoint(workdirs / "mmcl", 0).objective
    with pytest.raises(ValueError, match="converted weights can be evaluated, exported, or initialised from"):
        objective.loss({}, {}, {}, jax.random.key(0), train=True)


def test_without_data_the_input_is_conditioned_as_in_the_paper(tmp_path):
    write_torch(tmp_path / "a.pth", {"state_dict": published.by_formula(LIGHTNING)})
    run(tmp_path / "a.pth", tmp_path / "run")
    spec = opening.open_checkpoint(tmp_path / "run", 0).spec
    ptbxl, paper = prepare.get_config("ptbxl500"), prepare.get_config("paper")
    assert spec.ecg == ecg_spec(ptbxl.ecg.conditioning.to_dict(), LEADS, ptbxl.ecg.rate_hz, ptbxl.ecg.length)
    sizes = (paper.cmr.height, paper.cmr.width, paper.cmr.pixel_mm)
    assert spec.cmr == cmr_spec(paper.cmr.conditioning.to_dict(), *sizes)
    assert read_json(tmp_path / "run" / "config.json")["data"]["crop"] == 100
    with pytest.raises(ValueError, match="converted and knows no data; give it as --data=DIR"):
        evaluate_job.run(evaluation(tmp_path / "run"))


def test_pooling_leads_and_crop_may_be_chosen(tmp_path):
    write_torch(tmp_path / "a.pth", {"model": published.by_formula(MASKED)})
    run(tmp_path / "a.pth", tmp_path / "cls", pooling="cls", crop=150)
    trained = opening.open_checkpoint(tmp_path / "cls", 0)
    assert trained.meta["config"]["objective"]["name"] == "masked"
    assert trained.params["ecg"]["encoder"]["positions"].shape == (1, 37, 16)
    assert (
        "resized in time (bicubic): pos_embed (1, 25, 16)" in (tmp_path / "cls" / "convert.txt").read_text()
    )
    run(tmp_path / "a.pth", tmp_path / "mean", pooling="mean")
    assert read_json(tmp_path / "mean" / "config.json")["objective"]["name"] == "encoder"
    assert "no place: decoder_embed.weight" in (tmp_path / "mean" / "convert.txt").read_text()
    three = published.by_formula(published.transformer(16, 1, leads=3), leads=3)
    write_torch(tmp_path / "b.pth", {"model": three, "args": {}})
    run(tmp_path / "b.pth", tmp_path / "three", leads=["I", "II", "V2"])
    assert opening.open_checkpoint(tmp_path / "three", 0).spec.ecg.leads == ("I", "II", "V2")
    with pytest.raises(ValueError, match="6 positions are no whole number of columns for 12 rows"):
        run(tmp_path / "b.pth", tmp_path / "twelve")


def test_patches_of_several_leads_are_told_from_the_kernel(tmp_path):
    shapes = published.transformer(16, 1, patch_leads=3)
    state = published.by_formula(shapes, leads=4)
    write_torch(tmp_path / "a.pth", {"model": state})
    run(tmp_path / "a.pth", tmp_path / "run")
    section = opening.open_checkpoint(tmp_path / "run", 0).meta["config"]["objective"]["ecg"]
    assert (section["patch_leads"], section["patch"], section["positions"]) == (3, 50, "fixed")
    converting.to_file(epath.Path(tmp_path / "run"), tmp_path / "back.pth")
    back = read_torch(tmp_path / "back.pth")["model"]
    for name in back.keys() & state.keys():
        np.testing.assert_array_equal(back[name], state[name], err_msg=name)


def test_settings_of_masked_pre_training_come_along(tmp_path):
    """As its checkpoints hold them, in an argparse.Namespace."""
    torch = pytest.importorskip("torch")
    state = published.by_formula({**MASKED, **published.negative_free(16)})
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
    args = argparse.Namespace(
        input_size=(1, 12, 100), mask_ratio=0.75, ncc_weight=0.5, cos_weight=0.2, blr=1e-5
    )
    torch.save({"model": tensors, "args": args, "epoch": 3}, tmp_path / "a.pth")
    run(tmp_path / "a.pth", tmp_path / "run")
    objective = read_json(tmp_path / "run" / "config.json")["objective"]
    assert (objective["mask_ratio"], objective["ncc_weight"], objective["cosine_weight"]) == (0.75, 0.5, 0.2)
    assert (objective["projector_hidden"], objective["predictor_hidden"]) == (32, 8)


def test_tables_of_both_generations_stay_fixed_bit_by_bit(tmp_path):
    shapes = {
        **published.transformer(16, 1, columns=25),
        **published.decoder(8, 1, encoder_width=16, tokens=300),
    }
    state = published.by_formula(shapes)
    for name in ("pos_embed", "decoder_pos_embed"):
        width = state[name].shape[-1]
        state[name] = sincos_positions(leads=12, columns=25, width=width, frequencies="float32")[None]
        assert not np.array_equal(state[name][0], sincos_positions(leads=12, columns=25, width=width))
    write_torch(tmp_path / "a.pth", {"model": state})
    run(tmp_path / "a.pth", tmp_path / "run")
    section = read_json(tmp_path / "run" / "config.json")["objective"]["encoder"]
    assert (section["positions"], section["frequencies"]) == ("fixed", "float32")
    run(tmp_path / "run", tmp_path / "back.pth")
    back = read_torch(tmp_path / "back.pth")["model"]
    for name, value in state.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)


def test_half_precision_and_safetensors_are_read(tmp_path):
    state = published.by_formula(ECG)
    halves = {name: value.astype(np.float16) for name, value in state.items()}
    write_safetensors(tmp_path / "a.safetensors", halves, metadata={})
    run(tmp_path / "a.safetensors", tmp_path / "run", pooling="cls")
    scale = opening.open_checkpoint(tmp_path / "run", 0).params["ecg"]["encoder"]["norm"]["scale"]
    np.testing.assert_array_equal(scale, halves["norm.weight"].astype(np.float32))
    header = json.dumps({"norm.weight": {"dtype": "I8", "shape": [16], "data_offsets": [0, 16]}}).encode()
    (tmp_path / "b.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with pytest.raises(ValueError, match="no encoder of ours"):
        run(tmp_path / "b.safetensors", tmp_path / "other")


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(workdirs, tmp_path, capsys):
    run(workdirs / "mmcl.pth", tmp_path / "run", dry_run=True)
    assert "objective encoder: 16 tensors copied" in capsys.readouterr().err
    run(workdirs / "mmcl", tmp_path / "a.pth", dry_run=True)
    assert "blocks.0.attn.qkv.weight (48, 16)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"from": None, "to": "x"}, "convert needs --from=X and --to=Y"),
        ({"from": "a.pth", "to": "b.pth"}, "one is a workdir, the other a file"),
        ({"from": "a", "to": "b"}, "one is a workdir, the other a file"),
    ],
)
def test_directions_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        convert_job.run(flagged(**values))


def test_user_errors_name_the_flag(workdirs, tiny_data, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    for values, message in (
        ({"to": tmp_path / "full"}, "full is not empty; choose another directory"),
        ({"heads": None}, r"width 16 and depth 1 is none of the published.*give --heads=N"),
        ({"heads": 3}, "--heads=3 does not divide the width 16"),
        ({"crop": 120}, "--crop=120 is no multiple of the patch of 50"),
        ({"crop": 5050}, "a crop of 5050 samples is longer than the ECG, 5000"),
        ({"pooling": "cls", "source": "image.pth"}, "--pooling=cls is for an ECG encoder"),
    ):
        values = {"to": tmp_path / "run", "source": "mmcl.pth", **values}
        source, target = workdirs / values.pop("source"), values.pop("to")
        with pytest.raises(ValueError, match=message):
            run(source, target, **values)
        assert not (tmp_path / "run").exists()


def test_leads_that_disagree_with_the_settings_in_the_file_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {
        name: torch.from_numpy(np.array(value)) for name, value in published.by_formula(MASKED).items()
    }
    args = argparse.Namespace(input_size=(1, 8, 100), patch_size=(1, 50))
    torch.save({"model": tensors, "args": args}, tmp_path / "a.pth")
    with pytest.raises(
        ValueError, match=r"trained on 8 leads \(args\.input_size \(1, 8, 100\)\), here are 12"
    ):
        run(tmp_path / "a.pth", tmp_path / "run")
    args.input_size = (1, 12, 100)
    torch.save({"model": tensors, "args": args}, tmp_path / "a.pth")
    run(tmp_path / "a.pth", tmp_path / "run")
    converting.to_file(epath.Path(tmp_path / "run"), tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


def test_the_command_line(command, tmp_path):
    write_torch(tmp_path / "a.pth", {"model": published.by_formula(ECG)})
    arguments = ["convert", f"--from={tmp_path / 'a.pth'}", f"--to={tmp_path / 'run'}"]
    code, said = command(*arguments)
    assert code == 1
    assert [line.split(": ")[0] for line in said.splitlines()] == [str(tmp_path / "a.pth"), "ecgjax convert"]
    code, said = command("convert", "--help")
    assert "ecgjax convert: published PyTorch weights to a workdir" in said
    assert "Nothing in a file is executed" in said
