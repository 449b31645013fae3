"""Cross-validation as a job: modes of a network, resuming, controls, and what is refused."""

import csv
import dataclasses
import io
import os
import shutil
import signal

import jax
import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

from configs import crt_response
from ecgjax.core import config as configs
from ecgjax.core import runtime
from ecgjax.data.manifest import read_manifest
from ecgjax.evaluators.base import Results
from ecgjax.response import contest
from ecgjax.response.comparators.measures import SingleMeasure
from ecgjax.response.fold_training import Network, TrainedInFolds
from ecgjax.response.pool import open_pool
from ecgjax.runs.assemble import Data, assemble, label_columns
from ecgjax.train import state as states
from ecgjax.train.checkpoint_writing import Checkpoints
from ecgjax.train.state import TrainState


@pytest.fixture(autouse=True)
def _no_process_wide_settings(monkeypatch):
    monkeypatch.setattr(runtime, "start", lambda **_: None)


@pytest.fixture(scope="module")
def source(make_masked_config, tmp_path_factory):
    """A masked run before its first step; read only."""
    config = configs.plain(make_masked_config())
    manifest = read_manifest(config["data"]["directory"])
    data = Data(manifest.input_spec, label_columns(manifest), 64)
    made = assemble(config, data)
    meta = {"config": config, "input_spec": manifest.input_spec.to_json(), "labels": list(data.labels)}
    workdir = epath.Path(tmp_path_factory.mktemp("source") / "run")
    checkpoints = Checkpoints(workdir)
    checkpoints.save(states.create(made.objective, made.tx, made.mesh, jax.random.key(5)), 0, meta)
    checkpoints.close()
    return workdir


@pytest.fixture(scope="module")
def recipe(tiny_data, source):
    """Makes a recipe on the 144 subjects of the tiny synthetic cohort; their LVH is the response."""

    def make(name, **settings):
        config = crt_response.get_config(name)
        config.data.directory, config.response = str(tiny_data), "LVH"
        judged = {"repeats": 1, "folds": 2, "inner": 2, "draws": 50, "permutations": 50, "curve": ()}
        config.crossvalidation.update(
            {**judged, "curve_of": (), "permuted_of": (), "reference": None, **settings}
        )
        if name == "comparators":
            config.contenders = ConfigDict({"mass": {"name": "measure", "column": "LVM"}})
        else:
            config.init_from.workdir = str(source)
            config.steps, config.optimizer.schedule.warmup_steps = 2, 1
        return config

    return make


def arrays(workdir):
    return Results.read(workdir, "crossvalidation", 0).arrays


def auroc(workdir, contender):
    rows = Results.read(workdir, "crossvalidation", 0).rows
    (row,) = [row for row in rows if (row.input, row.metric) == (contender, "auroc")]
    return row


@pytest.fixture(scope="module")
def full(recipe, tmp_path_factory):
    """A network trained in two folds of patients, and what was said meanwhile."""
    workdir, said = epath.Path(tmp_path_factory.mktemp("full") / "run"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "start", lambda **_: None)
        patch.setattr(runtime, "say", said.append)
        assert contest.crossvalidate(recipe("vit_full"), workdir) == 0
    return workdir, said


def test_a_network_is_trained_in_every_fold_by_one_program(full, tiny_data):
    workdir, said = full
    for name in ("train step", "prediction"):
        assert len([line for line in said if line.startswith(f"{name}: traced")]) == 1
    assert (workdir / "init_from.txt").read_text().count("ecg/encoder") > 10
    rows = list(csv.DictReader(io.StringIO((workdir / "predictions.csv").read_text())))
    assert sorted(row["patient"] for row in rows) == sorted(open_pool(tiny_data).subject)
    found = arrays(workdir)
    assert len(np.unique(found["vit_full|probability"])) > 100
    # A threshold a fold: each is one of the probabilities of that fold's held-out training patients, or between two.
    assert len(np.unique(found["vit_full|threshold"])) == 2
    assert any("vit_full" in line and "0." in line for line in said[-3:])


@pytest.mark.slow
def test_a_signal_leaves_after_the_fold_and_the_same_command_goes_on(recipe, tmp_path, monkeypatch):
    whole, workdir, answer = (
        epath.Path(tmp_path / "whole"),
        epath.Path(tmp_path / "run"),
        SingleMeasure.fit_predict,
    )
    assert contest.crossvalidate(recipe("comparators"), whole) == 0

    def killed(self, *arguments, **options):
        scores = answer(self, *arguments, **options)
        os.kill(os.getpid(), signal.SIGTERM)
        return scores

    monkeypatch.setattr(SingleMeasure, "fit_predict", killed)
    assert contest.crossvalidate(recipe("comparators"), workdir) == 75
    (kept,) = (workdir / "folds" / "LVM").iterdir()
    written = kept.stat()
    assert not (workdir / "predictions.csv").exists()
    monkeypatch.setattr(SingleMeasure, "fit_predict", answer)
    assert contest.crossvalidate(recipe("comparators"), workdir) == 0
    assert kept.stat() == written
    same(arrays(workdir), arrays(whole))
    assert (workdir / "predictions.csv").read_text() == (whole / "predictions.csv").read_text()


@pytest.mark.slow
def test_a_fold_that_is_missing_is_trained_as_it_would_have_been(full, recipe, tmp_path):
    workdir = epath.Path(tmp_path / "run")
    shutil.copytree(full[0], workdir, ignore=shutil.ignore_patterns("results", "predictions.csv"))
    first, second = sorted((workdir / "folds" / "vit_full").iterdir())
    second.unlink()
    written = first.stat()
    assert contest.crossvalidate(recipe("vit_full"), workdir) == 0
    assert first.stat() == written
    same(arrays(workdir), arrays(full[0]))


def same(found, wanted):
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_what_is_finished_is_not_done_again_and_belongs_to_its_config(full, recipe, monkeypatch):
    monkeypatch.setattr(TrainedInFolds, "fit_predict", None)
    assert contest.crossvalidate(recipe("vit_full"), full[0]) == 0
    with pytest.raises(
        ValueError, match=r"another cross-validation:\n  config\.crossvalidation\.seed: 0 -> 1\n"
    ):
        contest.crossvalidate(recipe("vit_full", seed=1), full[0])


def test_a_probe_reads_the_runs_embedding_and_its_control_fresh_weights(recipe, tmp_path, capsys):
    found = {}
    for mode in ("vit_probe", "vit_random"):
        workdir = epath.Path(tmp_path / mode)
        config = recipe(mode, curve=(0.5,), curve_of=(mode,))
        config.contenders = ConfigDict({"mass": {"name": "measure", "column": "LVM"}})
        assert contest.crossvalidate(config, workdir) == 0
        found[mode] = arrays(workdir)
        metrics = {
            row.metric for row in Results.read(workdir, "crossvalidation", 0).rows if row.input == mode
        }
        assert "auroc@50_percent" in metrics
    said = capsys.readouterr().err
    assert said.count("initialised from") == 1
    np.testing.assert_array_equal(found["vit_probe"]["LVM|score"], found["vit_random"]["LVM|score"])
    np.testing.assert_array_equal(found["vit_probe"]["fold"], found["vit_random"]["fold"])
    assert not np.array_equal(found["vit_probe"]["vit_probe|score"], found["vit_random"]["vit_random|score"])


def test_a_curve_that_leaves_too_few_is_said_and_the_rest_is_run(recipe, tmp_path, capsys):
    config = recipe("comparators", inner=8, curve=(0.01, 0.9), curve_of=("LVM",))
    assert contest.crossvalidate(config, epath.Path(tmp_path / "run")) == 0
    assert (
        "config.crossvalidation.curve: 0.01 of the training patients are too few for 8"
        in capsys.readouterr().err
    )
    rows = Results.read(tmp_path / "run", "crossvalidation", 0).rows
    assert {row.metric for row in rows if "percent" in row.metric} == {"auroc@90_percent"}


def test_what_knows_the_response_loses_it_where_labels_are_permuted(recipe, tmp_path):
    config = recipe("comparators", repeats=2, draws=500)
    assert contest.crossvalidate(config, epath.Path(tmp_path / "true")) == 0
    assert auroc(tmp_path / "true", "LVM").low > 0.7
    config.labels = "permuted"
    assert contest.crossvalidate(config, epath.Path(tmp_path / "permuted")) == 0
    row = auroc(tmp_path / "permuted", "LVM")
    assert row.low < 0.5 < row.high


@pytest.mark.slow
def test_the_splits_of_the_data_may_be_the_folds(recipe, tmp_path, altered):
    config = recipe("comparators")
    config.split = "given"
    assert contest.crossvalidate(config, epath.Path(tmp_path / "run")) == 0
    assert sorted(np.bincount(arrays(tmp_path / "run")["fold"][0])) == [32, 48, 64]

    def together(values):
        values[-1] = values[0]
        return values

    altered(subject=together, label=together)
    with pytest.raises(ValueError, match=r"config\.split: the patient of recordings 0, 143 is in two folds"):
        contest.crossvalidate(config, epath.Path(tmp_path / "other"))


class Listener(Network):
    """A network that notes what it is given, and whose probability of a recording is its number / 100."""

    def __init__(self, pool):
        object.__setattr__(self, "pool", pool)
        object.__setattr__(self, "heard", [])

    def train(self, chosen, label, *, seed):
        self.heard.append((chosen, label))
        return TrainState(np.zeros(()), {}, {}, {})

    def predict(self, state, chosen):
        return {"prediction": np.array(chosen)[:, None] / 100}


def test_training_in_a_fold_sees_no_label_of_the_test_fold_nor_of_the_held_out_inner_fold(tiny_data):
    pool = open_pool(tiny_data)
    patient = np.repeat(np.arange(72), 2)  # Two recordings each.
    network = Listener(pool)
    train, test, truth = np.arange(40), np.arange(40, 72), np.tile([0.0, 1.0], 20)
    inner = np.repeat([0, 1], [12, 28])
    scores = TrainedInFolds("net", network, patient, 7).fit_predict(train, truth, test, inner=inner, seed=0)
    ((chosen, label),) = network.heard
    np.testing.assert_array_equal(chosen, np.arange(24, 80))  # Patients 12 to 39.
    want = np.full_like(pool.label, np.nan)
    want[24:80, 7] = np.repeat(truth[12:], 2)
    np.testing.assert_array_equal(label, want)
    np.testing.assert_allclose(scores.probability, (2 * test + 0.5) / 100)
    np.testing.assert_allclose(scores.inner[:12], (2 * np.arange(12) + 0.5) / 100)
    assert np.isnan(scores.inner[12:]).all()


def refused(config, tmp_path, message):
    with pytest.raises(ValueError, match=message) as caught:
        contest.crossvalidate(config, epath.Path(tmp_path / "run"))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "path", "value", "message"),
    [
        (
            "vit_full",
            "response",
            "CRT",
            r"config\.response is 'CRT', no label of the data; choose from LVH, DCM",
        ),
        ("vit_full", "response", "LVEF", r"config\.response: LVEF is a regression label; choose from LVH"),
        (
            "vit_full",
            "labels",
            "shuffled",
            r"config\.labels: unknown 'shuffled'; choose 'true' or 'permuted'",
        ),
        ("vit_full", "split", "fixed", r"config\.split: unknown 'fixed'; choose 'drawn' or 'given'"),
        ("vit_full", "mode", "frozen", r"config\.mode: unknown 'frozen'; choose from probe, random, partial"),
        ("vit_full", "steps", 0, r"config\.steps is 0; it must be at least 1"),
        (
            "vit_full",
            "objective.mode",
            "probe",
            r"config\.objective\.mode: config\.mode says it; leave it out",
        ),
        (
            "vit_full",
            "objective.class_weights",
            "inverse",
            r"class_weights is 'inverse', a count of all patients",
        ),
        (
            "vit_scratch",
            "init_from.workdir",
            "",
            r"config\.init_from\.workdir: not set; mode scratch takes the shape",
        ),
        ("vit_full", "init_from.workdir", "/nonexistent", r"/nonexistent holds no checkpoint"),
        ("vit_full", "data.crop", 1001, r"config\.data\.crop: 1001 samples are not within 1 to 1000"),
        ("vit_full", "data.crop", 120, r"config\.data\.crop is 120, no multiple of .*patch = 50"),
        ("vit_full", "data.crops", 0, r"config\.data\.crops is 0; it must be at least 1"),
        ("vit_full", "crossvalidation.folds", 80, r"config\.crossvalidation: .* too few for 80 folds"),
        ("vit_full", "crossvalidation.inner", 40, r"config\.crossvalidation: .* too few for 40 inner folds"),
        (
            "vit_full",
            "crossvalidation.fold",
            5,
            r"config\.crossvalidation\.fold: no field of crossvalidation",
        ),
        (
            "full",
            "response",
            "LVH",
            r"encoder\.name is 'leadwise', but .* holds a vit of whole recordings; choose",
        ),
        ("comparators", "contenders", {}, r"config\.contenders is empty"),
        ("comparators", "mode", "probe", r"config\.name: missing"),
        (
            "comparators",
            "contenders.mass.name",
            "svn",
            r"config\.contenders\.mass\.name: unknown 'svn'; choose from",
        ),
    ],
)
def test_a_wrong_value_is_said_before_anything_is_written(recipe, tmp_path, name, path, value, message):
    config = recipe(name)
    section, _, key = path.rpartition(".")
    with config.ignore_type(), config.unlocked():
        at = config
        for part in section.split(".") if section else ():
            at = at[part]
        at[key] = value
    refused(config, tmp_path, message)


@pytest.fixture
def altered(tiny_data, monkeypatch):
    """Makes the job read the tiny cohort with some arrays, or its manifest, changed."""

    def alter(manifest=None, **changes):
        pool = open_pool(tiny_data)
        changed = {name: change(pool.arrays[name].copy()) for name, change in changes.items()}
        made = dataclasses.replace(pool, manifest=(manifest or (lambda m: m))(pool.manifest))
        made = dataclasses.replace(made, arrays={**pool.arrays, **changed})
        monkeypatch.setattr(contest, "open_pool", lambda _: made)

    return alter


def test_one_person_under_two_names_is_a_leak(altered, recipe, tmp_path):
    def duplicate(ecg):
        ecg[130] = ecg[3]
        return ecg

    altered(ecg=duplicate)
    refused(
        recipe("comparators"), tmp_path, r"the ECGs of recordings 3 and 130 are identical under two patients"
    )


def test_a_patient_with_two_responses_is_refused(altered, recipe, tmp_path):
    def same(subject):
        subject[:20] = subject[0]
        return subject

    altered(subject=same)
    refused(recipe("comparators"), tmp_path, r"the patient of recordings .* has two truths")


@pytest.mark.parametrize(
    ("value", "message"), [(1.0, r"LVH is 1 for all 144"), (np.nan, "LVH is missing everywhere")]
)
def test_a_response_that_is_the_same_for_everybody_is_refused(altered, recipe, tmp_path, value, message):
    altered(label=lambda label: np.full_like(label, value))
    refused(recipe("comparators"), tmp_path, rf"config\.response: {message}")


def test_paced_patients_are_refused(altered, recipe, tmp_path):
    def renamed(manifest):
        first, *others = manifest.targets
        paced = dataclasses.replace(
            first, target=dataclasses.replace(first.target, name="paced", kind="binary")
        )
        return dataclasses.replace(manifest, targets=(paced, *others))

    def one(label):
        label[:, 0] = 0
        label[5, 0] = 1
        return label

    altered(renamed, label=one)
    refused(
        recipe("comparators"),
        tmp_path,
        r"1 recordings are of paced patients, the first of patient [0-9a-f]{16}",
    )


def test_data_conditioned_otherwise_are_refused_for_fresh_weights_too(altered, recipe, tmp_path):
    def narrower(manifest):
        ecg = dataclasses.replace(manifest.input_spec.ecg, band_hz=(0.5, 40.0))
        return dataclasses.replace(manifest, input_spec=dataclasses.replace(manifest.input_spec, ecg=ecg))

    altered(narrower)
    for mode in ("vit_probe", "vit_random"):
        refused(recipe(mode), tmp_path, r"init_from\.workdir .* other ECG input; data -> run: ecg\.band_hz: ")
