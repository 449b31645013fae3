import time

import numpy as np
import pytest

from ecgjax.formats import wfdb
from ecgjax.formats.recording import LEADS
from ecgjax.signals import features

RATE = 500
BEATS_S = np.arange(0.5, 9.6, 0.8)


def heart(gains, *, t_gains=None, width_s=0.04, peaks_s=BEATS_S, rate_hz=RATE):
    """Leads with a QRS triangle (half-width `width_s`) and a T wave at 0.3 s after it."""
    at = np.arange(10 * rate_hz) / rate_hz
    qrs = sum(np.clip(1 - np.abs(at - peak) / width_s, 0, None) for peak in peaks_s)
    t_wave = sum(np.exp(-0.5 * ((at - peak - 0.3) / 0.04) ** 2) for peak in peaks_s)
    gains = np.asarray(gains, float)
    t_gains = 0.25 * gains if t_gains is None else np.asarray(t_gains, float)
    return gains[:, None] * qrs + t_gains[:, None] * t_wave


def frontal(axis_deg):
    """Gains of the six limb leads for a heart vector of 1 mV at this angle, by Einthoven and Goldberger."""
    x, y = np.cos(np.radians(axis_deg)), np.sin(np.radians(axis_deg))
    one, avf = x, y * np.sqrt(3) / 2
    two = avf + one / 2  # aVF = II - I / 2.
    return [one, two, two - one, -(one + two) / 2, one - two / 2, avf]


CHEST = [-1.2, -1.5, -0.3, 0.5, 1.4, 1.1]


def test_rhythm_of_regular_and_irregular_hearts():
    regular = features.hand_features(heart(frontal(50) + CHEST), RATE)
    assert regular["heart_rate_bpm"] == pytest.approx(75, abs=0.5)
    assert regular["rr_sd_s"] < 0.003
    gaps = np.array([0.6, 1.0, 0.6, 1.0, 0.6, 1.0, 0.6, 1.0, 0.6, 1.0])
    uneven = features.hand_features(heart(frontal(50) + CHEST, peaks_s=0.5 + np.cumsum(gaps)), RATE)
    assert uneven["rr_sd_s"] == pytest.approx(0.2, abs=0.01)
    assert uneven["rmssd_s"] == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("axis", [-60, 0, 45, 90, 150])
def test_frontal_axis_is_the_angle_of_the_heart_vector(axis):
    got = features.hand_features(heart(frontal(axis) + CHEST), RATE)
    assert got["qrs_axis_deg"] == pytest.approx(axis, abs=3)
    assert got["t_axis_deg"] == pytest.approx(axis, abs=3)
    assert got["qrs_t_angle_frontal_deg"] < 5


def test_opposite_t_waves_give_a_wide_angle_and_negative_signs():
    gains = np.array(frontal(45) + CHEST)
    got = features.hand_features(heart(gains, t_gains=-0.3 * gains), RATE)
    assert got["qrs_t_angle_frontal_deg"] == pytest.approx(180, abs=5)
    assert got["qrs_t_cosine"] == pytest.approx(-1, abs=0.05)
    assert (got["I/t_sign"], got["V1/t_sign"]) == (-1, 1)
    assert got["V5/t_mv"] == pytest.approx(-0.42, abs=0.05)


def test_amplitudes_and_voltage_criteria_are_in_millivolt():
    gains = np.array(frontal(0) + CHEST)
    got = features.hand_features(heart(gains, t_gains=np.zeros(12)), RATE)
    assert got["V5/r_mv"] == pytest.approx(1.4, rel=0.08)
    assert got["V1/s_mv"] == pytest.approx(-1.2, rel=0.08)
    assert got["sokolow_lyon_mv"] == pytest.approx(1.2 + 1.4, rel=0.08)
    assert got["cornell_mv"] == pytest.approx(gains[4] + 0.3, rel=0.1)
    assert got["cornell_product_mvs"] == pytest.approx(got["cornell_mv"] * got["qrs_duration_s"])


def test_qrs_duration_grows_with_the_qrs():
    widths = [0.03, 0.045, 0.06, 0.075]
    got = [
        features.hand_features(heart(frontal(50) + CHEST, width_s=w), RATE)["qrs_duration_s"] for w in widths
    ]
    np.testing.assert_allclose(got, 2 * np.array(widths), atol=0.025)
    assert np.all(np.diff(got) > 0.015)


def test_qt_runs_from_qrs_onset_to_where_t_is_down_to_15_percent():
    # Onset 0.04 s before R; a Gaussian of sigma 0.04 s at 0.3 s falls to 0.15 after 1.95 sigma.
    got = features.hand_features(heart(frontal(50) + CHEST), RATE)
    assert got["qt_s"] == pytest.approx(0.04 + 0.3 + 1.95 * 0.04, abs=0.02)
    assert got["qtc_s"] == pytest.approx(got["qt_s"] / np.sqrt(0.8), rel=0.01)


def test_beats_at_different_levels_still_average_their_noise():
    rng = np.random.default_rng(0)
    peaks = np.arange(500, 12500, 500)
    levels = np.repeat(rng.normal(0, 1, 26), 500)[250:12750]
    signal = (levels + 0.05 * rng.standard_normal(12500))[None]
    beat = features.median_beat(signal, peaks, RATE)
    # The median of 24 beats has 1.25 / sqrt(24) of the noise; at different levels it would be one beat's.
    assert beat.std() < 1.5 * 0.05 * 1.25 / np.sqrt(24)


def cases():
    rng = np.random.default_rng(0)
    good = heart(frontal(50) + CHEST, rate_hz=100)
    flat = good.copy()
    flat[4] = 0
    gaps = rng.uniform(0.3, 1.1, 12)
    return {
        "normal": good,
        "flat lead": flat,
        "all flat": np.zeros((12, 1000)),
        "noise": rng.standard_normal((12, 1000)),
        "fibrillation": heart(frontal(50) + CHEST, rate_hz=100, peaks_s=np.cumsum(gaps)),
        "broad": heart(frontal(-40) + CHEST, rate_hz=100, width_s=0.09),
        "very fast": heart(frontal(50) + CHEST, rate_hz=100, peaks_s=np.arange(0.2, 9.8, 0.28)),
        "one beat": heart(frontal(50) + CHEST, rate_hz=100, peaks_s=[5.0]),
        "nan": np.where(rng.random((12, 1000)) < 0.01, np.nan, good),
        "one second": good[:, :100],
        "2.5 s": good[:, :250],
        "float32": good.astype(np.float32),
    }


@pytest.mark.parametrize("case", cases())
def test_every_value_is_finite_and_names_do_not_depend_on_the_signal(case):
    signal = cases()[case]
    for function in (features.hand_features, features.spectral_features):
        got = function(signal, 100)
        assert list(got) == list(function(cases()["normal"], 100))
        assert np.isfinite(list(got.values())).all()


@pytest.mark.parametrize("function", [features.hand_features, features.spectral_features])
def test_too_short_and_too_slow_are_refused(function):
    with pytest.raises(ValueError, match="under a second"):
        function(np.zeros((12, 99)), 100)
    with pytest.raises(ValueError, match="at least 80 Hz"):
        function(np.zeros((12, 500)), 50)


@pytest.mark.parametrize("rate_hz", [100, 500])
@pytest.mark.parametrize("seconds", [2.5, 10.0])
def test_band_amplitude_of_a_sine_is_its_root_mean_square(rate_hz, seconds):
    at = np.arange(int(seconds * rate_hz)) / rate_hz
    signal = np.stack([0.5 * np.sin(2 * np.pi * 11 * at), 0.25 * np.sin(2 * np.pi * 11 * at)])
    got = features.spectral_features(signal, rate_hz)
    edge = max(edge for edge in features.BANDS_HZ if edge < 11)
    values = [got[f"lead{i}/log_amplitude_{edge}hz"] for i in range(2)]
    np.testing.assert_allclose(np.exp(values), [0.5 / np.sqrt(2), 0.25 / np.sqrt(2)], rtol=0.05)


def test_spectral_features_read_heart_rate_and_percentiles():
    signal = heart(frontal(50) + CHEST)
    got = features.spectral_features(signal, RATE)
    assert got["heart_rate_bpm"] == pytest.approx(75, abs=0.5)
    assert got["V5/percentile_100_mv"] == pytest.approx(1.4, rel=0.1)
    assert got["V2/percentile_0_mv"] == pytest.approx(-1.5, rel=0.1)
    assert len(got) == 1 + 12 * (12 + len(features.PERCENTILES))


def test_features_are_fast():
    signal = cases()["normal"]
    for function in (features.hand_features, features.spectral_features):
        function(signal, 100)
        spent = []
        for _ in range(10):
            start = time.perf_counter()
            function(signal, 100)
            spent.append(time.perf_counter() - start)
        assert (
            min(spent) < 0.05
        )  # 3 ms on an idle core without type checks; ten times that means a lost cache.


def test_hand_features_agree_with_the_manual_marks_of_ludb(ludb):
    manual = [record.qrs_ms / 1000 for record in ludb.values()]
    ours = [
        features.hand_features(record.recording.signal_mv, 500)["qrs_duration_s"] for record in ludb.values()
    ]
    assert np.corrcoef(manual, ours)[0, 1] > 0.7
    assert np.median(np.abs(np.subtract(manual, ours))) < 0.03


def test_hand_features_tell_normal_from_abnormal(shared_data):
    """A probe on half of PTB-XL's patients scores the other half well above chance."""
    import csv

    path = shared_data / "ptbxl" / "ptbxl_database.csv"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))[::2]
    signals = [wfdb.read(path.parent / row["filename_lr"], leads=LEADS).signal_mv for row in rows]
    normal = np.array(["'NORM'" in row["scp_codes"] for row in rows])
    fit = np.array([float(row["patient_id"]) % 2 == 0 for row in rows])
    for function, floor in ((features.hand_features, 0.83), (features.spectral_features, 0.8)):
        x = np.array([list(function(signal, 100).values()) for signal in signals])
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(
            x[fit], normal[fit]
        )
        assert roc_auc_score(normal[~fit], probe.decision_function(x[~fit])) > floor
