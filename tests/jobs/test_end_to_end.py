"""Every verb in order on the tiny cohort, each in a process of its own, as launch/local.sh runs them."""

import json

import numpy as np
import pyarrow.parquet
import pytest
from tiny_runs import cross_modal, masked

from ecgjax.core import trees
from ecgjax.runs import opening


@pytest.fixture(scope="module")
def root(command, tmp_path_factory):
    """prepare, two runs, their evaluation, export and report; every command must end with 0."""
    root = tmp_path_factory.mktemp("runs")
    data, mdm, mmcl = root / "data", root / "seed0" / "mdm", root / "seed0" / "mmcl"
    for arguments in (
        ["prepare", "--config=configs/prepare.py:tiny", f"--directory={data}", "--workers=1"],
        ["train", *masked(data, 6), f"--workdir={mdm}"],
        ["train", *cross_modal(data, 6), f"--config.init_from.workdir={mdm}", f"--workdir={mmcl}"],
        ["evaluate", f"--workdir={mdm}", "--steps=0,last", "--crops=1"],
        ["evaluate", f"--workdir={mmcl}", "--follow", "--crops=1"],
        ["export", f"--workdir={mmcl}", "--crops=1", "--plot=LVEF"],
        ["report", "--config=configs/report.py:synthetic", f"--root={root}", f"--data={data}"],
    ):
        code, said = command(*arguments)
        assert code == 0, f"{arguments[0]}: {said}"
        assert "Traceback" not in said
    return root


@pytest.mark.parametrize("run", ["mdm", "mmcl"])
def test_a_workdir_holds_every_artefact(root, run):
    workdir = root / "seed0" / run
    for name in (
        "config.json",
        "input_spec.json",
        "manifest.json",
        "metrics.jsonl",
        "tensorboard",
        "TRAINED",
        "checkpoints/0",
        "checkpoints/6",
        "results/linear_probe*/6.json",
        "results/linear_probe*/6.npz",
    ):
        assert list(workdir.glob(name)), name


def test_the_account_of_the_transfer_is_kept(root):
    text = (root / "seed0" / "mmcl" / "init_from.txt").read_text()
    assert "as drawn: cmr/" in text
    assert "unused: ecg/decoder" in text
    assert "ecg/encoder/patch_embed/kernel" in text


def test_a_transferred_encoder_starts_where_the_first_run_ended(root):
    source = opening.open_checkpoint(root / "seed0" / "mdm", 6).params["ecg"]["encoder"]
    started = opening.open_checkpoint(root / "seed0" / "mmcl", 0).params["ecg"]["encoder"]
    source, started = trees.flatten(source), trees.flatten(started)
    shared = source.keys() & started.keys()
    assert len(shared) > 10
    assert all(np.array_equal(source[name], started[name]) for name in shared)


def test_results_of_the_first_weights_and_the_last_differ(root):
    folder = next((root / "seed0" / "mdm" / "results").glob("linear_probe*"))
    results = [json.loads((folder / f"{step}.json").read_text()) for step in (0, 6)]
    assert [result["step"] for result in results] == [0, 6]
    assert results[0]["checkpoint"] != results[1]["checkpoint"]
    assert [row["target"] for row in results[0]["rows"]] == [row["target"] for row in results[1]["rows"]]
    assert results[0]["rows"]


def test_the_export_has_every_subject_once_with_its_split(root):
    folder = root / "seed0" / "mmcl" / "export"
    tables = [pyarrow.parquet.read_table(path) for path in folder.glob("*.parquet")]
    assert sum(table.num_rows for table in tables) == 64 + 32 + 48
    assert list(folder.glob("*.npz"))
    assert {path.name for path in folder.glob("*.png")} == {
        "ecg_embedding-LVEF.png",
        "cmr_embedding-LVEF.png",
    }
    subjects = tables[0].column("subject").to_pylist()
    assert len(set(subjects)) == 144
    assert not [subject for subject in subjects if "synthetic" in str(subject)]


def test_the_report_holds_its_rows_and_says_what_is_missing(root):
    page = (root / "report.html").read_text()
    for row in ("random init", "MDM", "MMCL from MDM", "hand features", "CMR input"):
        assert row in page, row
    assert "missing" in page
    assert "<svg" in page or "data:image" in page
    assert "share a strip" in page  # Localisation: the demo's patches span all leads.
    assert "data:image/gif" in page
    assert 'src="http' not in page
