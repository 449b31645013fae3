"""Workdirs, data and checkpoints that do not belong together."""

import json
import shutil
import threading

import pytest
from absl import flags
from etils import epath

from ecgjax.core import mesh as meshes
from ecgjax.core import runtime, trees
from ecgjax.core.files import read_json, write_json
from ecgjax.core.spec import InputSpec
from ecgjax.jobs import evaluate as evaluate_job
from ecgjax.runs import evaluating, exporting, opening, training
from ecgjax.train import checkpoint
from ecgjax.train.checkpoint_writing import Checkpoints


def parsed(**values) -> flags.FlagValues:
    """Flags as a job receives them."""
    given = flags.FlagValues()
    for name, value in values.items():
        flags.DEFINE(flags.ArgumentParser(), name, None, "", flag_values=given)
        given[name].value = value
    given.mark_as_parsed()
    return given


@pytest.fixture(autouse=True)
def _no_process_wide_settings(monkeypatch):
    monkeypatch.setattr(runtime, "start", lambda **_: None)


def evaluation(workdir, **values):
    standard = {"data": None, "steps": ["last"], "follow": False, "timeout": 20, "evaluator": None}
    standard |= {"evaluator_setting": [], "crops": 1, "compile_cache": None}
    return parsed(workdir=str(workdir), **(standard | values))


@pytest.fixture(scope="module")
def trained(make_masked_config, tmp_path_factory):
    """A masked run of eight steps; read only."""
    workdir = epath.Path(tmp_path_factory.mktemp("trained") / "run")
    assert training.train(make_masked_config(), workdir) == 0
    return workdir


def test_the_workdir_holds_what_evaluation_needs(trained):
    for name in (
        "config.json",
        "input_spec.json",
        "manifest.json",
        "metrics.jsonl",
        "tensorboard",
        "TRAINED",
    ):
        assert (trained / name).exists(), name
    assert sorted(path.name for path in (trained / "checkpoints").iterdir()) == ["0", "4", "8"]


@pytest.mark.parametrize("dry_run", [True, False], ids=["dry run", "run"])
def test_resuming_with_another_config_lists_the_keys_that_differ(trained, make_masked_config, dry_run):
    config = make_masked_config()
    config.seed, config.objective.mask_ratio = 1, 0.75
    message = r"belongs to another config:\n  config\.objective\.mask_ratio: 0\.5 -> 0\.75\n  config\.seed: 0 -> 1\n"
    with pytest.raises(ValueError, match=message):
        training.train(config, trained, dry_run=dry_run)


def test_rhythm_and_evaluators_may_change_on_resume(trained, make_masked_config, capsys):
    config = make_masked_config()
    config.save_every, config.checkpoint.keep, config.data.cache, config.data.workers = 2, 3, False, 1
    config.data.threads, config.data.prefetch = 2, 8
    assert training.train(config, trained) == 0
    said = capsys.readouterr().err
    assert "resuming with config.save_every: 4 -> 2" in said
    assert "resuming with config.data.workers: 0 -> 1" in said
    assert "resuming with config.data.threads: 1 -> 2" in said
    assert "resuming with config.data.prefetch: 4 -> 8" in said
    assert "is trained already" in said


def test_a_workdir_from_before_a_field_goes_on_where_the_field_is_off(trained, make_masked_config, capsys):
    saved = read_json(trained / "config.json")
    for name in ("thin", "reference_crop", "threads", "prefetch"):
        del saved["data"][name]
    write_json(trained / "config.json", saved)
    capsys.readouterr()
    assert training.train(make_masked_config(), trained) == 0
    assert "resuming with" not in capsys.readouterr().err
    config = make_masked_config()
    config.data.reference_crop = True
    with config.data.unlocked():
        config.data.thin = {"LVH": 0.5}
    changed = (
        r"config\.data\.reference_crop: absent -> True\n  config\.data\.thin: absent -> \{'LVH': 0\.5\}\n"
    )
    with pytest.raises(ValueError, match=rf"another config:\n  {changed}"):
        training.train(config, trained)


def test_resuming_on_other_data_is_refused(trained, make_masked_config, monkeypatch):
    manifest = read_json(trained / "manifest.json")
    before = (trained / "manifest.json").read_text()
    write_json(trained / "manifest.json", {**manifest, "fingerprint": "0" * 64})
    try:
        with pytest.raises(ValueError, match="was trained on data of fingerprint 000000000000"):
            training.train(make_masked_config(), trained)
    finally:
        (trained / "manifest.json").write_text(before)


def test_a_foreign_directory_is_no_workdir(make_masked_config, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"is not empty and holds no config\.json \(thesis\.tex\)"):
        training.train(make_masked_config(), epath.Path(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_that_never_saved_may_change_its_config_and_is_watched_to_its_end(
    make_masked_config, tmp_path, monkeypatch
):
    watched = {}

    def noting(owner, name):
        function = getattr(owner, name)

        def noted(*arguments):
            watched[name] = any(thread.name == "watchdog" for thread in threading.enumerate())
            return function(*arguments)

        monkeypatch.setattr(owner, name, noted)

    noting(Checkpoints, "restore_latest")  # A process may wait for ever for another before the first step,
    noting(meshes, "to_host")  # and after the last.
    workdir = epath.Path(tmp_path)
    write_json(workdir / "config.json", {"seed": 5})
    config = make_masked_config()
    config.steps, config.optimizer.schedule.warmup_steps = 1, 0
    assert training.train(config, workdir) == 0
    assert read_json(workdir / "config.json")["steps"] == 1
    assert watched == {"restore_latest": True, "to_host": True}


def test_a_run_that_stops_early_is_trained(trained, make_masked_config, tmp_path):
    config = make_masked_config()
    config.accumulate, config.validate_every, config.save_every = 2, 1, 100
    config.checkpoint.best.update({"metric": "val_loss", "mode": "min", "keep": 1})
    config.stop.update({"metric": "val_loss", "mode": "max", "patience": 1})  # A loss that falls is worse.
    config.init_from.update({"workdir": str(trained), "step": "last"})
    config.init_from.rules = (("^ecg/encoder/", "ecg/encoder/"),)
    config.init_from.also = (
        {"workdir": str(trained), "step": "8", "rules": (("^ecg/decoder/", "ecg/decoder/"),)},
    )
    workdir = epath.Path(tmp_path / "run")
    assert training.train(config, workdir) == 0
    marker = read_json(workdir / "TRAINED")
    assert marker["step"] == 3 < config.steps
    assert marker["stopped_early"].startswith("val_loss was worse than its best, ")
    assert checkpoint.choose_step(workdir, "best") == 3
    assert training.train(config, workdir) == 0  # And is left alone.
    started, source = (opening.open_checkpoint(w, s).params for w, s in ((workdir, 0), (trained, 8)))
    assert trees.digest(started) == trees.digest(source)


@pytest.fixture
def older(trained, tmp_path):
    """The trained run as it would have been written before some sections of a config existed."""
    workdir = epath.Path(shutil.copytree(trained, tmp_path / "older"))
    for path in (workdir / "config.json", workdir / "checkpoints" / "8" / "meta" / "metadata"):
        tree = read_json(path)
        config = tree.get("config", tree)
        del config["accumulate"], config["grad_cache"], config["stop"]
        del config["checkpoint"]["best"], config["init_from"]["also"]
        del config["mesh"]["slices"], config["mesh"]["rules"]
        for part in ("encoder", "decoder"):
            for field in ("remat", "scan", "pad_tokens", "softmax"):
                del config["objective"][part][field]
        path.write_text(json.dumps(tree))
    return workdir


def test_older_workdirs_are_evaluated_and_resumed(older, make_masked_config):
    assert opening.open_checkpoint(older, checkpoint.choose_step(older, "last")).step == 8
    config = make_masked_config()
    config.objective.encoder.remat = "blocks"  # How blocks run may change; not what they compute.
    assert training.train(config, older) == 0
    with pytest.raises(ValueError, match=r"has no best step: config\.checkpoint\.best\.metric was not set"):
        evaluating.chosen(older, ["best"])


def test_an_empty_workdir_cannot_be_evaluated_or_exported(tmp_path):
    with pytest.raises(ValueError, match="holds no checkpoint; it is empty, foreign"):
        evaluate_job.run(evaluation(tmp_path))
    with pytest.raises(ValueError, match="holds no checkpoint; it is empty, foreign"):
        exporting.export(epath.Path(tmp_path), epath.Path(tmp_path / "export"))


def test_data_conditioned_otherwise_are_refused_with_the_field(trained, tiny_data, tmp_path):
    other = json.loads((tiny_data / "manifest.json").read_text())
    other["input_spec"]["ecg"]["conditioning"]["clip_sigma"] = 4.0
    (tmp_path / "manifest.json").write_text(json.dumps(other))
    message = r"conditioned otherwise.*checkpoint -> data: ecg\.conditioning\.clip_sigma: None -> 4\.0"
    with pytest.raises(ValueError, match=message):
        evaluate_job.run(evaluation(trained, data=str(tmp_path)))
    with pytest.raises(ValueError, match=message):
        exporting.export(
            trained, epath.Path(tmp_path / "export"), data=str(tmp_path), splits=["test"], crops=1
        )


def test_a_modality_that_the_checkpoint_never_saw_does_not_matter(trained, tiny_data):
    spec = opening.open_checkpoint(trained, 8).spec
    other = InputSpec(ecg=spec.ecg, cmr=None)
    opening.check_spec(spec, other, ("ecg",), tiny_data)
    with pytest.raises(ValueError, match="cmr: "):
        opening.check_spec(spec, other, ("ecg", "cmr"), tiny_data)


def test_following_ends_at_the_marker_and_takes_every_checkpoint(trained):
    assert list(evaluating._appearing(trained, 3600)) == [0, 4, 8]


def test_following_skips_a_checkpoint_that_training_removes_while_it_is_read(trained, monkeypatch, capsys):
    seen, steps = [], checkpoint.steps

    def evaluate(workdir, step, **_):
        seen.append(step)
        if step == 4:
            monkeypatch.setattr(checkpoint, "steps", lambda workdir: [s for s in steps(workdir) if s != 4])
            raise ValueError("checkpoint 4 cannot be read")
        return 0

    monkeypatch.setattr(evaluating, "evaluate", evaluate)
    assert evaluate_job.run(evaluation(trained, follow=True)) == 0
    assert seen == [0, 4, 8]
    assert "step 4: training removed it while it was read; skipped." in capsys.readouterr().err


def test_following_a_run_that_never_ends_gives_up(tmp_path):
    with pytest.raises(ValueError, match=r"no new checkpoint for 0 s and no TRAINED marker.*--timeout"):
        evaluating.follow(epath.Path(tmp_path), timeout_s=0)


def test_steps_are_numbers_last_or_all(trained):
    assert evaluating.chosen(trained, ["0", "last"]) == [0, 8]
    assert evaluating.chosen(trained, ["all"]) == [0, 4, 8]
    with pytest.raises(ValueError, match="expected numbers, `last`, `best` or `all`, got 'frist'"):
        evaluating.chosen(trained, ["frist"])


def test_one_failing_evaluator_does_not_stop_the_others(trained, capsys):
    names, settings = ["retrieval", "reconstruction"], {}
    assert evaluating.evaluate(trained, 8, evaluators=names, settings=settings, crops=1) == 1
    assert "retrieval: FAILED: the checkpoint predicts" in capsys.readouterr().err
    assert (trained / "results" / "reconstruction" / "8.json").exists()
    assert evaluating.evaluate(trained, 8, evaluators=["reconstruction"], crops=1) == 0
    assert "has results already" in capsys.readouterr().err


def test_a_misspelt_setting_of_an_evaluator_is_refused():
    assert evaluate_job._settings(["inputs=('mean',)", "draws=5"], ["linear_probe"]) == {
        "inputs": ("mean",),
        "draws": 5,
    }
    with pytest.raises(ValueError, match="needs exactly one --evaluator"):
        evaluate_job._settings(["draws=5"], None)
    with pytest.raises(ValueError, match="expected KEY=VALUE, got 'draws'"):
        evaluate_job._settings(["draws"], ["linear_probe"])
