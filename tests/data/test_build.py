import csv
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tiny_cohort import KEY, SETTINGS, TinyCohort

from ecgjax.data import build_shard
from ecgjax.data.build import build, read_identifiers_file
from ecgjax.data.cohorts.base import Item
from ecgjax.data.examples import without_identifiers
from ecgjax.data.identifiers import hash_identifier
from ecgjax.data.manifest import read_manifest
from ecgjax.data.pipeline import train_batches
from ecgjax.data.schema import dequantise
from ecgjax.data.shards import read_split, verify

FAULTS = (
    (1, "damaged"),
    (2, "nan"),
    (3, "flat"),
    (4, "short"),
    (6, "no cmr"),
    (7, "label"),
    (11, "no ecg"),
)


def shards(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.glob("*.array_record"))}


def rejects(directory):
    with open(directory / "rejects.csv") as file:
        return list(csv.DictReader(file))


def test_splits_are_counted_in_examples_and_subjects(prepared):
    splits = read_manifest(prepared).splits
    counts = {name: (split.examples, split.subjects) for name, split in splits.items()}
    assert counts == {"train": (30, 24), "val": (3, 3), "test": (3, 3)}
    assert [shard.examples for shard in splits["train"].shards] == [5] * 6
    assert splits["train"].shards[0].file == "train-00000-of-00006.array_record"
    assert {shard.file for split in splits.values() for shard in split.shards} == set(shards(prepared))


def test_target_statistics_are_of_the_train_split_without_missing(prepared):
    manifest = read_manifest(prepared)
    label = read_split(prepared, manifest, "train")["label"].astype(np.float64)
    for i, column in enumerate(manifest.targets):
        assert column.mean == pytest.approx(np.nanmean(label[:, i]), rel=1e-12)
        assert column.std == pytest.approx(np.nanstd(label[:, i]), rel=1e-12)
        assert column.count == np.sum(~np.isnan(label[:, i]))
    assert manifest.targets[0].count < 30
    assert manifest.targets[1].prevalence == manifest.targets[1].mean
    assert manifest.targets[0].prevalence is None
    assert [column.target for column in manifest.targets] == list(TinyCohort().targets)


def test_offset_and_scale_lead_back_to_millivolt(prepared):
    stored = read_split(prepared, read_manifest(prepared), "test")
    cohort = TinyCohort()
    item = next(item for item in cohort.items() if item.split == "test")
    conditioned = dequantise(stored["ecg"], stored["ecg_step"])[0]
    raw = conditioned * stored["ecg_scale"][0][:, None] + stored["ecg_offset"][0][:, None]
    want = cohort.load(item).ecg.signal_mv
    # The baseline is taken out and peaks are clipped, so only the shape of each lead is the raw one's.
    for lead in range(12):
        assert np.corrcoef(raw[lead], want[lead])[0, 1] > 0.98


def test_every_kind_of_bad_input_is_counted_and_the_rest_is_kept(tmp_path):
    manifest = build(TinyCohort(faults=FAULTS), tmp_path / "data", **SETTINGS)
    rows = rejects(tmp_path / "data")
    assert len(rows) == sum(manifest.rejects.values()) == 7
    assert manifest.splits["train"].examples == 30 - 7
    by_record = {row["record"]: row for row in rows}
    kinds = {}
    for position, fault in FAULTS:
        record = hash_identifier(f"visits/subject-{position:04d}_0.dat", key=KEY, kind="record").hex()
        kinds[fault] = by_record[record]["kind"]
        assert by_record[record]["split"] == "train"
    assert len(set(kinds.values())) == 7  # One kind for each fault.
    assert kinds["damaged"] == "damaged"
    assert kinds["no cmr"] == "cmr missing"
    assert kinds["no ecg"] == "ecg missing"
    assert "target infarct is 3.0, must be 0, 1 or missing" in {row["message"] for row in rows}
    verify(tmp_path / "data", manifest, progress=False)


def test_no_raw_identifier_reaches_any_file(tmp_path):
    build(TinyCohort(faults=FAULTS), tmp_path / "data", **SETTINGS)
    for path in (tmp_path / "data").rglob("*"):
        if path.is_file():
            assert b"subject-0" not in path.read_bytes(), path
            assert KEY not in path.read_bytes(), path
    message = next(row["message"] for row in rejects(tmp_path / "data") if row["kind"] == "damaged")
    assert message == "<path>: checksum 1 against 2 of <id>"


def test_identifiers_and_paths_are_blanked_in_messages():
    item = Item("4711", "records500/00000/00001_hr", "train")
    message = (
        "/data/ptb/records500/00000/00001_hr.dat: 00001_hr of 4711 has 47110 samples at 0.5 mV/s\nand more"
    )
    assert without_identifiers(message, item) == "<path>: <id> of <id> has 47110 samples at 0.5 mV/s and more"


def test_an_unexpected_error_stops_the_build_and_names_the_record(tmp_path):
    with pytest.raises(
        RuntimeError, match=r"Record \w{16} of split train stopped the build with KeyError.*kept"
    ):
        build(TinyCohort(faults=((12, "bug"),)), tmp_path / "data", **SETTINGS)
    assert len(shards(tmp_path / "data")) == 2  # What was finished before stays.
    with pytest.raises(ValueError, match="has not finished; run it"):
        read_manifest(tmp_path / "data")


def test_everything_rejected_is_an_error(tmp_path):
    cohort = TinyCohort(subjects=5, faults=tuple((i, "flat") for i in range(5)))
    with pytest.raises(ValueError, match=r"All 6 items of cohort tiny were rejected: \{'ecg flat': 6\}"):
        build(cohort, tmp_path / "data", **SETTINGS)
    assert len(rejects(tmp_path / "data")) == 6


def test_a_shard_whose_items_are_all_rejected_is_left_out(tmp_path):
    cohort = TinyCohort(subjects=8, faults=((0, "nan"), (1, "nan"), (2, "nan"), (3, "nan")))
    manifest = build(cohort, tmp_path / "data", **SETTINGS)
    assert [shard.file for shard in manifest.splits["train"].shards] == ["train-00001-of-00002.array_record"]
    assert build(cohort, tmp_path / "data", **SETTINGS) == manifest
    assert next(train_batches(tmp_path / "data", batch_size=2, seed=0))["mask"].all()


def test_two_workers_write_the_bytes_of_one(prepared, tmp_path):
    manifest = build(TinyCohort(), tmp_path / "data", **{**SETTINGS, "workers": 2})
    assert shards(tmp_path / "data") == shards(prepared)
    assert manifest == read_manifest(prepared)


_RUN = """
import sys
sys.path.insert(0, {tests!r})
from tiny_cohort import SETTINGS, TinyCohort
from ecgjax.data.build import build

if __name__ == "__main__":
    build(TinyCohort(seconds_per_item=0.05), {directory!r}, **{{**SETTINGS, "workers": {workers}}})
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(prepared, tmp_path, workers):
    directory, script = tmp_path / "data", tmp_path / "run.py"
    here = pathlib.Path(__file__).parent
    script.write_text(_RUN.format(tests=str(here), directory=str(directory), workers=workers))
    environment = {**os.environ, "PYTHONPATH": str(here.parents[1])}
    process = subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(list(directory.glob("build/*.array_record.json"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)  # Its workers hold the pipe: this returns when the last of them is gone.
    assert not (directory / "manifest.json").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in directory.glob("*.array_record")}
    assert 2 <= len(kept) < 8
    (directory / "build" / "val-00000-of-00001.array_record.json").write_text(
        "{"
    )  # Cut while it was written.

    manifest = build(TinyCohort(seconds_per_item=0.05), directory, **SETTINGS)
    assert shards(directory) == shards(prepared)
    assert manifest.splits == read_manifest(prepared).splits
    finished = {name for name in kept if (directory / name).stat().st_mtime_ns == kept[name]}
    assert len(finished) >= 2  # They were kept, not built again.
    assert not [*directory.rglob(".*.tmp"), *directory.rglob(".*.partial")]


def test_workers_import_nothing_that_is_slow_and_not_theirs():
    heavy = ("jax", "matplotlib", "sklearn", "grain", "tensorflow_datasets", "scipy.signal", "scipy.stats")
    code = (
        "import sys; import ecgjax.data.build_shard, ecgjax.data.cohorts; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    root = pathlib.Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_the_environment_of_workers_yields_to_the_callers_and_leaves_no_trace(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    with build_shard._environment({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}):
        assert os.environ["OMP_NUM_THREADS"] == "3"
        assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "OPENBLAS_NUM_THREADS" not in os.environ


def test_a_second_run_changes_nothing(prepared, tmp_path):
    build(TinyCohort(), tmp_path / "data", **SETTINGS)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").glob("*.array_record")}
    assert build(TinyCohort(), tmp_path / "data", **SETTINGS) == read_manifest(prepared)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_another_config_is_refused_and_the_difference_named(tmp_path):
    directory = tmp_path / "data"
    build(TinyCohort(subjects=3), directory, **SETTINGS)
    before = shards(directory)
    with pytest.raises(ValueError, match=r"input_spec.ecg.length: 400 -> 300.*empty directory"):
        build(TinyCohort(subjects=3), directory, **{**SETTINGS, "ecg_length": 300})
    with pytest.raises(ValueError, match=r"cohort.seed: 0 -> 1"):
        build(TinyCohort(subjects=3, seed=1), directory, **SETTINGS)
    with pytest.raises(ValueError, match=r"items.count: 4 -> 5"):
        build(TinyCohort(subjects=4), directory, **SETTINGS)
    with pytest.raises(ValueError, match="key: "):
        build(TinyCohort(subjects=3), directory, **{**SETTINGS, "key": KEY[::-1]})
    assert shards(directory) == before


def test_a_foreign_directory_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match=r"holds \['thesis.tex'\] and is no data directory of ecgjax"):
        build(TinyCohort(), tmp_path, **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_builders_do_not_share_a_directory(tmp_path):
    import fcntl

    (tmp_path / "build").mkdir()
    with open(tmp_path / "build" / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="Another process is preparing"):
            build(TinyCohort(), tmp_path, **SETTINGS)


@dataclasses.dataclass(frozen=True)
class Listing(TinyCohort):
    listing: tuple[Item, ...] = ()

    def items(self):
        return list(self.listing)


def _listing(*triples):
    return Listing(listing=tuple(Item(*triple) for triple in triples))


def test_a_subject_in_two_splits_is_refused_without_naming_it(tmp_path):
    cohort = _listing(("s-0001", "v/s-0001_0.dat", "train"), ("s-0001", "v/s-0001_1.dat", "test"))
    with pytest.raises(ValueError, match=r"Items 0 and 1 .* splits 'train' and 'test'") as error:
        build(cohort, tmp_path / "data", **SETTINGS)
    assert "s-0001" not in str(error.value)


def test_a_record_listed_twice_and_a_foreign_split_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Items 0 and 1 .* one record identifier"):
        build(_listing(("a", "r", "train"), ("b", "r", "train")), tmp_path / "data", **SETTINGS)


def test_a_cohort_without_items_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no items to prepare: it lists 0"):
        build(_listing(), tmp_path / "data", **SETTINGS)


def test_withdrawn_subjects_leave_no_trace(prepared, tmp_path):
    (tmp_path / "withdrawn.txt").write_text(
        "# As of May\nsubject-0005\n\nsubject-0006 # late\nsubject-9999\n"
    )
    withdrawn = read_identifiers_file(tmp_path / "withdrawn.txt")
    assert withdrawn == ("subject-0005", "subject-0006", "subject-9999")
    manifest = build(TinyCohort(), tmp_path / "data", withdrawn=withdrawn, **SETTINGS)
    assert manifest.withdrawn == 2  # The third is not of this cohort.
    assert manifest.splits["train"].examples == 30 - 3  # Subject 5 has two records.
    gone = {hash_identifier(name, key=KEY, kind="subject") for name in withdrawn}
    arrays = read_split(tmp_path / "data", manifest, "train", names=("subject",))
    assert not gone & {row.tobytes() for row in arrays["subject"]}
    assert gone & {row.tobytes() for row in read_split(prepared, read_manifest(prepared), "train")["subject"]}


def test_a_key_is_made_once_and_kept_private(tmp_path):
    settings = {name: value for name, value in SETTINGS.items() if name != "key"}
    manifest = build(TinyCohort(subjects=3), tmp_path / "data", **settings)
    path = tmp_path / "data" / "private" / "key"
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert oct(path.parent.stat().st_mode & 0o777) == "0o700"
    assert build(TinyCohort(subjects=3), tmp_path / "data", **settings) == manifest
    elsewhere = build(TinyCohort(subjects=3), tmp_path / "other", key_file=path, **settings)
    assert elsewhere.fingerprint == manifest.fingerprint
    with pytest.raises(ValueError, match="give one"):
        build(TinyCohort(subjects=3), tmp_path / "third", key=KEY, key_file=path, **settings)


def test_wrong_numbers_are_refused(tmp_path):
    for name in ("examples_per_shard", "workers", "ecg_length"):
        with pytest.raises(ValueError, match=f"config.{name}: 0 is below 1"):
            build(TinyCohort(), tmp_path / "data", **{**SETTINGS, name: 0})


def test_an_unlisted_target_stops_the_build(tmp_path):
    cohort = TinyCohort(targets=TinyCohort().targets[:1])
    with pytest.raises(RuntimeError, match=r"targets .'index', 'infarct'. that its `targets` do not list"):
        build(cohort, tmp_path / "data", **SETTINGS)


def test_the_progress_bar_counts_items(tmp_path, capfd):
    build(TinyCohort(subjects=10), tmp_path / "data", **{**SETTINGS, "progress": True, "workers": 2})
    assert "12/12" in capfd.readouterr().err


def test_the_config_on_disk_is_the_manifests(prepared):
    assert json.loads((prepared / "build" / "config.json").read_text()) == read_manifest(prepared).config
