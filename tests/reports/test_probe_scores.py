import fake_results
import fake_runs
import numpy as np
import pytest

from ecgjax.core.result_files import read_results
from ecgjax.metrics.classification import auroc
from ecgjax.metrics.regression import r2
from ecgjax.reports.probe_scores import load


def test_cells_are_means_over_seeds_of_the_saved_predictions(fake, scored):
    root, _ = fake
    row = scored.row("MDM")
    for target, metric in (("LVEF", r2), ("DCM", auroc)):
        values = []
        for seed in range(3):
            _, arrays = read_results(root / f"seed{seed}" / "mdm", "linear_probe", "last")
            values.append(metric(*(arrays[f"ecg/embedding|{target}|{x}"] for x in ("truth", "prediction"))))
        cell = row.cells[target]
        assert cell.value == pytest.approx(np.mean(values))
        assert cell.low < cell.value < cell.high
        assert (cell.n, cell.subjects) == (300, 150)


def test_headline_mean_leaves_controls_out(scored):
    row = scored.row("MDM")
    assert scored.headline("auroc") == ("LVH", "DCM", "MI")
    want = np.mean([row.cells[target].value for target in ("LVH", "DCM", "MI")])
    assert row.mean(scored.headline("auroc")).value == pytest.approx(want)
    assert [column.target for column in scored.targets("auroc")][-2:] == ["LBBB", "AF"]


def test_a_missing_workdir_is_a_row_that_says_so(scored):
    row = scored.row("supervised ECG")
    assert row.missing == tuple(f"seed{i}/never_trained/results/linear_probe/*.json" for i in range(3))
    assert np.isnan(row.mean(scored.headline("r2")).value)


def test_some_seeds_missing_keep_the_others(fake):
    root, spec = fake
    row = {**spec["rows"][3], "workdirs": ["seed0/mdm", "seed9/mdm"]}
    found = load([row], root=root, draws=10).rows[0]
    assert found.seeds == 1
    assert found.missing == ("seed9/mdm/results/linear_probe/*.json",)


def test_last_means_the_greatest_step_and_a_number_means_itself(tmp_path):
    for step, noise in ((100, 2.0), (1000, 0.1), (900, 2.0)):
        fake_runs.write_probe(tmp_path / "run", noise=noise, seed=0, step=step)
    row = fake_runs.row("run", "run")
    assert load([row], root=tmp_path, draws=5).rows[0].runs[0].step == 1000
    assert load([{**row, "step": 900}], root=tmp_path, draws=5).rows[0].runs[0].step == 900
    missing = load([{**row, "step": 7}], root=tmp_path, draws=5).rows[0]
    assert missing.missing == ("run/results/linear_probe/7.json",)


def test_a_row_from_a_file_has_cells_and_a_mean_without_interval(scored):
    row = scored.row("attainable")
    assert (row.cells["LVEF"].low, row.cells["LVEF"].value) == (0.61, 0.62)
    mean = row.mean(scored.headline("r2"))
    assert mean.value == pytest.approx(0.62)
    assert np.isnan(mean.low)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputt": "x"}, r"rows\[0\]: unknown \['inputt'\]"),
        ({"input": "cmr/embedding"}, "no input 'cmr/embedding'; it has ecg/embedding"),
        ({"name": "MDM", "evaluator": None}, r"\['evaluator'\] missing"),
    ],
)
def test_a_wrong_spec_is_named(fake, change, message):
    root, spec = fake
    row = {key: value for key, value in {**spec["rows"][3], **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        load([row], root=root, draws=5)


def test_seeds_of_one_row_on_different_records_are_refused(tmp_path):
    fake_runs.write_probe(tmp_path / "a", noise=1.0, seed=0)
    fake_runs.write_probe(tmp_path / "b", noise=1.0, seed=1, order=np.arange(200))
    with pytest.raises(ValueError, match="different records"):
        load([fake_runs.row("x", "a", "b")], root=tmp_path, draws=5)


def test_results_of_classes_are_no_row_of_a_probe(tmp_path):
    row = fake_results.row("all classes", "macro_f1", "prediction", 0.5, kind="class", n=30, subjects=3)
    fake_results.write(tmp_path / "run", "classes", rows=[row], objective="finetune")
    spec = {**fake_runs.row("beats", "run"), "evaluator": "classes", "input": "prediction"}
    with pytest.raises(
        ValueError, match="rows of evaluator classes have macro_f1, this table shows r2, auroc"
    ):
        load([spec], root=tmp_path)
