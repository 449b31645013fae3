import numpy as np
import pytest

from ecgjax.formats import wfdb
from ecgjax.signals import beats


def synthetic(peak_times_s, *, rate_hz=100, leads=12, noise=0.02, t_wave=0.3, seconds=10.0, gains=None):
    """QRS triangles of 45 ms half-width and T waves 0.3 s later, with noise and wander; gains by lead."""
    rng = np.random.default_rng(0)
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    one = np.zeros_like(time)
    for peak in peak_times_s:
        one += np.clip(1 - np.abs(time - peak) / 0.045, 0, None)
        one += t_wave * np.exp(-0.5 * ((time - peak - 0.3) / 0.05) ** 2)
    if gains is None:
        gains = np.where(np.arange(leads) % 2, -1, 1) * np.linspace(0.4, 1.5, leads)
    wander = 0.5 * np.sin(2 * np.pi * 0.25 * time)
    return np.asarray(gains)[:, None] * one + wander + noise * rng.standard_normal((len(gains), len(time)))


def assert_found(signal, rate_hz, want_s, tolerance_s=0.03):
    got = beats.r_peaks(signal, rate_hz) / rate_hz
    assert len(got) == len(want_s)
    np.testing.assert_allclose(got, want_s, atol=tolerance_s)


@pytest.mark.parametrize("rate_hz", [80, 100, 250, 360, 500])
@pytest.mark.parametrize("bpm", [35, 60, 100, 180])
def test_regular_beats_are_found_at_any_rate(rate_hz, bpm):
    want = np.arange(0.4, 9.7, 60 / bpm)
    signal = synthetic(want, rate_hz=rate_hz)
    assert_found(signal, rate_hz, want)
    assert beats.heart_rate_bpm(beats.r_peaks(signal, rate_hz), rate_hz) == pytest.approx(bpm, rel=0.02)


def test_irregular_beats_are_all_found():
    want = 0.5 + np.cumsum(np.random.default_rng(3).uniform(0.4, 1.2, 11))
    assert_found(synthetic(want, seconds=want[-1] + 0.6), 100, want)


def test_tall_t_waves_are_no_beats():
    want = np.arange(0.5, 9.5, 0.9)
    assert_found(synthetic(want, t_wave=1.2), 100, want)


def test_one_lead_two_leads_and_flat_leads_work():
    want = np.arange(0.5, 9.5, 0.8)
    for gains in ([1.0], [0.3, -1.0], [0, 0, 1, 0, -0.5]):
        signal = synthetic(want, gains=gains, noise=0.01)
        signal[np.asarray(gains) == 0] = 0.7
        assert_found(signal, 100, want)


def test_size_of_a_lead_does_not_matter():
    want = np.arange(0.5, 9.5, 0.8)
    signal = synthetic(want)
    signal[3] = 200 * np.random.default_rng(1).standard_normal(signal.shape[1])  # A loose electrode.
    assert_found(signal, 100, want)
    np.testing.assert_array_equal(
        beats.r_peaks(synthetic(want) * 1e-3, 100), beats.r_peaks(synthetic(want), 100)
    )


def test_one_huge_artefact_hides_no_beats():
    want = np.arange(0.5, 9.5, 0.8)
    signal = synthetic(want)
    signal[:, 455:458] += 30  # Between the beats at 4.5 and 5.3 s.
    got = beats.r_peaks(signal, 100) / 100
    far = want[np.abs(want - 4.56) > 0.3]
    assert np.abs(got[:, None] - far).min(axis=0).max() < 0.03


def test_nothing_to_find_gives_nothing():
    assert beats.r_peaks(np.zeros((12, 1000)), 100).size == 0
    assert beats.r_peaks(np.full((12, 1000), np.nan), 100).size == 0
    assert beats.r_peaks(np.ones((12, 50)), 100).size == 0
    assert np.isnan(beats.heart_rate_bpm(np.array([5]), 100))


def test_too_low_a_rate_is_refused():
    with pytest.raises(ValueError, match=r"rate 50 Hz is too low.*at least 80 Hz"):
        beats.r_peaks(np.zeros((1, 500)), 50)


def agreement(found, annotated, tolerance):
    """Sensitivity and positive predictive value."""
    apart = np.abs(found[:, None] - annotated[None])
    return np.mean(apart.min(axis=0) <= tolerance), np.mean(apart.min(axis=1) <= tolerance)


@pytest.mark.parametrize("record", ["100", "119", "203", "214"])
def test_real_beats_agree_with_cardiologists(shared_data, record):
    """Clean, with premature beats, hard with atrial fibrillation, with left bundle branch block."""
    reference = pytest.importorskip("wfdb")
    path = shared_data / "mitbih" / record
    if not path.with_suffix(".atr").is_file():
        pytest.skip(f"{path}.atr is missing")
    recording = wfdb.read(path)
    minutes = slice(0, int(5 * 60 * recording.rate_hz))
    annotation = reference.rdann(str(path), "atr", sampto=minutes.stop)
    marks = [
        at
        for at, symbol in zip(annotation.sample, annotation.symbol, strict=True)
        if symbol in "NLRAaJSVFejE"
    ]
    found = beats.r_peaks(recording.signal_mv[:, minutes], recording.rate_hz)
    sensitivity, predictive = agreement(found, np.array(marks), 0.15 * recording.rate_hz)
    assert min(sensitivity, predictive) > 0.97


def test_heart_rates_of_ptbxl_are_plausible_and_equal_at_both_rates(shared_data):
    headers = sorted((shared_data / "ptbxl" / "records500").glob("*/*_hr.hea"))[:12]
    if not headers:
        pytest.skip(f"no ptbxl records at 500 Hz under {shared_data}")
    for path in headers:
        low = path.parents[2] / "records100" / path.parent.name / path.name.replace("_hr", "_lr")
        rates = []
        for recording in (wfdb.read(path), wfdb.read(low)):
            peaks = beats.r_peaks(recording.signal_mv, recording.rate_hz)
            rates.append(beats.heart_rate_bpm(peaks, recording.rate_hz))
        assert 30 < rates[0] < 200
        assert rates[0] == pytest.approx(rates[1], abs=5)
