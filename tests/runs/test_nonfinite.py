"""A loss that is not finite ends the run, names the step exactly, and leaves the batch of that step on file."""

import json

import numpy as np
import pytest
from etils import epath
from killed_runs import STEPS, make_config, make_mean

from ecgjax.data import assembly, pipeline
from ecgjax.data.manifest import read_manifest
from ecgjax.data.shards import ShardSource
from ecgjax.objectives import OBJECTIVES
from ecgjax.runs import nonfinite, training
from ecgjax.train import checkpoint
from ecgjax.train.meter import NotFinite

CULPRIT = 11


@pytest.fixture(scope="module", autouse=True)
def _mean():
    """The objective of these runs is known while they are tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OBJECTIVES, "mean", make_mean)
        yield


@pytest.fixture
def poisoned(monkeypatch):
    """Example CULPRIT has no finite sample."""
    stored = assembly.Stored.__call__

    def read(self, position):
        example = dict(stored(self, position))
        if position == CULPRIT and self.data.split == "train":
            example["ecg_step"] = np.float32(np.nan)
        return example

    monkeypatch.setattr(assembly.Stored, "__call__", read)


def make_quiet_config(data):
    """Looks at its loss at the last step only, saves there."""
    config = make_config(str(data))
    config.log_every, config.validate_every, config.save_every = STEPS, STEPS, STEPS
    config.data.cache = False  # A cache is filled by another function than the poisoned one.
    return config


def first_batch_with(index, config):
    batches = pipeline.train_batches(config.data.directory, batch_size=16, seed=config.seed, crop=100)
    return next(number for number, batch in enumerate(batches) if index in batch["index"])


@pytest.mark.usefixtures("poisoned")
def test_the_example_that_broke_a_run_is_on_file(tiny_data, tmp_path):
    config, workdir = make_quiet_config(tiny_data), epath.Path(tmp_path / "run")
    number = first_batch_with(CULPRIT, config)
    path = workdir / "nonfinite" / f"{number + 1}.json"
    message = rf"the loss is nan, the gradient norm nan at step {number + 1}; lower .* are in {path}\. What was saved"
    with pytest.raises(ValueError, match=message):
        training.train(config, workdir)
    assert checkpoint.steps(workdir) == [0]
    assert not (workdir / "TRAINED").exists()
    report = json.loads(path.read_text())
    assert (report["step"], report["batch"], report["loss"]) == (number + 1, number, "nan")
    assert report["not_finite"] == [CULPRIT]
    batch = pipeline.train_batches(tiny_data, batch_size=16, seed=config.seed, crop=100).read(
        number, np.arange(16)
    )
    assert [example["index"] for example in report["examples"]] == batch["index"].tolist()
    source = ShardSource(tiny_data, read_manifest(tiny_data), "train")
    for example, ecg in zip(report["examples"], batch["ecg"], strict=True):
        stored = read_manifest(tiny_data).schema.views(source[example["index"]], ("subject",))
        assert example["subject"] == stored["subject"].tobytes().hex()
        if example["index"] != CULPRIT:
            assert example["largest_ecg"] == pytest.approx(float(np.abs(ecg).max()))
    culprit = next(example for example in report["examples"] if example["index"] == CULPRIT)
    assert (culprit["finite"], culprit["largest_ecg"]) == (False, "nan")
    shards = read_manifest(tiny_data).split("train").shards
    before = [shard.examples for shard in shards[: [s.file for s in shards].index(culprit["shard"])]]
    assert sum(before) + culprit["record"] == CULPRIT


def test_a_batch_larger_than_what_is_read_at_once_is_whole(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(nonfinite, "_ROWS", 5)
    batches = pipeline.train_batches(tiny_data, batch_size=16, seed=0, crop=100, rows=np.arange(3))
    error = NotFinite(4, float("inf"), 1.0)
    nonfinite.write_report(epath.Path(tmp_path / "4.json"), error, batches, read_manifest(tiny_data))
    report = json.loads((tmp_path / "4.json").read_text())
    whole = pipeline.train_batches(tiny_data, batch_size=16, seed=0, crop=100)
    whole.seek(3)
    assert [example["index"] for example in report["examples"]] == next(whole)["index"].tolist()
    assert (report["loss"], report["grad_norm"], report["not_finite"]) == ("inf", "1.0", [])
    assert all(low < high for low, high in (example["cmr_range"] for example in report["examples"]))
    assert batches.next_batch == 0
