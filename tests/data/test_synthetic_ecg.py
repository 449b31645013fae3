import csv
import dataclasses
import inspect

import numpy as np
import pytest

from ecgjax.data.cohorts.synthetic.dipole import dipole, draw_rhythm
from ecgjax.data.cohorts.synthetic.ecg_parameters import CONTINUOUS, PARAMETERS, draw_ecg_parameters
from ecgjax.data.cohorts.synthetic.heart import draw_hearts
from ecgjax.data.cohorts.synthetic.waveform import LEAD_FIELD, limb_leads, waveform
from ecgjax.formats.recording import LEADS

PTBXL_PEAK_MV = dict(
    zip(LEADS, (0.77, 0.83, 0.68, 0.78, 0.57, 0.64, 0.96, 1.48, 1.30, 1.41, 1.40, 1.18), strict=True)
)
"""Median over 400 PTB-XL records of the largest absolute value of each lead."""


def parameters(**changes):
    """Those of an average heart without disease, some changed."""
    usual = {name: row[0] for name, row in CONTINUOUS.items()}
    return np.array([float({**usual, **changes}.get(name, 0.0)) for name in PARAMETERS])


def clean_beat(rate_hz=1000.0, **changes):
    """The twelve noise-free leads from 0.4 s before one R to 0.6 s after it, and the sample of that R."""
    e = parameters(heart_rate=55.0, **changes)
    rhythm = draw_rhythm(e, np.random.default_rng(0), seconds=6.0)
    time_s = rhythm.r_s[3] + np.arange(-0.4, 0.6, 1 / rate_hz)
    eight = LEAD_FIELD @ dipole(e, rhythm, time_s)
    beat = dict(zip(LEADS, limb_leads(eight.astype(np.float32)), strict=True))
    return beat, int(0.4 * rate_hz)


def extreme(trace):
    """The value furthest from 0, with its sign."""
    return trace[np.abs(trace).argmax()]


def qrs(trace, r, half=70):
    return trace[r - half : r + half]


def t_wave(trace, r):
    return trace[r + 150 : r + 450]


@pytest.fixture(scope="module")
def population():
    rng = np.random.default_rng(17)
    hearts = draw_hearts(rng, 400)
    e = draw_ecg_parameters(hearts, rng)
    signals = np.stack([waveform(row, rng, rate_hz=100.0, seconds=10.0) for row in e])
    return hearts, e, signals


def test_waveform_cannot_see_the_heart():
    assert list(inspect.signature(waveform).parameters) == ["e", "rng", "rate_hz", "seconds"]


def test_peaks_lie_within_a_fifth_of_ptbxl(population):
    peaks = np.median(np.abs(population[2]).max(-1), axis=0)
    np.testing.assert_allclose(peaks, list(PTBXL_PEAK_MV.values()), rtol=0.2)


def test_peaks_lie_within_a_fifth_of_the_real_files(population, shared_data):
    with open(shared_data / "ptbxl" / "ptbxl_database.csv") as lines:
        files = [row["filename_lr"] for row in csv.DictReader(lines)]
    # WFDB format 16: little-endian 16-bit, leads interleaved, 1000 units a mV.
    real = [
        np.fromfile(shared_data / "ptbxl" / f"{name}.dat", "<i2").reshape(-1, 12) / 1000 for name in files
    ]
    want = np.median([np.abs(signal).max(0) for signal in real], axis=0)
    np.testing.assert_allclose(want, list(PTBXL_PEAK_MV.values()), atol=0.04)
    np.testing.assert_allclose(np.median(np.abs(population[2]).max(-1), axis=0), want, rtol=0.2)


def test_einthoven_holds_in_the_noisy_recording(population):
    lead = dict(zip(LEADS, np.moveaxis(population[2], 1, 0), strict=True))
    tolerance = 1e-6  # float32 at a few mV.
    np.testing.assert_allclose(lead["III"], lead["II"] - lead["I"], atol=tolerance)
    np.testing.assert_allclose(lead["aVR"] + lead["aVL"] + lead["aVF"], 0, atol=tolerance)
    np.testing.assert_allclose(lead["aVF"], (lead["II"] + lead["III"]) / 2, atol=tolerance)


def test_t_is_upright_in_normals():
    beat, r = clean_beat()
    for name in ("I", "II", "V3", "V4", "V5", "V6"):
        assert extreme(t_wave(beat[name], r)) > 0.1, name
    assert extreme(t_wave(beat["aVR"], r)) < -0.1


def test_t_is_upright_in_nearly_all_healthy_subjects():
    rng = np.random.default_rng(5)
    hearts = draw_hearts(rng, 300)
    healthy = ~(hearts.lvh | hearts.dcm | hearts.infarct | hearts.lbbb | hearts.af)
    e = draw_ecg_parameters(hearts, rng)[healthy]
    upright = []
    for row in e:
        beat, r = clean_beat(
            200.0, **{n: v for n, v in zip(PARAMETERS, row, strict=True) if n != "heart_rate"}
        )
        upright.append([extreme(beat[n][r + 30 : r + 90]) > 0 for n in ("I", "II", "V3", "V4", "V5", "V6")])
    assert (np.mean(upright, axis=0) > 0.95).all()


def test_r_grows_and_s_shrinks_across_the_chest():
    beat, r = clean_beat()
    chest = [qrs(beat[f"V{k}"], r) for k in range(1, 6)]
    growing = [trace.max() for trace in chest[:4]]
    assert growing == sorted(growing)
    ratio = [trace.max() / -trace.min() for trace in chest]
    assert ratio == sorted(ratio)
    assert ratio[1] < 1 < ratio[3]


def test_septal_q_and_r_are_small_in_normals():
    beat, r = clean_beat()
    early = slice(r - 60, r - 20)
    assert -0.25 < beat["V6"][early].min() < -0.02
    assert 0.1 < beat["V1"][early].max() < 0.5


def test_lbbb_is_broad_upright_laterally_and_discordant():
    beat, r = clean_beat(lbbb=1.0, qrs_ms=142.0, qrs_t_deg=167.0, axis_deg=-22.0)
    normal, _ = clean_beat()
    width = [np.sum(np.abs(qrs(b["V6"], r, 110)) > 0.1 * qrs(b["V6"], r).max()) for b in (normal, beat)]
    assert width[1] > 1.5 * width[0]
    assert qrs(beat["V6"], r, 110).min() > -0.1  # No septal q, no S.
    assert qrs(beat["V1"], r).min() < -0.6
    assert qrs(beat["V1"], r).max() < 0.1
    assert extreme(t_wave(beat["V6"], r)) < -0.05
    assert extreme(t_wave(beat["I"], r)) < -0.05
    assert extreme(t_wave(beat["V1"], r)) > 0.2


@pytest.mark.parametrize(
    ("territory", "facing"),
    [("anterior", ("V2", "V3")), ("inferior", ("III", "aVF")), ("lateral", ("I", "aVL"))],
)
def test_an_infarct_shows_a_q_wave_and_a_lower_t_in_the_leads_that_face_it(territory, facing):
    usual, r = clean_beat()
    beat, _ = clean_beat(**{f"q_{territory}": 1.4})
    early = slice(r - 45, r - 5)
    for name in facing:
        assert beat[name][early].min() < -0.1, name
        assert beat[name][early].min() < usual[name][early].min() - 0.08, name
        assert extreme(t_wave(beat[name], r)) < extreme(t_wave(usual[name], r)) - 0.1, name


def test_strain_turns_lateral_t_and_depresses_st():
    beat, r = clean_beat(qrs_t_deg=135.0, log_lv_ratio=0.6)
    usual, _ = clean_beat()
    assert extreme(t_wave(beat["V6"], r)) < 0
    assert beat["V6"][r + 90] < usual["V6"][r + 90] - 0.02
    assert qrs(beat["V5"], r).max() > 1.2 * qrs(usual["V5"], r).max()


@pytest.mark.parametrize(
    ("heart_rate", "irregular"), [(42.0, False), (150.0, False), (200.0, False), (150.0, True)]
)
def test_no_wave_is_cut_at_any_heart_rate(heart_rate, irregular):
    """Against the sum over all beats, each computed alone in a rhythm with no neighbour for 100 s."""
    e = parameters(heart_rate=heart_rate, qrs_ms=120.0)
    source = parameters(heart_rate=heart_rate, af=float(irregular))
    rhythm = draw_rhythm(source, np.random.default_rng(2), seconds=4.0)
    time_s = np.arange(0, 4, 0.002)
    together = dipole(e, rhythm, time_s)
    alone = 0.0
    for r, rr in zip(rhythm.r_s, rhythm.rr_s, strict=True):
        far = np.array([r - 200, r - 100, r, r + 100, r + 200])
        alone = alone + dipole(e, dataclasses.replace(rhythm, r_s=far, rr_s=np.full(5, rr)), time_s)
    np.testing.assert_allclose(together, alone, atol=2e-3)
    assert np.ptp(together) > 0.5


def test_a_coarser_rate_samples_the_same_beats():
    e = parameters()
    fine = waveform(e, np.random.default_rng(4), rate_hz=500.0, seconds=10.0)
    coarse = waveform(e, np.random.default_rng(4), rate_hz=100.0, seconds=10.0)
    # They differ in muscle noise alone, of about 10 microvolt.
    assert np.abs(fine[:, ::5] - coarse).max() < 0.15
    assert np.abs(fine[:, ::5] - coarse).std() < 0.03


def test_af_has_irregular_beats_and_no_p():
    def spread(af):
        rr = draw_rhythm(parameters(af=af), np.random.default_rng(0), seconds=60.0).rr_s
        return rr.std() / rr.mean()

    assert spread(0.0) < 0.05 < 0.15 < spread(1.0)
    beat, r = clean_beat()
    assert beat["II"][r - 220 : r - 80].max() > 0.08  # The P of sinus rhythm.


def test_heart_rate_is_the_number_of_beats_a_minute():
    rhythm = draw_rhythm(parameters(heart_rate=75.0), np.random.default_rng(0), seconds=60.0)
    inside = np.sum((rhythm.r_s >= 0) & (rhythm.r_s < 60))
    assert abs(inside - 75) <= 2
