"""Beats from nothing to a table of classes, through the jobs, and what is refused on the way."""

import dataclasses
import functools

import numpy as np
import pytest
from etils import epath

import ecgjax.__main__ as program
from configs import crt_beats, crt_response, prepare
from ecgjax.core import config as configs
from ecgjax.core.files import read_json
from ecgjax.data.manifest import read_manifest
from ecgjax.evaluators.base import Results
from ecgjax.response import contest, fold_config
from ecgjax.runs import evaluating, preparing, training
from ecgjax.train import checkpoint

STFT = {"win": 32, "hop": 16, "n_fft": 64, "bins": 16, "frames": 32}


def prepared(directory, **image):
    """The smallest beats; their image is made small, too."""
    config = prepare.get_config("tiny_synthetic_beats")
    config.ecg.image.update({**STFT, **image})
    preparing.prepare(config, directory)
    return directory


@pytest.fixture(scope="module")
def beats(tmp_path_factory):
    return prepared(epath.Path(tmp_path_factory.mktemp("beats") / "data"))


@pytest.fixture
def config(beats):
    return tiny(beats)


def tiny(data):
    config = crt_beats.get_config("demo")
    config.steps, config.log_every, config.validate_every, config.save_every = 4, 2, 2, 2
    config.data.update({"directory": str(data), "batch_size": 16})
    config.data.thin.N = 0.5
    with config.ignore_type():
        config.objective.class_weights = (1.0, 2.0, 2.0, 2.0, 2.0, 2.0)  # F may have no example.
    config.objective.encoder.update({"widths": (8,), "mask_times": 4, "mask_frequencies": 4})
    config.optimizer.schedule.warmup_steps = 1
    for evaluator in config.evaluators.values():
        evaluator.targets = config.objective.targets
    del config.evaluators.grad_cam
    return config


@pytest.fixture(scope="module")
def trained(beats, tmp_path_factory):
    workdir = epath.Path(tmp_path_factory.mktemp("trained") / "run")
    assert training.train(tiny(beats), workdir) == 0
    return workdir


def test_from_nothing_to_a_table_of_classes(beats, trained, capsys):
    logged = (trained / "metrics.jsonl").read_text()
    assert "val_macro_f1" in logged
    assert "val_sensitivity_V" in logged
    assert "true_V" not in logged
    labels = checkpoint.read_meta(trained, 4)["labels"]
    assert {label["name"]: label.get("kept") for label in labels}["N"] == 0.5
    best = checkpoint.choose_step(trained, "best")
    assert evaluating.evaluate(trained, best, crops=4) == 0
    said = capsys.readouterr().err
    assert "class" in said
    assert "taken for N L R S V F" in said
    results = Results.read(trained, "classes", best)
    split = read_manifest(beats).split("test")
    assert results.arrays["test|confusion"].sum() == split.examples
    assert results.settings["cohort"] == "synthetic_beats"
    assert {row.input for row in results.rows} == {"prediction", "majority"}
    assert max(row.subjects for row in results.rows) == split.subjects
    probability = results.arrays["test|probability"]
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-5)
    stored = Results.read(trained, "predictions", best).arrays["test|prediction"]
    np.testing.assert_allclose(stored, probability, atol=1e-6)
    assert read_json(trained / "results" / "classes" / f"{best}.json")["text"] == results.text


def dry(config, tmp_path, message):
    with pytest.raises(ValueError, match=message) as caught:
        training.train(config, epath.Path(tmp_path / "run"), dry_run=True)
    assert program._for_the_user(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "objective.class_weights",
            (1.0, 2.0),
            r"config\.objective\.class_weights has 2 weights for 6 classes",
        ),
        ("objective.class_weights", "inverse_sqrt", r"config\.objective\.class_weights: expected tuple or"),
        ("objective.focal", -0.5, r"config\.objective\.focal is -0\.5"),
        ("objective.targets", ("N", "Q"), r"config\.objective\.targets: unknown \['Q'\]"),
        (
            "data.crop",
            512,
            r"encoder is given 512; set config\.data\.crop to 1024",
        ),
        ("data.thin", {"M": 0.5}, r"config\.data\.thin\.M: no such label; the data set has N, L, R, S, V, F"),
        ("data.thin", {"N": 2.0}, r"config\.data\.thin\.N is 2\.0; a share lies above 0"),
        ("data.max_labels", 20, r"config\.data: thin .* and max_labels 20 both choose examples"),
        (
            "checkpoint.best.metric",
            "val_f1",
            r"validation knows .*val_macro_f1, val_balanced_accuracy, val_sensitivity_N",
        ),
        ("objective.encoder.widths", (8,) * 5, r"config\.objective\.encoder: widths .* can be halved by 4"),
        ("objective.encoder.name", "leadwise", r"config\.objective\.encoder"),
    ],
)
def test_a_wrong_value_is_said_by_the_dry_run(config, tmp_path, path, value, message):
    section, _, key = path.rpartition(".")
    with config.ignore_type(), config.unlocked():
        functools.reduce(lambda node, name: node[name], section.split("."), config)[key] = value
    dry(config, tmp_path, message)


def test_beats_of_another_lead_than_is_stored_are_refused_before_any_is_read(tmp_path):
    config = prepare.get_config("mitbih")
    config.cohort.update({"directory": str(tmp_path), "lead": "V1", "validation": ()})
    with pytest.raises(
        ValueError, match=r"config\.cohort\.lead is 'V1', but config\.ecg\.leads is \['MLII'\]"
    ):
        preparing.prepare(config, epath.Path(tmp_path / "data"))
    config.ecg.leads = ("V1",)
    with pytest.raises(ValueError, match="holds none of the 43 records with lead V1"):  # The next complaint.
        preparing.prepare(config, epath.Path(tmp_path / "data"))


def test_data_without_an_image_or_beats_are_refused(config, tiny_data, tmp_path):
    config.data.directory, config.data.crop = str(tiny_data), 1000
    with config.ignore_type(), config.unlocked():
        config.data.thin = {}
        config.objective.targets, config.objective.class_weights = ("LVH",), "sqrt_inverse"
    config.objective.rhythm = False
    dry(
        config,
        tmp_path,
        r"encoder\.name: stft_cnn reads time-frequency images, for which the data set has no",
    )
    with config.unlocked():
        config.objective.encoder = {"name": "vit", "width": 16, "depth": 1, "heads": 2, "patch": 50}
    config.objective.rhythm = True
    dry(config, tmp_path, r"config\.objective\.rhythm is True, but the examples are no single beats")


def test_a_checkpoint_with_another_image_is_no_start(beats, trained, tmp_path):
    other = prepared(epath.Path(tmp_path / "other" / "data"), win=16)
    config = tiny(other)
    config.init_from.update({"workdir": str(trained), "rules": ((r"^ecg/encoder/", "ecg/encoder/"),)})
    with pytest.raises(
        ValueError, match=r"trained on other ECG input; data -> run: .*ecg\.image\.win: 16 -> 32"
    ):
        training.train(config, epath.Path(tmp_path / "run"), dry_run=True)
    with pytest.raises(ValueError, match=r"conditioned otherwise.*ecg\.image.*--like"):
        evaluating.evaluate(trained, 4, data=str(other))


@pytest.fixture(scope="module")
def patients(trained, tmp_path_factory):
    """Patients prepared for the encoder of the run on beats."""
    config = prepare.get_config("tiny_synthetic_crt")
    directory = epath.Path(tmp_path_factory.mktemp("patients") / "data")
    preparing.prepare(config, directory, like_run=str(trained))
    return directory


def judged(mode, data, trained):
    config = crt_response.get_config(mode)
    config.data.update({"directory": str(data), "batch_size": 8})
    few = {"repeats": 1, "folds": 2, "inner": 3, "draws": 20, "permutations": 20, "label_permutations": 2}
    config.crossvalidation.update({**few, "curve": (), "curve_of": ()})
    config.steps, config.optimizer.schedule.warmup_steps = 2, 1
    config.init_from.workdir = str(trained)
    return config


def scores(mode, data, trained, workdir):
    """Of every patient, and the leaves that came from the run on beats."""
    assert contest.crossvalidate(judged(mode, data, trained), epath.Path(workdir)) == 0
    origin = epath.Path(workdir) / "init_from.txt"
    copied = (
        [line for line in origin.read_text().splitlines() if line.startswith("ecg/")]
        if origin.exists()
        else []
    )
    found = Results.read(workdir, "crossvalidation", 0).arrays[f"{mode}|score"]
    assert np.isfinite(found).all()
    return found, copied


ENCODER_LEAVES = {
    f"ecg/encoder/shared/blocks/0/{leaf}" for leaf in ("conv/kernel", "norm/scale", "norm/bias")
}


def test_a_run_on_beats_is_carried_over_to_the_leads_of_patients(trained, patients, tmp_path):
    probe, copied = scores("probe", patients, trained, tmp_path / "probe")
    assert set(copied) == ENCODER_LEAVES
    random, copied = scores("random", patients, trained, tmp_path / "random")
    assert not copied
    assert probe.shape == random.shape == (1, 24)
    assert (probe != random).any()


@pytest.mark.slow
def test_modes_that_train_start_from_the_run_but_for_scratch(trained, patients, tmp_path):
    found = {}
    for mode in ("partial", "full", "scratch"):
        found[mode], copied = scores(mode, patients, trained, tmp_path / mode)
        assert set(copied) == (set() if mode == "scratch" else ENCODER_LEAVES), mode
    assert (found["full"] != found["scratch"]).any()


def test_patients_with_another_image_are_refused_in_every_mode(beats, trained, patients, tmp_path):
    manifest = read_manifest(patients)
    ecg = dataclasses.replace(
        manifest.input_spec.ecg, image=dataclasses.replace(manifest.input_spec.ecg.image, hop=8)
    )
    other = dataclasses.replace(manifest, input_spec=dataclasses.replace(manifest.input_spec, ecg=ecg))
    for mode in ("probe", "random", "partial", "full", "scratch"):
        with pytest.raises(ValueError, match=r"single leads of other .*ecg\.image\.hop: 8 -> 16.*--like"):
            fold_config.completed(configs.plain(judged(mode, patients, trained)), other.input_spec)


@pytest.mark.slow
def test_its_encoder_shows_where_in_the_leads_of_patients_it_sees_the_response(trained, patients, tmp_path):
    config = crt_response.get_config("probe")
    config.data.directory, config.init_from.workdir = str(patients), str(trained)
    few = {"repeats": 2, "folds": 2, "inner": 2, "draws": 50, "permutations": 50, "label_permutations": 2}
    config.crossvalidation.update({**few, "curve": ()})
    assert contest.crossvalidate(config, epath.Path(tmp_path / "run")) == 0
    results = Results.read(tmp_path / "run", "crossvalidation", 0)
    assert results.arrays["map|leads"].tolist() == ["I", "aVL", "V1", "V2", "V5", "V6"]
    for side in ("with", "without"):
        found = results.arrays[f"probe|map_{side}"]
        assert found.shape == (6, 8, 16)  # Half of 16 rows and of 32 frames.
        assert found.max() > 0
    assert results.arrays["map|time_s"][0] == pytest.approx(-512 / 360)
    assert 0 <= results.scalars["probe|maps_told_apart"] <= 1
    assert len(results.arrays["probe|permuted_auroc"]) == 2
