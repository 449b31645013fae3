import dataclasses
import json
import math
import shutil

import fake_response
import numpy as np
import pytest
from etils import epath
from test_report import Tags

from ecgjax.metrics.classification import auroc
from ecgjax.reports.response import cohort, figures, results, tables
from ecgjax.reports.response.card import make_card
from ecgjax.reports.response.differences import HELPS, NO_EVIDENCE, judge, p_value
from ecgjax.reports.response.grad_cam import grad_cam_section
from ecgjax.reports.response.report import build
from ecgjax.reports.response.response_maps import response_maps_section
from ecgjax.reports.response.subgroups import subgroup_table
from ecgjax.reports.tables import number

AREA = "ecg_qrs_area_uvs"


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """A root with every kind of result, and its spec; read only."""
    root = tmp_path_factory.mktemp("response")
    return root, fake_response.write_all(root)


@pytest.fixture(scope="module")
def report(fake):
    root, spec = fake
    return build(spec, root=root)


@pytest.fixture(scope="module")
def found(fake):
    root, spec = fake
    return results.load(spec["runs"], root=root)


def two_runs(root, tmp_path, **more):
    """The comparators and a second run that is like them but for what is given."""
    (tmp_path / "a").symlink_to(root / "comparators")
    fake_response.write_network(tmp_path / "b", "network", noise=1.0, **more)
    return results.load([{"workdir": "a"}, {"workdir": "b"}], root=tmp_path)


def test_the_page_is_well_formed_and_loads_nothing(report):
    tags = Tags()
    tags.feed(report.html)
    assert not tags.open
    assert len(tags.addresses) == 7  # Forest, ROC, calibration, learning curve; mean maps and two beats.
    assert all(address.startswith("data:image/") for address in tags.addresses)
    assert not tags.names & {"script", "link", "iframe"}
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


def test_patients_are_counted_from_the_table_to_the_analysis(fake):
    described = cohort.describe(fake[0] / "data")
    table = cohort.inclusion_table(described, outcome="")
    counts = {line.cells[0].text: line.cells[1].text for line in table.lines}
    assert counts == {
        "patients in the table": "74",
        "recordings rejected: damaged": "1",
        "patients with a usable recording": "73",
        "without a known outcome, left out": "2",
        "patients cross-validated": "71",
        "responders": "40",
    }
    rows = {
        line.cells[0].text: [cell.text for cell in line.cells[1:]]
        for line in cohort.characteristics_table(described).lines
    }
    assert rows["age"] == ["70", "70", "60", "–"]
    assert rows["female"][0] == "35 (49%)"
    assert rows["nyha"][3] == "8"
    assert rows["lbbb"] == []
    assert described.missing["nyha"] == 8


def test_groups_are_of_their_patients_and_too_small_ones_have_no_auroc(fake, found):
    described = cohort.describe(fake[0] / "data")
    table = subgroup_table(found, described, [AREA, "missing"], draws=50, seed=0)
    assert table.header == ("group", "patients", AREA)
    rows = {line.cells[0].text: line.cells[1:] for line in table.lines}
    assert set(rows) == {"women", "men", "70 years and more", "below 70 years"}  # LBBB is known of nobody.
    female = dict(zip(described.subject, described.values["female"], strict=True))
    women = np.array([female[subject] == 1 for subject in found.subject])
    score = found.find(AREA).score
    want = np.mean([auroc(found.truth[women], row[women]) for row in score])
    assert rows["women"][0].text == str(women.sum())
    assert rows["women"][1].text == number(want)
    assert rows["70 years and more"][1].text == "–"  # All of them respond.
    assert subgroup_table(found, described, ["missing"], draws=50, seed=0) is None


@pytest.mark.parametrize(("null", "text"), [(False, "exceeds an AUROC of .80"), (True, "an AUROC of .50")])
def test_simulated_patients_are_called_so(fake, found, null, text):
    described = cohort.describe(fake[0] / "data")
    settings = {"patients": 200, "auc": 0.8, "null": null, "deaths": 0.06}
    simulated = dataclasses.replace(described, cohort="synthetic_crt", settings=settings)
    assert described.planted is None
    assert text in make_card("t", found, None, simulated).markdown
    assert "Simulated" not in make_card("t", found, None, described).markdown


def test_a_response_that_was_not_derived_is_not_called_by_its_definition(fake, found):
    described = cohort.describe(fake[0] / "data")
    own = dataclasses.replace(described, settings={**described.settings, "taken_as_given": 9})
    said = "of 9 of 74 patients the table's own response, whose definition is not known"
    assert said in make_card("t", found, None, own).markdown
    assert "table's own response" not in make_card("t", found, None, described).markdown


def test_the_card_says_what_models_read_and_what_was_chosen(found):
    model = {"name": "classical", "model": "logistic", "columns": ["age", "qrs_ms"]}
    encoder = {"name": "leadwise", "read": ["I", "V6"], "pool": "median"}
    config = {"contenders": {"a": model}, "mode": "probe", "objective": {"encoder": encoder}}
    scalars = {"logistic|chosen_strength": 0.3, "logistic|not_evaluable": 0.0}
    run = dataclasses.replace(
        found.runs[0], workdir="w", config=config, scalars=scalars, checkpoint="fresh weights"
    )
    card = make_card("t", dataclasses.replace(found, runs=(run,)), None, None).markdown
    assert "logistic (w) read age, qrs_ms." in card
    assert "probe (w) reads the time-frequency image of the beats of leads I, V6, pooled by median." in card
    assert "the median fit (w): logistic strength 0.3." in card
    assert "w: encoder of fresh weights, ecgjax" in card


def test_who_was_included_is_said_or_called_unrecorded(fake, found):
    described = cohort.describe(fake[0] / "data")
    assert "not recorded: say it" in make_card("t", found, None, described).markdown
    own = dataclasses.replace(described, settings={**described.settings, "inclusion": "LVEF <= 35 %"})
    assert "Included: LVEF <= 35 %." in make_card("t", found, None, own).markdown


def test_deaths_that_the_table_does_not_record_are_called_unknown(fake, found):
    described = cohort.describe(fake[0] / "data")
    unknown = dataclasses.replace(described, settings={**described.settings, "died": None})
    assert "an unknown number died before follow-up" in make_card("t", found, None, unknown).markdown


def test_a_difference_is_that_of_the_mean_aurocs_and_mcnemar_counts_patients(found):
    judgement = judge(
        found, "MIT-BIH, probe", against=[AREA, "guideline_esc_2021_strict"], required=[AREA], draws=50
    )
    first, second = found.find("MIT-BIH, probe"), found.find(AREA)
    area, guideline = judgement.differences
    want = [np.mean([auroc(found.truth, row) for row in c.score]) for c in (first, second)]
    assert area.auroc.value == pytest.approx(want[0] - want[1], abs=1e-12)
    only = [0, 0]
    for patient in range(len(found.truth)):
        right = [(c.decision[:, patient].mean() > 0.5) == found.truth[patient] for c in (first, second)]
        only[0] += right[0] and not right[1]
        only[1] += right[1] and not right[0]
    assert (area.mcnemar.only_first, area.mcnemar.only_second) == tuple(only)
    assert (guideline.left_out, guideline.auroc.n) == (3, 68)


def test_a_run_with_fewer_repeats_is_compared_on_those_it_has(found):
    (scratch,) = judge(found, "MIT-BIH, probe", against=["from scratch"], required=[], draws=50).differences
    assert scratch.repeats == 2
    want = [
        np.mean([auroc(found.truth, row) for row in found.find(name).score[:2]])
        for name in ("MIT-BIH, probe", "from scratch")
    ]
    assert scratch.auroc.value == pytest.approx(want[0] - want[1], abs=1e-12)


def test_transfer_helps_only_where_everything_required_is_beaten(found):
    one = judge(
        found, "MIT-BIH, probe", against=["random encoder", AREA], required=["random encoder"], draws=200
    )
    assert one.helps
    assert one.sentence.startswith(
        f"{HELPS}: the AUROC of MIT-BIH, probe is higher than that of random encoder, and the interval of the "
        "difference excludes 0"
    )
    both = judge(
        found,
        "MIT-BIH, probe",
        against=["random encoder", AREA],
        required=["random encoder", AREA],
        draws=200,
    )
    assert not both.helps
    assert both.sentence.startswith(
        f"{NO_EVIDENCE}: MIT-BIH, probe would have to beat random encoder and {AREA}"
    )
    assert not judge(found, AREA, against=["logistic"], required=[], draws=10).helps
    worse = judge(found, "random encoder", against=["MIT-BIH, probe"], required=["MIT-BIH, probe"], draws=200)
    assert worse.differences[0].auroc.high < 0
    assert not worse.helps


def test_a_missing_run_is_said_and_leaves_no_evidence(fake):
    root, spec = fake
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


def test_patients_in_another_order_are_the_same(fake, tmp_path):
    found = two_runs(fake[0], tmp_path)
    path = next((tmp_path / "b" / "results" / "crossvalidation").glob("*.npz"))
    arrays = dict(np.load(path))
    order = np.random.default_rng(0).permutation(fake_response.PATIENTS)
    np.savez(path, **{name: array[..., order] for name, array in arrays.items()})
    again = results.load([{"workdir": "a"}, {"workdir": "b"}], root=tmp_path)
    np.testing.assert_array_equal(again.find("network").score, found.find("network").score)
    np.testing.assert_array_equal(again.truth, found.truth)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"subject": np.array([f"{i:032x}" for i in range(fake_response.PATIENTS)])},
            "a and b were cross-validated on different patients: 71 are only in the first, 71 only in the second",
        ),
        ({"flip": 3}, "a and b give 3 of 71 patients different outcomes"),
        ({"seed": 5}, "a and b have different folds"),
        ({"folds": 5}, "a and b have different folds"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_by_name(fake, tmp_path, more, message):
    with pytest.raises(ValueError, match=message):
        two_runs(fake[0], tmp_path, **more)


def test_names_are_checked(fake, found):
    root, spec = fake
    with pytest.raises(
        ValueError, match=r"contender 'network' is in probe and in random; give one another name"
    ):
        results.load([{"workdir": "probe"}, {"workdir": "random"}], root=root)
    with pytest.raises(ValueError, match=r"probe: names renames \['netwrk'\]; its contenders are network"):
        results.load([{"workdir": "probe", "names": {"netwrk": "x"}}], root=root)
    with pytest.raises(
        ValueError, match="no contender is shown as 'area'; choose from guideline_esc_2021_strict"
    ):
        judge(found, "area", against=[AREA], required=[])
    with pytest.raises(ValueError, match=r"required names \['random'\], which is not among against"):
        judge(found, AREA, against=["logistic"], required=["random"])
    with pytest.raises(ValueError, match=r"unknown \['judge'\]; choose from"):
        build({**spec, "judge": "x"}, root=root)


def test_data_of_other_patients_are_refused(fake, tmp_path):
    root, _ = fake
    fewer = np.array([f"{i:032x}" for i in range(60)])
    fake_response.write_network(tmp_path / "a", "network", noise=1.0, subject=fewer)
    with pytest.raises(
        ValueError, match=r"has 71 patients with a known response, the cross-validations 60, of whom 0"
    ):
        build({"title": "t", "data": str(root / "data"), "runs": [{"workdir": "a"}]}, root=tmp_path)


def test_decisions_are_shown_by_how_they_were_made(found):
    youden, half = (tables.decision_table(found, how) for how in ("youden", "0.5"))
    first = {line.cells[0].text: line.cells for line in youden.lines}
    assert first["guideline_esc_2021_strict"][1].text == "the rule"
    assert first[AREA][1].text.startswith("p ≥ ")
    assert "guideline_esc_2021_strict" not in {line.cells[0].text for line in half.lines}
    values = found.find(AREA).metrics
    assert first[AREA][2].text == f"{values['accuracy@youden'].value:.2f}".removeprefix("0")


def test_a_rule_has_no_calibration_and_probabilities_have_both_intercepts(found):
    table = tables.calibration_table(found)
    names = [line.cells[0].text for line in table.lines]
    assert AREA in names
    assert "guideline_esc_2021_strict" not in names
    assert [cell.text for cell in table.lines[names.index(AREA)].cells[3:]] == [
        number(found.find(AREA).metric(f"calibration_{name}").value) for name in ("intercept", "in_the_large")
    ]


def test_one_set_of_predictions_is_shown_four_ways(found):
    probe = found.find("MIT-BIH, probe")
    table = tables.four_ways_table(probe)
    assert [line.cells[0].text for line in table.lines] == [
        "training folds' threshold, pooled",
        "training folds' threshold, mean of folds",
        "probability 0.5, pooled",
        "probability 0.5, mean of folds",
    ]
    assert table.lines[3].cells[2].text == number(probe.metric("sensitivity_fold_mean@0.5").value)
    assert tables.four_ways_table(dataclasses.replace(probe, metrics={})) is None


def test_contenders_stand_in_the_order_of_their_names(fake):
    names = [[AREA, "area"], ["logistic", "model"]]
    found = results.load([{"workdir": "comparators", "names": names}], root=fake[0])
    assert [contender.name for contender in found.contenders] == [
        "area",
        "model",
        "guideline_esc_2021_strict",
        "ecg_qrs_ms",
    ]


def test_labels_dealt_within_a_run_are_shown_and_a_leak_stands_on_top(fake, report, tmp_path):
    root, _ = fake
    (table,) = [table for table in report.tables if table.title == "Labels dealt anew"]
    assert [cell.text for cell in table.lines[0].cells[:2]] == ["MIT-BIH, probe", "3"]
    assert table.lines[0].cells[3].text == "no"
    shutil.copytree(root / "probe", tmp_path / "probe")
    path = next((tmp_path / "probe").rglob("*.json"))
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, "scalars": {**tree["scalars"], "network|leak_alarm": 1.0}}))
    leaky = build({"title": "t", "runs": [{"workdir": "probe"}]}, root=tmp_path)
    assert leaky.warnings == ("LEAK ALARM: network predicts permuted labels; believe none of its numbers.",)
    assert "LEAK</td>" in leaky.html


def test_a_leak_takes_the_verdict_back(found):
    probe, control = found.find("MIT-BIH, probe"), found.find("random encoder")
    required = {"against": ["random encoder"], "required": ["random encoder"], "draws": 200}
    assert judge(found, "MIT-BIH, probe", **required).helps
    for leaking in (probe, control):
        contenders = [
            dataclasses.replace(each, leaks=True) if each is leaking else each for each in found.contenders
        ]
        leaky = dataclasses.replace(found, contenders=tuple(contenders))
        judgement = judge(leaky, "MIT-BIH, probe", **required)
        assert not judgement.helps
        assert judgement.sentence.startswith(f"{NO_EVIDENCE}: {leaking.name} predicts permuted labels")


def test_a_control_run_above_chance_stands_on_top(fake):
    permuted = [{"workdir": "probe", "names": {"network": "not permuted at all"}}]
    built = build({"title": "t", "runs": [{"workdir": "random"}], "permuted": permuted}, root=fake[0])
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
    value = results.Interval((low + high) / 2, low, high, 71, 71)
    contender = found.contenders[0]
    contender = type(contender)(**{**vars(contender), "metrics": {"auroc": value}})
    (line,) = tables.permuted_table([contender]).lines
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


def test_maps_are_drawn_over_their_seconds_and_hertz(fake, tmp_path):
    root, spec = fake
    section = grad_cam_section(spec["grad_cam"], epath.Path(root))
    assert [[cell.text for cell in line.cells] for line in section.tables[0].lines] == [
        ["V", "8.4", "0.00", ".910"],
        ["S", "5.6", "-0.75", "–"],
    ]
    mean, example, _ = (picture.figure for picture in section.pictures)
    assert [axes.get_title("left") for axes in mean.axes] == [
        "with V",
        "with S",
        "without V",
        "without S, nobody",
    ]
    shown = mean.axes[0].images[0]
    y, x = np.unravel_index(np.argmax(shown.get_array()), shown.get_array().shape)
    left, right, bottom, top = shown.get_extent()
    assert left + (x + 0.5) * (right - left) / 24 == pytest.approx(0.0, abs=1e-9)  # V peaks on the R peak.
    assert bottom + (y + 0.5) * (top - bottom) / 16 == pytest.approx(8.4)
    ecg, image = example.axes
    assert ecg.get_title("left") == "MLII"
    line = ecg.lines[0]
    assert line.get_xdata()[np.argmax(line.get_ydata())] == 0
    assert len(image.images) == 2
    fake_response.write_grad_cam(tmp_path / "six", leads=("I", "aVL", "V1", "V2", "V5", "V6"))
    section = grad_cam_section({"workdir": "six", "examples": 1}, epath.Path(tmp_path))
    titles = [axes.get_title("left") for axes in section.pictures[1].figure.axes]
    assert titles == ["I", "aVL", "V1", "V2", "V5", "V6"]
    assert "missing: x/results/grad_cam" in grad_cam_section({"workdir": "x"}, epath.Path(root)).warnings[0]


def test_maps_of_the_response_stand_lead_by_lead_beside_the_control(fake, tmp_path):
    root, _ = fake
    for name in ("probe", "random"):
        shutil.copytree(root / name, tmp_path / name)
    path = next((tmp_path / "probe").rglob("*.npz"))
    responders = np.zeros((2, 4, 5))
    responders[1, 3, 0] = 2.0
    maps = {"network|map_with": responders, "network|map_without": responders / 4}
    axes = {"map|time_s": np.arange(10) / 5 - 1, "map|frequency_hz": np.arange(8.0)}
    np.savez(path, **dict(np.load(path)), **maps, **axes, **{"map|leads": np.array(["I", "V6"])})
    tree = json.loads(path.with_suffix(".json").read_text())
    tree["scalars"]["network|maps_told_apart"] = 0.75
    path.with_suffix(".json").write_text(json.dumps(tree))
    runs = [{"workdir": "probe"}, {"workdir": "random", "names": {"network": "random"}}]
    found = results.load(runs, root=tmp_path)
    (section,) = response_maps_section(found, ["network", "random", "missing"])
    assert [[cell.text for cell in line.cells] for line in section.tables[0].lines] == [["network", ".750"]]
    shown = section.pictures[0].figure.axes
    assert [axes.get_title("left") for axes in shown] == [
        "I, responders",
        "V6, responders",
        "I, others",
        "V6, others",
    ]
    assert all(axes.images[0].get_clim() == (0, 2) for axes in shown)
    # The peak covers the highest quarter of the frequencies and the first fifth of the seconds.
    assert shown[1].images[0].get_extent() == pytest.approx((-1.1, 0.9, -0.5, 7.5))
    assert response_maps_section(found, ["random"]) == []
    assert (
        "Grad-CAM of the response"
        in build({"title": "t", "runs": runs, "judged": "network"}, root=tmp_path).html
    )


def test_the_area_under_the_mean_roc_is_the_mean_auroc(found):
    for name in ("MIT-BIH, probe", AREA):
        contender = found.find(name)
        area = np.trapezoid(figures.mean_roc(found.truth, contender.score), np.linspace(0, 1, 201))
        assert area == pytest.approx(contender.metric("auroc").value, abs=0.01)


def test_curves_are_drawn_of_those_that_have_them(found):
    figure = figures.learning_curves(found)
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "MIT-BIH, probe"]
    # Folds of 4 leave three quarters of 71 patients for training.
    np.testing.assert_allclose(line.get_xdata(), 71 * 0.75 * np.array([0.3, 0.6, 1.0]))
    shown = figures.calibration_plot(found, ["guideline_esc_2021_strict", AREA])
    assert [axes.get_title("left").split("\n")[0] for axes in shown.axes] == [AREA]
    assert figures.calibration_plot(found, ["guideline_esc_2021_strict"]) is None


@pytest.mark.parametrize(("hits", "n", "low", "high"), [(51, 71, 0.605, 0.810), (28, 36, 0.62, 0.88)])
def test_wilson_intervals_are_the_published_ones(hits, n, low, high):
    share, *bounds = figures.wilson(hits, n)
    assert share == hits / n
    np.testing.assert_allclose(bounds, [low, high], atol=0.005)


def test_p_values_are_short():
    assert [p_value(p) for p in (0.0004, 0.0126, 1.0, math.nan)] == ["<.001", ".013", "1.000", "–"]


def test_a_run_keeps_its_provenance(found):
    run = next(run for run in found.runs if run.workdir == "probe")
    assert (run.cohort, run.checkpoint[:6], run.config) == ("crt", "c0ffee", {"name": "<b>probe</b>"})
    assert json.dumps(run.settings)
