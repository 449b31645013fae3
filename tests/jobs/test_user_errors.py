"""What a new user gets wrong: one clear line, before any device work, and nothing left behind."""

import sys

import jax
import pytest
from etils import epath

import ecgjax.__main__ as program
from ecgjax.core import config as configs
from ecgjax.core import mesh as meshes
from ecgjax.data.manifest import read_manifest
from ecgjax.models.vit import patchify
from ecgjax.runs import feed, training
from ecgjax.runs.assemble import check_norm_groups

WATCH = {"metric": "val_los", "mode": "min"}
DEMO = ["--config=configs/mae_ecg.py:demo"]


def test_the_overview_names_every_verb(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ecgjax"])
    program.main()
    said = capsys.readouterr().out
    assert all(f"  {verb} " in said for verb in program.VERBS)


def test_an_unknown_verb_lists_the_verbs(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ecgjax", "trian"])
    with pytest.raises(SystemExit, match="unknown verb 'trian'; choose from prepare"):
        program.main()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", *DEMO], "train needs --config=FILE and --workdir=DIR"),
        (["train", *DEMO, "--workdri=x"], "Unknown command line flag 'workdri'. Did you mean: workdir"),
        (
            ["train", *DEMO, "--config.data.bacth_size=3"],
            "--config.data.bacth_size: no such key. Did you mean 'batch_size'?",
        ),
        (["train", *DEMO, "--config.objective.zzz=3"], "--config.objective.zzz: no such key"),
        (
            ["train", *DEMO, "--config.data.batch_size=abc"],
            "flag --config.data.batch_size=abc: invalid literal",
        ),
        (
            ["train", "--config=configs/nope.py:demo", "--workdir=x"],
            "--config=configs/nope.py:demo: no such file",
        ),
        (
            ["train", "--config=configs/mae_ecg.py:dmo", "--workdir=x"],
            "configs/mae_ecg.py:dmo: unknown; choose from demo",
        ),
        (
            ["train", *DEMO, "--config.steps.x=3"],
            "--config.steps.x: no such key; --config.steps is a value without keys.",
        ),
        (
            ["train", *DEMO, "--config.mesh.rules.x=fsdp"],
            "one of --config.mesh.rules.x: a part of a tuple cannot be set alone",
        ),
        (["train", *DEMO, "--nodry_run=3"], "--nodry_run=3 does not take an argument"),
    ],
    ids=lambda x: x[-1] if isinstance(x, list) else "",
)
def test_a_wrong_command_line_is_one_line(command, arguments, message):
    code, said = command(*arguments)
    assert code == 1
    assert said.startswith(f"ecgjax train: {message}"), said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize("kind", [KeyError, TypeError, AttributeError])
def test_bugs_of_our_own_keep_their_traceback(kind):
    with pytest.raises(kind) as caught:
        configs.build({"x": _raiser(kind)}, {"name": "x"}, "config")
    assert not program._for_the_user(caught.value)


def test_errors_from_within_a_jax_trace_are_for_the_user():
    with pytest.raises(ValueError, match="not a multiple of patch") as caught:
        jax.eval_shape(lambda x: patchify(x, patch=3), jax.ShapeDtypeStruct((1, 1, 10), "float32"))
    assert program._for_the_user(caught.value)


def _raiser(kind):
    def raiser():
        raise kind("a bug")

    return raiser


def dry(config, workdir):
    assert training.train(config, workdir, dry_run=True) == 0


def test_a_dry_run_writes_nothing(masked_config, tmp_path, capsys):
    dry(masked_config, epath.Path(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []
    said = capsys.readouterr().err
    assert "the config is sound; nothing was written" in said
    assert "ecg/encoder/patch_embed/kernel (50, 16) float32" in said


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "data.crop",
            120,
            r"config\.data\.crop is 120, no multiple of config\.objective\.encoder\.patch = 50; take .* 100 or 150",
        ),
        ("data.crop", 2000, r"config\.data\.crop: 2000 samples are not within 1 to 1000"),
        (
            "data.batch_size",
            12,
            r"config\.data\.batch_size is 12, which 8 devices do not divide; take 8 or 16",
        ),
        ("data.validation_batch", 4, r"config\.data\.validation_batch is 4; it must be at least 8"),
        ("data.batch_size", 128, r"a batch of 128 is more than the 64 examples of split 'train'"),
        ("data.directory", None, r"config\.data\.directory: not set; give it as"),
        ("data.directory", "/nonexistent", r"/nonexistent/manifest\.json does not exist.*ecgjax prepare"),
        (
            "data.modalities",
            ("cmr",),
            r"config\.data\.modalities is \['cmr'\], but objective masked reads \['ecg'\]",
        ),
        ("data.modalities", ("ekg",), r"config\.data\.modalities: asked for \['ekg'\]"),
        ("data.pairing", "wrong", r"config\.data\.pairing: unknown 'wrong'"),
        ("mesh.fsdp", 3, r"config\.mesh\.fsdp is 3"),
        (
            "objective.encoder.scan",
            2,
            r"config\.objective\.encoder: scan 2 does not divide depth 1; choose one of \[1\], or 0",
        ),
        (
            "objective.decoder.softmax",
            "bfloat16",
            r"config\.objective\.decoder: softmax 'bfloat16' needs dtype",
        ),
        ("mesh.slices", 3, r"config\.mesh\.slices is 3"),
        ("mesh.rules", (("qvk/kernel", "fsdp"),), r"config\.mesh\.rules\[0\]: 'qvk/kernel' finds no leaf"),
        ("checkpoint.keep", 1, r"config\.checkpoint\.keep is 1"),
        ("optimizer.name", "adamv", r"config\.optimizer\.name: unknown 'adamv'.*'adamw'"),
        ("optimizer.schedule.warmup_steps", 8, r"warmup_steps is 8, which must lie in \[0, 8\)"),
        ("objective.mask_ratio", 1.5, r"mask_ratio.* 1\.5"),
        ("objective.views", "strong", r"unknown ECG preset 'strong'; choose from none, weak"),
        ("objective.encoder.heads", 3, r"config\.objective\.encoder: width 16 is not a multiple of heads 3"),
        ("objective.encoder.name", "resnet", r"config\.objective\.encoder\.\w+: no field of resnet"),
        ("save_every", 0, r"config\.save_every is 0; it must be at least 1"),
        ("init_from.workdir", "/nonexistent", r"/nonexistent holds no checkpoint"),
        (
            "init_from.also",
            ({"workdir": "/nonexistent", "step": "last", "rules": ()},),
            r"/nonexistent holds no checkpoint",
        ),
        ("init_from.also", ({"workdir": ""},), r"config\.init_from\.also\[0\]\.step: missing"),
        ("accumulate", 3, r"config\.accumulate is 3, which does not divide the 2 examples"),
        (
            "grad_cache",
            2,
            r"config\.grad_cache is 2, but the loss of objective masked is a mean over examples",
        ),
        ("stop.metric", "val_los", r"config\.stop\.mode: unknown None; choose from max, min"),
        ("stop", {**WATCH, "patience": -1, "max_delta": 0.0}, r"config\.stop\.patience is -1"),
        (
            "stop",
            {**WATCH, "patience": 1, "max_delta": 0.0},
            r"config\.stop\.metric is 'val_los'; validation knows val_loss, ",
        ),
        (
            "checkpoint.best",
            {**WATCH, "keep": 1},
            r"config\.checkpoint\.best\.metric is 'val_los'; validation",
        ),
        (
            "optimizer.groups",
            {"online": {"paths": "classifier"}},
            r"config\.optimizer\.groups\.online\.paths is 'classifier', which finds no parameter",
        ),
    ],
)
def test_a_wrong_value_is_said_by_the_dry_run(masked_config, tmp_path, path, value, message):
    section, _, key = path.rpartition(".")
    with masked_config.ignore_type(), masked_config.unlocked():
        _at(masked_config, section)[key] = value
    with pytest.raises(ValueError, match=message) as caught:
        dry(masked_config, epath.Path(tmp_path / "run"))
    assert program._for_the_user(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("wanted", "sizes"), [(None, [16, 16]), (8, [8] * 4), (10**6, [32])])
def test_validation_takes_whole_batches_up_to_the_split(masked_config, wanted, sizes):
    masked_config.data.validation_batch = wanted
    config = configs.plain(masked_config)
    manifest = read_manifest(config["data"]["directory"])  # Of 32 examples.
    batches = feed.validation_batches(config, manifest, meshes.make_mesh())
    assert [len(batch["ecg"]) for batch in batches()] == sizes


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("data.bacth_size", r"config\.data\.bacth_size: no such key\. Did you mean 'batch_size'"),
        ("optimizer.bb", r"config\.optimizer\.bb: no field of adamw"),
        (
            "objective.mask_rtio",
            r"config\.objective\.mask_rtio: no field of masked\. Did you mean 'mask_ratio'",
        ),
        (
            "objective.encoder.wdth",
            r"config\.objective\.encoder\.wdth: no field of vit\. Did you mean 'width'",
        ),
        ("mesh.dta", r"config\.mesh\.dta: no field of mesh\. Did you mean 'data'"),
        ("checkpoint.kep", r"config\.checkpoint\.kep: no field of .*'keep'"),
        ("init_from.wrkdir", r"config\.init_from\.wrkdir: no such key\. Did you mean 'workdir'"),
        ("stop.patence", r"config\.stop\.patence: no field of stop\. Did you mean 'patience'"),
        ("checkpoint.best.kep", r"config\.checkpoint\.best\.kep: no field of best\. Did you mean 'keep'"),
        ("stps", r"config\.stps: no such key\. Did you mean 'steps'"),
    ],
)
def test_a_key_that_nobody_reads_is_refused(masked_config, tmp_path, path, message):
    section, _, key = path.rpartition(".")
    with masked_config.unlocked():
        _at(masked_config, section)[key] = 1
        for watch in (masked_config.stop, masked_config.checkpoint.best):
            watch.metric, watch.mode = "val_loss", "min"
    with pytest.raises(ValueError, match=message):
        dry(masked_config, epath.Path(tmp_path / "run"))


def _at(config, path):
    for key in path.split(".") if path else ():
        config = config[key]
    return config


def test_a_norm_group_that_does_not_divide_the_batch_is_refused():
    section = {"name": "cross_modal", "ecg": {"name": "vit"}, "cmr": {"name": "resnet", "norm_group": 12}}
    with pytest.raises(
        ValueError, match=r"config\.objective\.cmr\.norm_group is 12.*the 32 examples.*16, 32\]"
    ):
        check_norm_groups(section, examples=32)
    check_norm_groups(section, examples=24)
