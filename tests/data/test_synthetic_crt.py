import csv
import pickle

import numpy as np
import pytest
from raw_crt import write_raw

from ecgjax.data.cohorts.base import Item
from ecgjax.data.cohorts.crt import CrtCohort
from ecgjax.data.cohorts.crt import response as definitions
from ecgjax.data.cohorts.crt.columns import TARGETS
from ecgjax.data.cohorts.synthetic.dipole import draw_rhythm, ventricles
from ecgjax.data.cohorts.synthetic.ecg_parameters import PARAMETERS
from ecgjax.data.cohorts.synthetic_crt import SyntheticCrtCohort
from ecgjax.data.cohorts.synthetic_crt.latent import Response, response_of
from ecgjax.formats import wfdb
from ecgjax.formats.recording import LEADS
from ecgjax.signals.pacing import pacing_spikes


def auc(y, score):
    """Share of (responder, other) pairs in order, ties half."""
    ones, zeros = score[y == 1], np.sort(score[y == 0])
    below = (np.searchsorted(zeros, ones, "left") + np.searchsorted(zeros, ones, "right")) / 2
    return float(below.mean() / len(zeros))


@pytest.fixture(scope="module")
def patients():
    cohort = SyntheticCrtCohort(patients=1500)
    return [cohort.patient(index) for index in range(cohort.patients)]


@pytest.fixture(scope="module")
def columns(patients):
    return {name: np.array([p.columns[name] for p in patients]) for name in patients[0].columns}


@pytest.mark.parametrize(("wanted", "prevalence"), [(0.6, 0.3), (0.8, 0.55), (0.95, 0.7)])
def test_the_bayes_auc_is_that_of_the_latent_in_a_large_draw(wanted, prevalence):
    response = response_of(wanted, prevalence)
    assert response.bayes_auc() == pytest.approx(wanted, abs=1e-6)
    assert response.prevalence() == pytest.approx(prevalence, abs=1e-6)
    rng = np.random.default_rng(1)
    d = rng.standard_normal(200_000)
    y = rng.random(d.size) < response.probability(d)
    assert auc(y, d) == pytest.approx(wanted, abs=0.004)  # Three standard errors.
    assert y.mean() == pytest.approx(prevalence, abs=0.004)


def test_a_response_without_slope_is_chance_and_a_steep_one_certain():
    assert Response(0.3, 0.0).bayes_auc() == pytest.approx(0.5, abs=1e-12)
    assert Response(0.0, 60.0).bayes_auc() == pytest.approx(1.0, abs=0.002)
    assert response_of(0.5, 0.4).slope == 0.0


def test_the_cohort_has_the_auc_it_was_asked_for(patients, columns):
    d = np.array([patient.dyssynchrony for patient in patients])
    assert SyntheticCrtCohort().response().bayes_auc() == pytest.approx(0.8, abs=1e-6)
    assert auc(columns["response"], d) == pytest.approx(0.8, abs=0.035)  # Three standard errors of 1500.
    assert columns["response"].mean() == pytest.approx(0.55, abs=0.04)


def test_the_null_cohort_has_the_same_hearts_and_a_response_of_chance(patients):
    null = SyntheticCrtCohort(patients=1500, null=True)
    assert null.response().bayes_auc() == pytest.approx(0.5, abs=1e-12)
    others = [null.patient(index) for index in range(null.patients)]
    for mine, other in zip(patients[:50], others[:50], strict=True):
        np.testing.assert_array_equal(mine.e, other.e)
        assert mine.columns["qrs_ms"] == pytest.approx(other.columns["qrs_ms"], nan_ok=True)
    np.testing.assert_array_equal(
        null.recording(3, 0).signal_mv, SyntheticCrtCohort(patients=1500).recording(3, 0).signal_mv
    )
    y = np.array([patient.columns["response"] for patient in others])
    assert auc(y, np.array([patient.dyssynchrony for patient in others])) == pytest.approx(0.5, abs=0.045)
    for name in ("lvef_pre", "lvesv_pre", "age", "qrs_ms", "lbbb", "nyha", "female"):
        values = np.array([patient.columns[name] for patient in others])
        known = ~np.isnan(values)
        assert auc(y[known], values[known]) == pytest.approx(0.5, abs=0.045), name


def qrs_area(patient):
    """Size of the integral of the noise-free dipole over the QRS, in mV ms: what a Kors QRS area is an estimate of."""
    p = dict(zip(PARAMETERS, patient.e, strict=True)) | {"log_t": -20.0}
    after_ms = np.arange(-150.0, 150.0)[None]
    return np.linalg.norm(ventricles(p, after_ms, np.ones_like(after_ms)).sum(axis=1))


def test_the_ecg_holds_nearly_all_that_can_be_known_and_width_alone_far_less(patients, columns):
    d = np.array([patient.dyssynchrony for patient in patients])
    areas = np.array([qrs_area(patient) for patient in patients])
    widths = np.array([patient.e[PARAMETERS.index("qrs_ms")] for patient in patients])
    y = columns["response"]
    assert auc(y, d) - 0.05 < auc(y, areas) < auc(y, d)
    assert 0.55 < auc(y, widths) < auc(y, areas) - 0.08
    # What is left of dyssynchrony without any own noise is a one-to-one function of it.
    block = np.array([patient.e[PARAMETERS.index("lbbb")] for patient in patients])
    assert (np.argsort(block) == np.argsort(d)).all()


def test_patients_are_those_who_are_referred(columns):
    known = {name: values[~np.isnan(values)] for name, values in columns.items()}
    assert np.mean(known["lvef_pre"] <= 35) > 0.85
    assert np.mean(known["qrs_ms"] >= 120) > 0.85
    assert 0.55 < known["lbbb"].mean() < 0.8
    assert set(known["nyha"]) == {2, 3, 4}
    assert (known["paced"] == 0).all()
    missing = np.mean(np.isnan(columns["nyha"]))
    assert 0.01 < missing < 0.06
    assert not np.isnan(columns["response"]).any()


def test_the_course_agrees_with_the_response_by_every_definition_of_it(columns):
    before = {name: columns[name] for name in ("lvef_pre", "lvesv_pre")}
    known = ~np.isnan(list(before.values())).any(axis=0)
    for definition, strict in (("lvesv15", None), ("lvef5", True), ("lvef5", False)):
        derived = definitions.derive(columns, definition=definition, strict=strict, deaths="nonresponder")
        assert (derived == columns["response"])[known].all(), definition
    died = columns["died_before_followup"] == 1
    assert 0 < died.mean() < 0.05
    assert (columns["response"][died] == 0).all()
    assert np.isnan(columns["lvesv_post"][died]).all()


def test_an_acquisition_is_twelve_leads_with_every_column_of_a_crt_cohort():
    cohort = SyntheticCrtCohort(patients=4, records=2, missing=0.0)
    assert cohort.targets == TARGETS
    acquisition = cohort.load(cohort.items()[0])
    assert (acquisition.ecg.leads, acquisition.ecg.rate_hz) == (LEADS, 500.0)
    assert acquisition.ecg.signal_mv.shape == (12, 5000)
    assert set(acquisition.targets) == {target.name for target in TARGETS}
    assert acquisition.targets["ecg_qrs_ms"] == pytest.approx(acquisition.targets["qrs_ms"], abs=30)


def test_records_of_a_patient_differ_and_are_all_in_one_split():
    cohort = SyntheticCrtCohort(patients=4, records=2)
    items = cohort.items()
    assert len({item.record for item in items}) == 8
    assert len({item.subject for item in items}) == 4
    assert {item.split for item in items} == {"train"}
    first, second = (cohort.load(item) for item in items[:2])
    assert first.targets["response"] == second.targets["response"]
    assert not np.array_equal(first.ecg.signal_mv, second.ecg.signal_mv)
    assert first.targets["ecg_qrs_ms"] == pytest.approx(second.targets["ecg_qrs_ms"], abs=20)


def test_loading_is_the_same_in_another_process_and_for_another_number_of_patients():
    cohort, more = SyntheticCrtCohort(patients=3), SyntheticCrtCohort(patients=30)
    item = cohort.items()[2]
    for other in (pickle.loads(pickle.dumps(cohort)), more):
        again, first = other.load(item), cohort.load(item)
        np.testing.assert_array_equal(again.ecg.signal_mv, first.ecg.signal_mv)
        np.testing.assert_equal(again.targets, first.targets)
    other = SyntheticCrtCohort(patients=3, seed=1)
    assert not np.array_equal(other.recording(2, 0).signal_mv, cohort.recording(2, 0).signal_mv)


def test_no_recording_looks_paced():
    cohort = SyntheticCrtCohort(patients=30)
    assert all(not pacing_spikes(cohort.recording(index, 0).signal_mv, 500.0).size for index in range(30))


def test_the_qrs_is_as_wide_as_the_clinic_reads_it():
    cohort = SyntheticCrtCohort(patients=40, missing=0.0)
    targets = [cohort.load(item).targets for item in cohort.items()]
    read, got = (np.array([of_one[name] for of_one in targets]) for name in ("qrs_ms", "ecg_qrs_ms"))
    assert np.corrcoef(read, got)[0, 1] > 0.8
    assert abs(np.median(got - read)) < 6
    assert np.median(np.abs(got - read)) < 12  # The clinic's own error has a deviation of 6 ms.


def test_a_patient_with_complete_block_has_a_deep_v1_and_one_without_has_late_forces_to_the_right():
    cohort = SyntheticCrtCohort(patients=400)
    patients = [cohort.patient(i) for i in range(400)]
    order = np.argsort([patient.dyssynchrony for patient in patients])

    def v1_late(patient):
        from ecgjax.data.cohorts.synthetic.waveform import LEAD_FIELD

        p = dict(zip(PARAMETERS, patient.e, strict=True))
        after_ms = np.array([[0.3 * p["qrs_ms"]]])
        return float(LEAD_FIELD[2] @ ventricles(p, after_ms, np.ones_like(after_ms))[:, 0])

    assert np.median([v1_late(patients[i]) for i in order[-20:]]) < -0.1
    assert np.median([v1_late(patients[i]) for i in order[:20]]) > 0.0


def test_the_written_cohort_reads_back(tmp_path):
    cohort = SyntheticCrtCohort(patients=3, records=2, deaths=0.9, prevalence=0.3)
    table = write_raw(cohort, tmp_path)
    with open(table) as file:
        rows = list(csv.DictReader(file))
    assert [row["patient_id"] for row in rows] == ["p0000", "p0000", "p0001", "p0001", "p0002", "p0002"]
    for row, item in zip(rows, cohort.items(), strict=True):
        index, record = int(item.subject.split("-")[1]), int(item.record.split("-")[2])
        recording = wfdb.read(tmp_path / row["record"])
        want = cohort.recording(index, record)
        assert (recording.leads, recording.rate_hz) == (LEADS, 500.0)
        np.testing.assert_allclose(recording.signal_mv, want.signal_mv, atol=0.00051)
        columns = cohort.patient(index).columns
        assert float(row["response"]) == columns["response"]
        assert row["sex"] == ("F" if columns["female"] else "M")
        for name in ("lvef_pre", "lvesv_post", "qrs_ms"):
            assert (float(row[name]) if row[name] else np.nan) == pytest.approx(columns[name], nan_ok=True)


@pytest.mark.parametrize("response", ["given", "lvesv15"])
def test_the_written_cohort_is_the_same_to_a_users_reader(tmp_path, response):
    cohort = SyntheticCrtCohort(patients=8, deaths=0.5, missing=0.0)
    reader = CrtCohort(str(write_raw(cohort, tmp_path)), response=response)
    for item, mine in zip(reader.items(), cohort.items(), strict=True):
        got, want = reader.load(item).targets, cohort.load(mine).targets
        assert set(got) == set(want)
        for name in set(want) - {"ecg_pr_ms"}:  # P is small: 16 bits may move its onset.
            assert got[name] == pytest.approx(want[name], abs=2.5, nan_ok=True), name


def test_what_cannot_be_is_refused_by_name():
    for settings, message in (
        ({"auc": 0.45}, r"config\.cohort\.auc is 0\.45; give 0\.5"),
        ({"prevalence": 1.0}, r"config\.cohort\.prevalence is 1\.0"),
        ({"patients": 1}, r"config\.cohort\.patients is 1; give 2 or more"),
        ({"missing": 1.0}, r"config\.cohort\.missing is 1\.0"),
        ({"rate_hz": 100.0}, r"5 s at 250 Hz at least"),
    ):
        with pytest.raises(ValueError, match=message):
            SyntheticCrtCohort(**settings)
    with pytest.raises(ValueError, match="no item of this cohort"):
        SyntheticCrtCohort(patients=3).load(Item("0-3", "0-3-0", "train"))


def test_rhythm_is_the_patients(patients):
    """P ends before the QRS begins, however wide that is."""
    for patient in patients[:200]:
        assert patient.pr_ms - 1.24 * patient.e[PARAMETERS.index("qrs_ms")] / 2 > 80
        assert draw_rhythm(patient.e, np.random.default_rng(0), seconds=2.0).pr_ms != patient.pr_ms
