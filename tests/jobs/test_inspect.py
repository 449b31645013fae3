"""What `inspect` says of data and runs, and that damage anywhere is one line with a way out."""

import dataclasses
import functools
import importlib
import json
import shutil
import struct

import numpy as np
import pytest
from absl import flags
from etils import epath

import ecgjax.__main__ as main
from ecgjax.core.files import write_json
from ecgjax.data import pipeline
from ecgjax.data.build import build
from ecgjax.data.cohorts.base import Acquisition, Item, Target
from ecgjax.data.cohorts.synthetic import SyntheticCohort
from ecgjax.data.manifest import read_manifest
from ecgjax.data.shards import DamagedDataError, read_split
from ecgjax.formats.recording import Recording
from ecgjax.jobs import inspect as inspect_job
from ecgjax.reports.image_figure import image_figure
from ecgjax.runs import describing
from ecgjax.signals.ecg import condition
from ecgjax.signals.stft import log_image


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    directory = epath.Path(tmp_path_factory.mktemp("inspect") / "data")
    build(
        SyntheticCohort(train=12, val=4, test=6, image_size=16, seconds=4.0),
        directory,
        conditioning_ecg={"baseline_lambda": 1.6e4, "clip_sigma": None},
        conditioning_cmr={"min_slices": 1},
        ecg_length=400,
        rate_hz=100.0,
        cmr_height=16,
        cmr_width=16,
        pixel_mm=140 / 16,
        examples_per_shard=4,
        key=b"0123456789abcdef",
        progress=False,
    )
    return directory


@pytest.fixture
def data(prepared, tmp_path):
    """A copy to be damaged."""
    return epath.Path(shutil.copytree(prepared, tmp_path / "data"))


@pytest.fixture
def call(monkeypatch):
    """Runs the job as the command line does, with flags of its own: absl declares a name once a process."""
    declare = {name: getattr(flags, name) for name in ("DEFINE_string", "DEFINE_bool", "DEFINE_integer")}

    def run(*arguments):
        values = flags.FlagValues()
        for name, function in declare.items():
            monkeypatch.setattr(flags, name, functools.partial(function, flag_values=values))
        inspect_job.define()
        values(["ecgjax inspect", *map(str, arguments)])
        return inspect_job.run(values)

    return run


def test_every_count_of_the_manifest_is_shown(prepared, capsys, call):
    assert call(f"--data={prepared}") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["train", "12", "12", "3"] in [line[:4] for line in lines]
    assert ["val", "4", "4", "1"] in [line[:4] for line in lines]
    assert ["test", "6", "6", "2"] in [line[:4] for line in lines]


@pytest.fixture(scope="module")
def beats(tmp_path_factory):
    """A data set whose examples are single beats of one lead, with the settings of their image."""
    directory = epath.Path(tmp_path_factory.mktemp("beats") / "data")
    build(
        OneBeat(),
        directory,
        conditioning_ecg={"baseline_lambda": None, "clip_sigma": None, "normalise": "range"},
        conditioning_cmr=None,
        ecg_length=256,
        rate_hz=360.0,
        leads=("MLII",),
        band_hz=(0.5, 40.0),
        window="beat",
        image={"span": 256, "win": 64, "hop": 16, "n_fft": 128, "bins": 16, "frames": 17},
        progress=False,
    )
    return directory


class OneBeat:
    """A sinusoid of 22.5 Hz, bin 8 of 16, with three beats in each split."""

    name, targets, notes = "beats", (Target("N", "binary"), Target("V", "binary")), ("Q is left out",)

    def items(self):
        splits = ("train", "val", "test")
        return [Item(split, f"{split}{at}", split) for split in splits for at in (400, 500, 600)]

    def load(self, item):
        wave = np.sin(2 * np.pi * 22.5 * np.arange(1200) / 360)[None]
        ecg = Recording(signal_mv=wave, rate_hz=360.0, leads=("MLII",))
        beat, rr_s = int(item.record[-3:]), (0.8, 0.8, 0.8, 0.8)
        return Acquisition(ecg=ecg, cmr=None, targets={"N": 0.0, "V": 1.0}, beat=beat, rr_s=rr_s)


def test_beats_are_described_and_drawn_on_paper_and_as_images(beats, tmp_path, capsys, call):
    assert call(f"--data={beats}", f"--pictures={tmp_path / 'pictures'}", "--examples=2") == 0
    out = capsys.readouterr().out
    assert "an example is one beat, its R peak in the middle" in out
    assert "band-pass before it: 0.5 to 40 Hz" in out
    assert "bins 16, frames 17" in out
    assert "Q is left out" in out
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["ecg-test-0.png", "ecg-test-1.png", "image-test.png"]


def test_a_tone_is_drawn_at_its_frequency(beats):
    manifest = read_manifest(beats)
    data = read_split(beats, manifest, "test")
    spec = manifest.input_spec.ecg.image
    images = log_image(data["ecg"] * data["ecg_step"][:, None, None], spec)
    figure = image_figure(images, spec=spec, rate_hz=360.0, row_names=("", "", ""), leads=("MLII",))
    axes = figure.axes[0]
    shown = axes.images[0]
    left, right, low, high = shown.get_extent()
    height = (high - low) / spec.bins
    loudest = np.asarray(shown.get_array())[:, spec.frames // 2].argmax()
    assert low + (loudest + 0.5) * height == pytest.approx(22.5)
    assert (left + right) / 2 == pytest.approx(128 / 360)  # The middle of 256 samples, where the R peak is.
    with pytest.raises(ValueError, match="for 1 names of rows and 1 leads"):
        image_figure(images, spec=spec, rate_hz=360.0, row_names=("",), leads=("MLII",))


def test_statistics_are_those_of_the_stored_labels(prepared):
    manifest = read_manifest(prepared)
    label = read_split(prepared, manifest, "train")["label"]
    rows = {line.split()[0]: line.split() for line in describing.describe_data(manifest) if line}
    volumes = label[:, manifest.target_names.index("LVEDV")].astype(float)
    assert rows["LVEDV"][1:] == ["regression", "mL", f"{volumes.mean():.4g}", f"{volumes.std():.4g}", "0.0%"]
    fibrillation = label[:, manifest.target_names.index("AF")].astype(float)
    assert rows["AF"][1:] == ["binary", f"{fibrillation.mean():.4g}", "0.0%", "control"]


def test_missing_labels_and_rejects_are_counted(prepared):
    manifest = read_manifest(prepared)
    columns = (dataclasses.replace(manifest.targets[0], count=9), *manifest.targets[1:])
    text = describing.describe_data(
        dataclasses.replace(manifest, targets=columns, rejects={"ecg nan": 3, "ecg flat": 1}, withdrawn=2)
    )
    assert next(line for line in text if line.startswith("LVEDV")).endswith("25.0%")
    assert text[-1] == "rejected records: ecg flat 1, ecg nan 3; withdrawn subjects: 2"


def test_verify_reads_every_byte(data, capsys, call):
    assert call(f"--data={data}", "--verify") == 0
    size = sum(path.stat().length for path in data.iterdir() if path.suffix == ".array_record")
    assert f"OK: 6 shards, {size / 1e3:.1f} kB" in capsys.readouterr().out
    shard = sorted(data.glob("val-*"))[0]
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1  # Padding: no record is touched, and yet the file is another.
    shard.write_bytes(bytes(content))
    assert call(f"--data={data}", "--verify") == 1
    said = capsys.readouterr().out
    assert "DAMAGED: 1 damaged shard(s)" in said
    assert shard.name in said
    assert "prepare" in said


def test_pictures_are_drawn_in_millivolt_for_the_examples_asked_for(prepared, tmp_path, call, monkeypatch):
    drawn = []
    paper = describing.ecg_paper
    monkeypatch.setattr(describing, "ecg_paper", lambda mv, **k: drawn.append(mv) or paper(mv, **k))
    output = tmp_path / "pictures"
    assert call(f"--data={prepared}", f"--pictures={output}", "--examples=2") == 0
    names = sorted(path.name for path in output.iterdir())
    assert names == ["cmr-test.png", "ecg-test-0.png", "ecg-test-1.png"]
    for name in names:
        header = (output / name).read_bytes()[:24]
        assert header[:8] == b"\x89PNG\r\n\x1a\n"
        assert min(struct.unpack(">II", header[16:])) > 100
    cohort = SyntheticCohort(train=12, val=4, test=6, image_size=16, seconds=4.0)
    raw = cohort.load(next(item for item in cohort.items() if item.split == "test")).ecg.signal_mv
    expected = raw - condition(raw, baseline_lambda=1.6e4, clip_sigma=None).baseline
    np.testing.assert_allclose(drawn[0], expected, atol=1e-3)  # Half a step of int16 is far below 1 uV.


def test_more_pictures_than_examples_are_refused(prepared, tmp_path, call):
    with pytest.raises(ValueError, match="--examples: 7 asked for, split test holds 6"):
        call(f"--data={prepared}", f"--pictures={tmp_path / 'p'}", "--examples=7")


@pytest.fixture
def workdir(prepared, tmp_path):
    """What training leaves before its first checkpoint."""
    directory = epath.Path(tmp_path / "run")
    config = importlib.import_module("configs.mae_ecg").get_config("demo").to_dict()
    config["data"].update(directory=str(prepared), crop=200)
    config["steps"] = 30
    write_json(directory / "config.json", config)
    shutil.copy(prepared / "manifest.json", directory / "manifest.json")
    return directory


def test_a_young_workdir_says_that_nothing_is_there_yet(workdir):
    text = "\n".join(describing.describe_workdir(workdir))
    assert "objective masked, not TRAINED yet, 30 steps asked for" in text
    assert "checkpoints: none" in text
    assert "metrics: none yet" in text
    assert "results: none yet" in text


def test_parameters_add_up_over_the_branches(workdir):
    lines = describing.describe_workdir(workdir)
    start = lines.index(next(line for line in lines if line.startswith("branch"))) + 1
    counts = {}
    for line in lines[start : lines.index("", start)]:
        name, count = line.split()
        counts[name] = int(count.replace(",", ""))
    total = counts.pop("all")
    assert total == sum(counts.values()) > 50_000
    assert {name.split("/")[0] for name in counts} >= {"ecg"}
    assert all(name.count("/") <= 1 for name in counts)


def test_the_last_value_of_every_metric_is_shown(workdir):
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "val_loss": 3.5}, {"step": 3, "loss": 1.25}]
    (workdir / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 4, "lo')
    lines = [line.split() for line in describing.describe_workdir(workdir)]
    assert ["loss", "1.25", "3"] in lines
    assert ["val_loss", "3.5", "2"] in lines


def test_the_headline_of_an_evaluator_leaves_controls_and_unscored_targets_out(workdir):
    row = {"input": "ecg/embedding", "metric": "r2", "control": False}
    rows = [{**row, "value": 0.25}, {**row, "value": 0.75}, {**row, "value": None}]
    rows.append({**row, "value": 0.0, "control": True})
    write_json(workdir / "results" / "linear_probe" / "20.json", {"rows": rows, "scalars": {}})
    write_json(workdir / "results" / "retrieval" / "20.json", {"rows": [], "scalars": {"top1": 0.125}})
    write_json(workdir / "TRAINED", {"step": 30, "params": "x"})
    text = "\n".join(" ".join(line.split()) for line in describing.describe_workdir(workdir))
    assert "linear_probe 20 ecg/embedding mean r2 0.5\n" in text + "\n"
    assert "retrieval 20 top1 0.125" in text
    assert "TRAINED at step 30" in text


def test_a_directory_of_another_kind_is_refused_with_the_way_out(prepared, workdir, tmp_path, call):
    with pytest.raises(ValueError, match="give it as --data"):
        call(f"--workdir={prepared}")
    with pytest.raises(ValueError, match="no workdir of ecgjax: correct --workdir"):
        call(f"--workdir={tmp_path / 'nowhere'}")
    with pytest.raises(ValueError, match="is no prepared data directory"):
        call(f"--data={tmp_path}")
    with pytest.raises(ValueError, match="one of them"):
        call()
    with pytest.raises(ValueError, match="one of them"):
        call(f"--data={prepared}", f"--workdir={workdir}")
    with pytest.raises(ValueError, match="give them with --data"):
        call(f"--workdir={workdir}", "--verify")


def cut(shard):
    shard.write_bytes(shard.read_bytes()[: shard.stat().length // 2])


def flip(shard):
    content = bytearray(shard.read_bytes())
    content[2 * 65536 // 3] ^= 4
    shard.write_bytes(bytes(content))


def zero(shard):
    shard.write_bytes(bytes(shard.stat().length))


def remove(shard):
    shard.unlink()


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("damage", [cut, flip, zero, remove])
def test_training_on_a_damaged_shard_ends_in_one_line_with_the_way_out(data, damage, cache):
    shard = sorted(data.glob("train-*"))[1]
    damage(shard)
    with pytest.raises(DamagedDataError, match="prepare` again") as caught:
        next(pipeline.train_batches(data, batch_size=12, seed=0, crop=200, cache=cache))
    assert shard.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert main._for_the_user(caught.value)  # Else the command line would print a traceback.


def test_a_manifest_cut_short_says_how_to_get_it_back(data):
    path = data / "manifest.json"
    path.write_text(path.read_text()[:300])
    with pytest.raises(ValueError, match=r"cut short or edited.*prepare` again"):
        read_manifest(data)
