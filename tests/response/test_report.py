"""The page of a response: its parts, its tables, and what stands on top of it."""

import dataclasses
import json
import shutil

import fake_response
import fake_results
import numpy as np
import pytest
from fake_response import AREA
from page_checks import check_page

from ecgjax.metrics.bootstrap import Interval
from ecgjax.reports.tables import number
from ecgjax.response.report import contender_tables, contenders
from ecgjax.response.report.build import build
from ecgjax.response.report.differences import NO_EVIDENCE


@pytest.fixture(scope="module")
def report(trial):
    root, spec = trial
    return build(spec, root=root)


def test_the_page_is_well_formed_and_loads_nothing(report):
    check_page(report.html, pictures=7)  # Forest, ROC, calibration, learning curve; mean maps and two beats.
    assert "&lt;b&gt;probe&lt;/b&gt;" in report.html
    assert "resynchronisation &lt;fake&gt;" in report.html


def test_the_page_has_every_part(report):
    titles = [table.title for table in report.tables]
    assert titles[4:6] == ["MIT-BIH, probe against each", "MIT-BIH, probe, four ways"]
    assert titles[:4] == [
        "Inclusion",
        "Characteristics",
        "Ranking",
        "Calibration",
    ]
    assert "Decisions at probability 0.5" in titles
    assert report.html.count("Research use only") == 3
    assert "no one confusion matrix has all three" in report.html
    assert report.conclusion in report.html
    assert report.warnings == ()


def test_the_markdown_ends_with_the_card(report):
    tables_, card = report.markdown.split("## Model card: ")
    assert tables_.startswith(NO_EVIDENCE)
    assert "**Ranking**" in tables_
    for text in (
        "fraction rose by more than 5 points at follow-up (lvef5). Deaths before follow-up count as no response",
        "74 patients with 76 recordings in the table; 1 died before follow-up, and 2 had a given response",
        "Recordings rejected: damaged 1. 73 patients had a usable recording, 2 of them no known response; 71 were",
        "Up to 4 repeats of stratified 4-fold cross-validation by patient",
        "two-lead Holter recordings of 1975 to 1979",
        "Who was included is not recorded",
    ):
        assert text in card


def test_a_missing_run_is_said_and_leaves_no_evidence(trial):
    root, spec = trial
    runs = [*spec["runs"][:2], {"workdir": "never_run", "names": {"network": "random encoder"}}]
    judged = {name: spec[name] for name in ("judged", "against", "required")}
    built = build({"title": "t", "runs": runs, **judged, "draws": 20}, root=root)
    assert built.warnings == ("missing: never_run/results/crossvalidation/*.json",)
    assert "against random encoder: random encoder is missing" in built.conclusion
    assert built.conclusion.startswith(NO_EVIDENCE)


def test_a_report_of_nothing_but_missing_files_still_renders(tmp_path):
    spec = {
        "title": "t",
        "data": "data",
        "runs": [{"workdir": "a"}],
        "judged": "probe",
        "against": ["random"],
        "required": ["random"],
        "permuted": [{"workdir": "p"}],
        "pretraining": [{"name": "beats", "workdirs": ["b"]}],
    }
    built = build(spec, root=tmp_path)
    for text in (
        "data/manifest.json",
        "a/results/crossvalidation",
        "p/results/crossvalidation",
        "b/results/classes",
    ):
        assert text in built.html
    assert built.conclusion.startswith(NO_EVIDENCE)


def test_data_of_other_patients_are_refused(trial, tmp_path):
    root, _ = trial
    fewer = np.array([f"{i:032x}" for i in range(60)])
    fake_response.write_network(tmp_path / "a", "network", noise=1.0, subject=fewer)
    with pytest.raises(
        ValueError, match=r"has 71 patients with a known response, the cross-validations 60, of whom 0"
    ):
        build({"title": "t", "data": str(root / "data"), "runs": [{"workdir": "a"}]}, root=tmp_path)


def test_decisions_are_shown_by_how_they_were_made(found):
    youden, half = (contender_tables.decision_table(found, how) for how in ("youden", "0.5"))
    first = {line.cells[0].text: line.cells for line in youden.lines}
    assert first["guideline_esc_2021_strict"][1].text == "the rule"
    assert first[AREA][1].text.startswith("p ≥ ")
    assert "guideline_esc_2021_strict" not in {line.cells[0].text for line in half.lines}
    values = found.find(AREA).metrics
    assert first[AREA][2].text == f"{values['accuracy@youden'].value:.2f}".removeprefix("0")


def test_a_rule_has_no_calibration_and_probabilities_have_both_intercepts(found):
    table = contender_tables.calibration_table(found)
    names = [line.cells[0].text for line in table.lines]
    assert AREA in names
    assert "guideline_esc_2021_strict" not in names
    assert [cell.text for cell in table.lines[names.index(AREA)].cells[3:]] == [
        number(found.find(AREA).metric(f"calibration_{name}").value) for name in ("intercept", "in_the_large")
    ]


def test_one_set_of_predictions_is_shown_four_ways(found):
    probe = found.find("MIT-BIH, probe")
    table = contender_tables.four_ways_table(probe)
    assert [line.cells[0].text for line in table.lines] == [
        "training folds' threshold, pooled",
        "training folds' threshold, mean of folds",
        "probability 0.5, pooled",
        "probability 0.5, mean of folds",
    ]
    assert table.lines[3].cells[2].text == number(probe.metric("sensitivity_fold_mean@0.5").value)
    assert contender_tables.four_ways_table(dataclasses.replace(probe, metrics={})) is None


def test_contenders_stand_in_the_order_of_their_names(trial):
    names = [[AREA, "area"], ["logistic", "model"]]
    found = contenders.load([{"workdir": "comparators", "names": names}], root=trial[0])
    assert [contender.name for contender in found.contenders] == [
        "area",
        "model",
        "guideline_esc_2021_strict",
        "ecg_qrs_ms",
    ]


def test_labels_dealt_within_a_run_are_shown_and_a_leak_stands_on_top(trial, report, tmp_path):
    root, _ = trial
    (table,) = [table for table in report.tables if table.title == "Labels dealt anew"]
    assert [cell.text for cell in table.lines[0].cells[:2]] == ["MIT-BIH, probe", "3"]
    assert table.lines[0].cells[3].text == "no"
    shutil.copytree(root / "probe", tmp_path / "probe")
    fake_results.change(tmp_path / "probe", scalars={"network|leak_alarm": 1.0})
    leaky = build({"title": "t", "runs": [{"workdir": "probe"}]}, root=tmp_path)
    assert leaky.warnings == ("LEAK ALARM: network predicts permuted labels; believe none of its numbers.",)
    assert "LEAK</td>" in leaky.html


def test_a_control_run_above_chance_stands_on_top(trial):
    permuted = [{"workdir": "probe", "names": {"network": "not permuted at all"}}]
    built = build({"title": "t", "runs": [{"workdir": "random"}], "permuted": permuted}, root=trial[0])
    (warning,) = built.warnings
    assert warning.startswith("probe: not permuted at all has AUROC .")
    assert built.html.index("where nothing is to be found") < built.html.index("Model card")


def test_one_whom_nobody_can_be_judged_by_leaves_the_report_standing(tmp_path):
    everybody = tuple(range(fake_response.PATIENTS))
    rule = fake_response.Noisy
    blind = [lambda truth: rule("blind", truth, 1.0, rule=True, missing=everybody)]
    fake_response.write_run(tmp_path / "a", [*blind, lambda truth: rule("area", truth, 1.0)])
    built = build(
        {
            "title": "t",
            "runs": [{"workdir": "a"}],
            "judged": "area",
            "against": ["blind"],
            "required": ["blind"],
        },
        root=tmp_path,
    )
    assert "Patients not evaluable, of 71, left out and never taken for a no: blind 71." in built.html
    assert "evaluable in nobody: blind." in built.html
    assert built.conclusion.startswith(NO_EVIDENCE)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.4, 0.6, "covered"), (0.51, 0.7, "above: something leaks"), (0.2, 0.4, "below")],
)
def test_permuted_labels_raise_the_alarm(found, low, high, said):
    value = Interval((low + high) / 2, low, high, 71, 71)
    contender = found.contenders[0]
    contender = type(contender)(**{**vars(contender), "metrics": {"auroc": value}})
    (line,) = contender_tables.permuted_table([contender]).lines
    assert line.cells[1].text == contender.workdir
    assert line.cells[3].text.startswith(said)


def test_leaky_beats_are_labelled_beside_the_majority_class(report):
    (table,) = [table for table in report.tables if table.title == "Beat classes, all together"]
    rows = [[cell.text for cell in line.cells] for line in table.lines]
    assert rows[0][1:3] == ["model", ".48"]
    assert rows[1][:3] == ["DS1 to DS2", "majority class", ".23"]
    assert rows[0][-1] == ".480 · .490 · .500"
    assert table.lines[2].cells[0].small.startswith("LEAKY")
    assert "random beats: LEAKY" in report.html


def test_a_run_keeps_its_provenance(found):
    run = next(run for run in found.runs if run.workdir == "probe")
    assert (run.cohort, run.checkpoint[:6], run.config) == ("crt", "c0ffee", {"name": "<b>probe</b>"})
    assert json.dumps(run.settings)
