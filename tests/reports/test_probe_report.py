import fake_runs
import numpy as np
import pytest
from page_checks import check_page

from ecgjax.reports import curves, probe_figures
from ecgjax.reports.probe_report import Gallery, build


@pytest.fixture(scope="module")
def report(fake):
    root, spec = fake
    images = np.random.default_rng(0).random((2, 3, 16, 16)).astype(np.float32)
    ecg = np.stack([fake_runs.ecg_like(seconds=10, seed=seed) for seed in range(2)])
    gallery = Gallery(ecg, 100.0, images, ("ES", "mid", "ED"), ("subject a", "subject <b>"))
    return build({**spec, "draws": 50}, root=root, gallery=gallery)


def test_the_page_is_well_formed_and_loads_nothing(report):
    check_page(report.html, pictures=7)  # Two forests, two reconstructions, CMR, ECG, losses.


def test_the_page_escapes_names_and_configs(report):
    assert "<script>" not in report.html
    assert "&lt;script&gt;alert(1)" in report.html
    assert "Synthetic cohort &lt;1&gt;" in report.html


def test_the_page_has_tables_claims_configs_and_what_is_missing(report):
    for text in ("Phenotypes: R²", "does not hold", "seed0/mdm: config", "missing: seed0/never_trained"):
        assert text in report.html
    assert "seed2/mmcl step 400 (c0ffeec0ffee)" in report.html
    assert "mean squared error 0.210 against 0.980" in report.html


def test_the_same_results_make_the_same_page(fake, report):
    root, spec = fake
    spec = {"title": "t", "draws": 50, "rows": spec["rows"][:4], "curves": spec["curves"]}
    assert build(spec, root=root).html == build(spec, root=root).html


def test_a_flat_contrastive_loss_is_pointed_out_unless_it_is_a_control(fake, report):
    assert [line.split(":")[0] for line in report.warnings] == [
        f"MMCL on permuted pairs, seed {seed}" for seed in range(3)
    ]
    root, spec = fake
    control = [{**curve, "control": True} for curve in spec["curves"]]
    quiet = build({"title": "t", "draws": 5, "rows": spec["rows"][:1], "curves": control}, root=root)
    assert quiet.warnings == ()


def test_curves_survive_a_cut_line(fake):
    root, _ = fake
    curve = curves.read_curve(root / "seed0" / "mmcl", name="x")
    assert curve.step[-1] == 600
    assert curve.ln_batch == pytest.approx(np.log(64))
    np.testing.assert_array_equal(curve.val_step, [0, 200, 400, 600])
    assert not curves.flat_warnings([curve])


def test_a_report_of_nothing_but_missing_files_still_renders(tmp_path):
    spec = {
        "title": "t",
        "rows": [fake_runs.row("x", "a"), {"name": "y", "file": "attainable.json"}],
        "curves": [{"name": "x", "workdirs": ["a"]}],
        "reconstruction": {"workdir": "a"},
        "retrieval": [{"name": "x", "workdir": "a"}],
        "claims": [{"lower": "x", "higher": "y", "metric": "r2"}],
    }
    report = build(spec, root=tmp_path)
    for text in (
        "a/results/linear_probe/*.json",
        "attainable.json",
        "a/metrics.jsonl",
        "a/results/reconstruction",
    ):
        assert text in report.html
    assert report.verdicts[0].verdict == "not shown"


def test_an_unknown_key_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"unknown \['row'\]; choose from"):
        build({"title": "t", "rows": [], "row": []}, root=tmp_path)


def test_forests_draw_every_row_and_the_reference_line(scored):
    figure = probe_figures.headline_forest(scored)
    left = figure.axes[0]
    assert [label.get_text() for label in left.get_yticklabels()] == [r.name for r in scored.rows if r.cells]
    dashed = [line for line in left.lines if line.get_linestyle() == "--"]
    assert [line.get_xdata()[0] for line in dashed] == [pytest.approx(0.62)]
