"""Who was analysed, and what the model card says of it."""

import dataclasses

import numpy as np
import pytest
from fake_response import AREA

from ecgjax.metrics.classification import auroc
from ecgjax.reports.tables import number
from ecgjax.response.report import cohort
from ecgjax.response.report.card import make_card
from ecgjax.response.report.subgroups import subgroup_table


def test_patients_are_counted_from_the_table_to_the_analysis(trial):
    described = cohort.describe(trial[0] / "data")
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


def test_groups_are_of_their_patients_and_too_small_ones_have_no_auroc(trial, found):
    described = cohort.describe(trial[0] / "data")
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
def test_simulated_patients_are_called_so(trial, found, null, text):
    described = cohort.describe(trial[0] / "data")
    settings = {"patients": 200, "auc": 0.8, "null": null, "deaths": 0.06}
    simulated = dataclasses.replace(described, cohort="synthetic_crt", settings=settings)
    assert described.planted is None
    assert text in make_card("t", found, None, simulated).markdown
    assert "Simulated" not in make_card("t", found, None, described).markdown


def test_a_response_that_was_not_derived_is_not_called_by_its_definition(trial, found):
    described = cohort.describe(trial[0] / "data")
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


def test_who_was_included_is_said_or_called_unrecorded(trial, found):
    described = cohort.describe(trial[0] / "data")
    assert "not recorded: say it" in make_card("t", found, None, described).markdown
    own = dataclasses.replace(described, settings={**described.settings, "inclusion": "LVEF <= 35 %"})
    assert "Included: LVEF <= 35 %." in make_card("t", found, None, own).markdown


def test_deaths_that_the_table_does_not_record_are_called_unknown(trial, found):
    described = cohort.describe(trial[0] / "data")
    unknown = dataclasses.replace(described, settings={**described.settings, "died": None})
    assert "an unknown number died before follow-up" in make_card("t", found, None, unknown).markdown
