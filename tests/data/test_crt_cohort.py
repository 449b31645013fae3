import pathlib
import pickle
import re

import crt_files
import numpy as np
import pytest

from ecgjax.data.build import build
from ecgjax.data.cohorts.base import RejectedError
from ecgjax.data.cohorts.crt import CrtCohort
from ecgjax.data.cohorts.crt.columns import MEASURES, TARGETS
from ecgjax.data.shards import read_split
from ecgjax.formats.recording import LEADS

COLUMN = {target.name: i for i, target in enumerate(TARGETS)}


def cohort_of(directory: pathlib.Path, rows, **settings):
    """A cohort of a table alone: records are read by `load` only."""
    settings = {"response": "lvesv15", **settings}
    return CrtCohort(crt_files.write_table(directory / "patients.csv", rows), **settings)


def responses(cohort):
    """Response by the number in the patient's name."""
    return cohort._response.tolist()


def changed(rows, line, **values):
    """`rows` with the cells of one line of the file replaced; line 2 is the first patient's."""
    rows = [dict(row) for row in rows]
    rows[line - 2].update(values)
    return rows


def without(rows, *names):
    return [{name: value for name, value in row.items() if name not in names} for row in rows]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Six patients with a second recording of the first; paced by table, paced by spikes, noise, a file missing."""
    directory = tmp_path_factory.mktemp("crt")
    rows = crt_files.patients()
    rows += [{**rows[0], "record": "ecg/again"}]
    rows[1]["rhythm"] = "paced"
    for i, row in enumerate(rows):
        signal = crt_files.ecg(spikes=i == 2, seed=i)
        if i == 3:
            signal[6, 100:200] = -32.768  # The format's mark of a sample that is not there.
        if i != 4:
            crt_files.write_record(directory / row["record"], signal)
    cohort = cohort_of(directory, rows)
    manifest = build(
        cohort,
        directory / "data",
        conditioning_ecg={},
        conditioning_cmr=None,
        key=b"0123456789abcdef",
        progress=False,
    )
    return cohort, manifest, read_split(directory / "data", manifest, "train")


def test_every_reject_is_counted_by_kind(prepared):
    _, manifest, _ = prepared
    assert manifest.rejects == {"damaged": 1, "ecg nan": 1, "paced": 2}
    assert (manifest.splits["train"].examples, manifest.splits["train"].subjects) == (3, 2)


def test_a_prepared_directory_says_who_was_in_the_table(prepared):
    cohort, manifest, _ = prepared
    said = manifest.config["cohort"]
    assert {name: said[name] for name in ("patients", "recordings", "responders", "without_response")} == {
        "patients": 6,
        "recordings": 7,
        "responders": 3,
        "without_response": 0,
    }
    assert said["response"] == "lvesv15"
    assert said["deaths"] == "nonresponder"
    assert said["notes"][0].startswith("6 patients with 7 recordings, before any is rejected: 3 responders")
    assert said["table"] == cohort.settings["table"]


def test_wrong_checksums_are_rejected_unless_the_config_says_that_all_are_wrong(tmp_path):
    rows = crt_files.patients()
    crt_files.write_record(tmp_path / rows[0]["record"], crt_files.ecg())
    header = (tmp_path / rows[0]["record"]).with_suffix(".hea")
    wrong = [re.sub(r" -?\d+ 0 (\w+)$", r" 7 0 \1", line) for line in header.read_text().splitlines()]
    header.write_text("\n".join(wrong))
    cohort, trusting = (cohort_of(tmp_path, rows, **given) for given in ({}, {"verify_checksums": False}))
    with pytest.raises(RejectedError, match="set verify_checksums to False"):
        cohort.load(cohort.items()[0])
    assert trusting.load(trusting.items()[0]).ecg.leads == LEADS
    # Data sets made before there was a choice keep their fingerprint.
    assert "verify_checksums" not in cohort.settings
    assert trusting.settings["verify_checksums"] is False


def test_labels_are_the_tables_and_the_recordings(prepared):
    _, _, stored = prepared
    label = stored["label"]
    np.testing.assert_array_equal(label[:, COLUMN["response"]], [1, 0, 1])
    np.testing.assert_array_equal(label[:, COLUMN["age"]], [60, 65, 60])
    np.testing.assert_array_equal(label[:, COLUMN["female"]], [1, 0, 1])
    np.testing.assert_array_equal(label[:, COLUMN["ischaemic"]], [0, 1, 0])
    np.testing.assert_array_equal(label[:, COLUMN["sinus_rhythm"]], [1, 1, 1])
    np.testing.assert_array_equal(label[:, COLUMN["qrs_ms"]], [150, 155, 150])
    assert np.isfinite(label[:, [COLUMN[target.name] for target in MEASURES]]).all()
    np.testing.assert_allclose(label[:, COLUMN["ecg_rate_bpm"]], 70, atol=1)
    np.testing.assert_array_equal(stored["subject"][0], stored["subject"][2])


def test_workers_get_the_cohort_and_its_errors_by_pickle(prepared):
    cohort, *_ = prepared
    again = pickle.loads(pickle.dumps(cohort))
    assert again.items() == cohort.items()
    assert responses(again) == responses(cohort)
    for i, kind in ((1, "paced"), (2, "paced"), (3, "ecg nan")):
        with pytest.raises(RejectedError) as caught:
            cohort.load(cohort.items()[i])
        assert pickle.loads(pickle.dumps(caught.value)).kind == kind


def test_only_the_first_four_columns_are_needed(tmp_path):
    names = ("patient_id", "record", "lvef_pre", "lvef_post")
    rows = [{name: row[name] for name in names} for row in crt_files.patients()]
    cohort = cohort_of(tmp_path, rows, response="super")
    assert responses(cohort) == [1, 1, 1, 0, 0, 0]
    assert {item.split for item in cohort.items()} == {"train"}
    assert cohort.settings["missing"]["lbbb"] == 6
    given = [
        {name: row[name] for name in ("patient_id", "record", "response")} for row in crt_files.patients()
    ]
    assert responses(cohort_of(tmp_path, given, response="given")) == [1, 1, 1, 0, 0, 0]
    cohort = cohort_of(tmp_path, given)  # By a definition of which nothing can be derived.
    assert responses(cohort) == [1, 1, 1, 0, 0, 0]
    assert cohort.settings["taken_as_given"] == 6


def test_blank_cells_are_missing_and_a_response_is_derived_where_it_can_be(tmp_path):
    rows = changed(crt_files.patients(), 2, response="", lvesv_post="NA", rhythm="", sex="", lbbb="nan")
    rows = changed(rows, 3, response="")
    rows = changed(rows, 4, lvesv_pre="")
    cohort = cohort_of(tmp_path, rows)
    np.testing.assert_array_equal(responses(cohort), [np.nan, 1, 1, 0, 0, 0])
    assert cohort.settings["without_response"] == 1
    assert cohort.settings["taken_as_given"] == 1  # Of line 4, which lacks a volume.
    assert cohort.notes[2] == "1 responses are the table's own, whose definition is not known"
    assert cohort.settings["missing"]["female"] == cohort.settings["missing"]["sinus_rhythm"] == 1
    assert (
        "missing of 6 patients: female 1, sinus_rhythm 1, atrial_fibrillation 1, paced 1" in cohort.notes[1]
    )


@pytest.mark.parametrize(("deaths", "want"), [("nonresponder", 0), ("excluded", np.nan)])
def test_deaths_count_as_the_flag_says(tmp_path, deaths, want):
    dead = {"died_before_followup": 1, "lvef_post": "", "lvesv_post": "", "response": ""}
    cohort = cohort_of(tmp_path, changed(crt_files.patients(), 2, **dead), deaths=deaths)
    np.testing.assert_array_equal(responses(cohort), [want, 1, 1, 0, 0, 0])
    assert cohort.settings["died"] == 1


@pytest.mark.parametrize("response", ["lvesv15", "given"])
def test_a_dead_responder_is_a_disagreement(tmp_path, response):
    dead = {"died_before_followup": 1, "lvef_post": "", "lvesv_post": ""}
    with pytest.raises(ValueError, match=r"line 2: response is 1, but 0 by .*died_before_followup 1"):
        cohort_of(tmp_path, changed(crt_files.patients(), 2, **dead), response=response)


def test_responses_given_and_derived_that_differ_are_listed_or_one_is_taken(tmp_path):
    rows = changed(changed(crt_files.patients(), 3, response=0), 7, lvesv_post=100)
    with pytest.raises(
        ValueError,
        match=r"line 3: response is 0, but 1 by 'lvesv15' from lvesv_pre 200, lvesv_post 120, .*line 7: response is 0",
    ):
        cohort_of(tmp_path, rows)
    assert responses(cohort_of(tmp_path, rows, on_disagreement="given")) == [1, 0, 1, 0, 0, 0]
    derived = cohort_of(tmp_path, rows, on_disagreement="derived")
    assert responses(derived) == [1, 1, 1, 0, 0, 1]
    assert derived.settings["disagreements"] == 2


def test_what_is_doubtful_is_kept_and_named_by_line(tmp_path):
    rows = changed(changed(crt_files.patients(), 3, lbbb=1, qrs_ms=118), 5, followup_months=1)
    rows = changed(changed(rows, 4, lbbb=0, qrs_ms=90), 6, lbbb=1, qrs_ms="")
    notes = cohort_of(tmp_path, rows).notes
    assert notes[2:] == (
        "lines 3: lbbb is 1 with qrs_ms below 120, which no definition of it allows; look at them",
        "lines 5: followup_months is outside 3 to 12, where definitions of response mean about 6; look at them",
    )
    assert len(cohort_of(tmp_path, crt_files.patients()).notes) == 2


def test_deaths_that_nobody_recorded_are_not_said_to_be_none(tmp_path):
    assert (
        "0 died before follow-up (deaths: nonresponder)" in cohort_of(tmp_path, crt_files.patients()).notes[0]
    )
    unknown = cohort_of(tmp_path, without(crt_files.patients(), "died_before_followup"))
    assert unknown.notes[0].endswith("who died before follow-up is not recorded")
    assert unknown.settings["died"] is None


def test_a_patients_recordings_share_its_values(tmp_path):
    rows = crt_files.patients()
    again = {**rows[1], "record": "ecg/later", "age": ""}
    cohort = cohort_of(tmp_path, [*rows, again])
    assert [item.subject for item in cohort.items()].count("patient-1") == 2
    assert cohort.settings["patients"] == 6
    assert cohort.settings["missing"]["age"] == 0


@pytest.mark.parametrize(
    ("line", "values", "message"),
    [
        (
            3,
            {"lvef_pre": 0.3},
            r"line 3: lvef_pre is 0\.3, outside 5 to 85 %; if it is in a fraction .*write 30",
        ),
        (3, {"lvesv_post": 0.12}, r"line 3: lvesv_post is 0\.12, outside 10 to 800 ml; .*litre, write 120"),
        (3, {"qrs_ms": 0.15}, r"line 3: qrs_ms is 0\.15, outside 50 to 300 ms; .*second, write 150"),
        (3, {"qrs_ms": 1500}, r"line 3: qrs_ms is 1500, outside 50 to 300 ms; correct it, or leave it blank"),
        (3, {"nyha": 5}, r"line 3: nyha is 5, outside 1 to 4"),
        (3, {"nyha": 2.5}, r"line 3: nyha is 2\.5; write 1, 2, 3 or 4"),
        (3, {"nyha": "III"}, r"line 3: nyha is 'III'; write a number"),
        (3, {"lbbb": 2}, r"line 3: lbbb is 2; write 0 or 1"),
        (3, {"response": "inf"}, r"line 3: response is 'inf'; write a number"),
        (3, {"sex": "1"}, r"line 3: sex is '1'; write f, female, m, male, or leave it blank"),
        (3, {"rhythm": "VVI"}, r"line 3: rhythm is 'VVI'; write sr, af, paced, other"),
        (3, {"patient_id": ""}, r"line 3: patient_id is blank"),
        (3, {"record": "../other/00"}, r"line 3: record '\.\./other/00' must lie inside the directory"),
        (3, {"record": "/ecg/00"}, r"line 3: record '/ecg/00' must lie inside the directory"),
        (3, {"record": "ecg/./00.hea"}, r"lines 2 and 3 name one record"),
        (3, {"patient_id": "patient-0"}, r"lines 2 and 3 are of one patient, but age is 60 and 61"),
        (3, {"died_before_followup": 1}, r"line 3: died_before_followup is 1, but lvef_post is 50"),
    ],
)
def test_a_wrong_cell_is_refused_by_line(tmp_path, line, values, message):
    with pytest.raises(ValueError, match=message) as caught:
        cohort_of(tmp_path, changed(crt_files.patients(), line, **values))
    assert "patient-" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "factor", "message"),
    [
        ("lvef_pre", 0.01, r"every lvef_pre seems to be in a fraction of 1, .* multiply the column by 100"),
        ("lvesv_pre", 0.001, r"every lvesv_pre seems to be in litre, .* multiply the column by 1000"),
        ("qrs_ms", 0.001, r"every qrs_ms seems to be in second, .* multiply the column by 1000"),
    ],
)
def test_a_column_in_another_unit_is_refused_once(tmp_path, name, factor, message):
    rows = [{**row, name: row[name] * factor} for row in crt_files.patients()]
    with pytest.raises(ValueError, match=message) as caught:
        cohort_of(tmp_path, rows)
    assert str(caught.value).count(name) == 1


def test_a_patient_in_two_splits_is_refused(tmp_path):
    rows = [{**row, "split": "train"} for row in crt_files.patients()]
    rows += [{**rows[0], "record": "ecg/later", "split": "test"}]
    with pytest.raises(ValueError, match="lines 2 and 8 are of one patient, but of splits train and test"):
        cohort_of(tmp_path, rows)
    with pytest.raises(ValueError, match=r"line 2: split is ''; write train, val, test"):
        cohort_of(tmp_path, changed(rows, 2, split=""))


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (
            without(crt_files.patients(), "record"),
            {},
            r"column 'record' is missing; every line needs a record",
        ),
        (
            without(crt_files.patients(), "response", "lvesv_post"),
            {},
            r"columns \['lvesv_post'\] are missing, which response 'lvesv15' is derived from",
        ),
        (without(crt_files.patients(), "response"), {"response": "given"}, r"column 'response' is missing"),
        (
            without(crt_files.patients(), "response"),
            {"response": "clinical"},
            r"columns \['hf_admission'\] are missing, which response 'clinical' is derived from",
        ),
        (
            [{**row, "etiology": "non"} for row in without(crt_files.patients(), "aetiology")],
            {},
            r"column 'etiology' is unknown; did you mean 'aetiology'\?",
        ),
        (
            [{**row, "ward": 3} for row in crt_files.patients()],
            {},
            r"column 'ward' is unknown; leave it out, or list it in config\.cohort\.ignore",
        ),
        (
            crt_files.patients(),
            {"ignore": ("lbb",)},
            r"config\.cohort\.ignore names 'lbb', which the file does",
        ),
        (
            [{**row, "response": "", "lvesv_post": ""} for row in crt_files.patients()],
            {},
            r"no patient has a response by 'lvesv15'; fill the response column or the columns lvesv_pre, lvesv_post",
        ),
        (crt_files.patients(), {"response": "lvef5"}, r"config\.cohort\.strict is None for response 'lvef5'"),
        (crt_files.patients(), {"response": "given", "strict": True}, r"config\.cohort\.strict is True, but"),
    ],
)
def test_missing_and_unknown_columns_are_named(tmp_path, rows, settings, message):
    with pytest.raises(ValueError, match=message):
        cohort_of(tmp_path, rows, **settings)


def test_columns_to_ignore_are_passed_over(tmp_path):
    rows = [{**row, "ward": "east", "response": 1 - row["response"]} for row in crt_files.patients()]
    cohort = cohort_of(tmp_path, rows, ignore=("ward", "response"))
    assert responses(cohort) == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("patient_id,record,response\n", "no line but that of the column names"),
        ("patient_id;record;response\na;b;1\n", "by semicolons; save it with commas"),
        ("patient_id,record,response\na,b,1,2\n", "line 2 has 4 cells under 3 column names"),
        ("patient_id,record,response,response\na,b,1,0\n", "column 'response' occurs twice"),
        ("patient_id,record,\xe4ge\n", "is no CSV in UTF-8"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, text, message):
    path = tmp_path / "patients.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        CrtCohort(str(path), response="given")
    with pytest.raises(ValueError, match=r"config\.cohort\.table: .*none\.csv does not exist"):
        CrtCohort(str(tmp_path / "none.csv"), response="given")


def test_a_table_of_a_spreadsheet_is_read(tmp_path):
    path = tmp_path / "patients.csv"
    path.write_bytes("\ufeffpatient_id, record ,response\r\n\u00e5, ecg/1 ,1\r\n,,\r\nb,ecg/2,0\r\n".encode())
    cohort = CrtCohort(str(path), response="given")
    assert [(item.subject, item.record) for item in cohort.items()] == [("\u00e5", "ecg/1"), ("b", "ecg/2")]
