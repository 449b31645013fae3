import pickle

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

from ecgjax.signals import ecg
from ecgjax.signals.quality import QualityError


@pytest.fixture
def signal():
    """Ten seconds at 100 Hz: a pulse a second, noise, a slow drift, 12 leads."""
    rng = np.random.default_rng(0)
    time = np.arange(1000) / 100
    pulse = np.exp(-0.5 * (((time % 1) - 0.5) / 0.02) ** 2)
    drift = 0.3 * np.sin(2 * np.pi * 0.1 * time)
    gains = np.linspace(-0.8, 1.2, 12)[:, None]
    return gains * pulse + drift + 0.01 * rng.standard_normal((12, 1000))


def sparse_baseline(y, *, lam, p, iterations):
    """The equation as written: explicit sparse D, one lead."""
    n = len(y)
    second = scipy.sparse.diags([1.0, -2.0, 1.0], [0, -1, -2], shape=(n, n - 2))
    weight = np.ones(n)
    for _ in range(iterations):
        z = scipy.sparse.linalg.spsolve(
            (scipy.sparse.diags(weight) + lam * second @ second.T).tocsc(), weight * y
        )
        weight = np.where(y > z, p, np.where(y < z, 1 - p, 0.0))
    return z


@pytest.mark.parametrize("length", [3, 4, 5, 200])
def test_joint_solve_equals_a_sparse_solve_lead_by_lead(signal, length):
    part = signal[:3, :length]
    got = ecg.asymmetric_baseline(part, lam=1e4, p=0.3, iterations=4)
    want = [sparse_baseline(lead, lam=1e4, p=0.3, iterations=4) for lead in part]
    np.testing.assert_allclose(got, want, atol=1e-9)


@pytest.mark.parametrize("iterations", [1, 2, 3, 5, 9])
def test_a_lead_that_has_settled_equals_one_that_is_solved_on(signal, iterations):
    """Leads settle after 3 to 6 solves; from then on only the others are solved, and 9 solve none."""
    got = ecg.asymmetric_baseline(signal, lam=1.6e4, p=0.3, iterations=iterations)
    want = [sparse_baseline(lead, lam=1.6e4, p=0.3, iterations=iterations) for lead in signal]
    np.testing.assert_allclose(got, want, atol=1e-9)


def test_leads_do_not_leak_into_each_other(signal):
    alone = ecg.asymmetric_baseline(signal[1:2], lam=1e7, p=0.3, iterations=5)
    loud = signal.copy()
    loud[0] = 100
    together = ecg.asymmetric_baseline(loud, lam=1e7, p=0.3, iterations=5)
    np.testing.assert_allclose(together[1:2], alone, atol=1e-9)


def test_flat_and_straight_leads_are_their_own_baseline(signal):
    signal[0] = 0
    signal[1] = np.linspace(-1, 1, 1000)
    baseline = ecg.asymmetric_baseline(signal, lam=1e7, p=0.3, iterations=5)
    np.testing.assert_allclose(baseline[:2], signal[:2], atol=1e-7)
    assert np.isfinite(ecg.condition(signal, normalise="lead").signal).all()


@pytest.mark.parametrize("length", [100, 500, 2500])
def test_a_silent_recording_does_not_make_the_system_singular(length):
    silent = np.zeros((12, length))
    np.testing.assert_array_equal(ecg.asymmetric_baseline(silent, lam=1e7, p=0.3, iterations=5), silent)


def test_a_lambda_that_grows_with_the_fourth_power_of_the_rate_keeps_the_cutoff(signal):
    fine = ecg.resample(signal, 100, 500)
    at_500 = ecg.asymmetric_baseline(fine, lam=1e7, p=0.3, iterations=5)[:, ::5]
    at_100 = ecg.asymmetric_baseline(signal, lam=1.6e4, p=0.3, iterations=5)
    wrong = ecg.asymmetric_baseline(signal, lam=1e7, p=0.3, iterations=5)
    assert np.abs(at_500 - at_100).max() < 0.02 < np.abs(at_500 - wrong).max()


def test_clip_is_about_zero_at_sigma_of_the_whole_array(signal):
    signal[4, 7] = 80
    signal[5] += 0.5
    got = ecg.condition(signal, baseline_lambda=None, clip_sigma=4.0, normalise="none")
    limit = 4 * np.sqrt(np.mean((signal - signal.mean()) ** 2))
    np.testing.assert_allclose(got.signal, np.clip(signal, -limit, limit), atol=1e-6)
    assert np.abs(signal).max() > limit


def test_groups_share_mean_and_population_variance(signal):
    got = ecg.condition(signal).signal
    for rows in (slice(0, 3), slice(3, 6), slice(6, 12)):
        np.testing.assert_allclose([got[rows].mean(), got[rows].std()], [0, 1], atol=1e-5)
    assert abs(got[:1].std() - 1) > 0.01


@pytest.mark.parametrize("normalise", ["group", "record", "lead", "none"])
def test_scale_and_offset_lead_back_to_millivolt(signal, normalise):
    got = ecg.condition(signal, normalise=normalise)
    millivolt = got.signal * got.scale[:, None] + got.offset[:, None] + got.baseline
    limit = 4 * signal.std()
    np.testing.assert_allclose(millivolt, np.clip(signal, -limit, limit), atol=1e-5)


def test_nan_becomes_zero_before_everything_else(signal):
    zeroed = signal.copy()
    zeroed[2, 100:110] = 0
    signal[2, 100:110] = np.nan
    np.testing.assert_array_equal(ecg.condition(signal).signal, ecg.condition(zeroed).signal)


def test_infinity_is_refused_where_the_reference_ruins_the_record(signal):
    signal[2, 5] = np.inf
    with pytest.raises(QualityError, match="1 samples are infinite"):
        ecg.condition(signal)


def test_group_normalisation_refuses_other_lead_counts(signal):
    with pytest.raises(ValueError, match=r"needs the 12 standard leads, got 2.*\"lead\""):
        ecg.condition(signal[:2])
    assert ecg.condition(signal[:2], normalise="lead").signal.shape == (2, 1000)


@pytest.mark.parametrize(
    "setting",
    [{"baseline_p": 1.0}, {"baseline_lambda": 0.0}, {"baseline_iterations": 0}, {"clip_sigma": -4.0}],
)
def test_impossible_settings_are_refused(signal, setting):
    with pytest.raises(ValueError, match="must be"):
        ecg.condition(signal, **setting)


def test_input_is_left_alone(signal):
    before = signal.copy()
    ecg.condition(signal)
    ecg.resample(signal, 100, 250)
    np.testing.assert_array_equal(signal, before)


@pytest.mark.parametrize(
    ("from_hz", "to_hz", "length"), [(500, 100, 1000), (100, 250, 12500), (360, 100, 1389)]
)
def test_resampling_keeps_a_slow_sine(from_hz, to_hz, length):
    times = np.arange(5000) / from_hz
    got = ecg.resample(np.sin(2 * np.pi * 1.3 * times)[None] + 5, from_hz, to_hz)
    assert got.shape == (1, length)
    want = np.sin(2 * np.pi * 1.3 * np.arange(length) / to_hz) + 5
    inner = slice(to_hz, -to_hz)
    np.testing.assert_allclose(got[0, inner], want[inner], atol=5e-3)  # The filter's ripple is 0.4 %.
    assert np.abs(got[0] - want).max() < 0.1


def test_resampling_removes_what_the_new_rate_cannot_hold():
    fast = np.sin(2 * np.pi * 120 * np.arange(5000) / 500)[None]
    assert np.abs(ecg.resample(fast, 500, 100)[:, 50:-50]).max() < 0.02


def test_resampling_refuses_irrational_rates_and_nan(signal):
    with pytest.raises(ValueError, match=r"257\.31.*no ratio of integers"):
        ecg.resample(signal, 257.31, 100)
    signal[0, 3] = np.nan
    with pytest.raises(QualityError, match="1 of 12000 samples") as error:
        ecg.resample(signal, 100, 250)
    assert error.value.kind == "nan"


def test_a_good_record_passes(signal):
    ecg.check(signal)
    ecg.check(signal.astype(np.float32))


def spoilt(signal, how):
    signal = signal.copy()
    if how == "one nan":
        signal[3, 10] = np.nan
    elif how == "one infinity":
        signal[3, 10] = -np.inf
    elif how == "flat lead":
        signal[7] = 0.4
    elif how == "electrode off for 4 s":
        signal[7, 200:600] = 0.4
    elif how == "volt read as millivolt":
        signal = signal / 1000
    elif how == "microvolt read as millivolt":
        signal = signal * 1000
    elif how == "half a second":
        signal = signal[:, :50]
    elif how == "empty":
        signal = signal[:, :0]
    return signal


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("one nan", "nan"),
        ("one infinity", "nan"),
        ("flat lead", "flat"),
        ("electrode off for 4 s", "flat"),
        ("volt read as millivolt", "flat"),
        ("microvolt read as millivolt", "amplitude"),
        ("half a second", "short"),
        ("empty", "short"),
    ],
)
def test_damaged_records_are_refused_by_kind(signal, how, kind):
    with pytest.raises(QualityError) as error:
        ecg.check(spoilt(signal, how))
    assert error.value.kind == kind


def test_thresholds_are_settings(signal):
    ecg.check(spoilt(signal, "one nan"), max_nonfinite=1e-3)
    ecg.check(spoilt(signal, "half a second"), min_length=50)
    ecg.check(spoilt(signal, "electrode off for 4 s"), max_flat_share=0.5)
    ecg.check(spoilt(signal, "microvolt read as millivolt"), max_amplitude_mv=5000.0)
    with pytest.raises(QualityError, match="infinities never"):
        ecg.check(spoilt(signal, "one infinity"), max_nonfinite=0.5)


def test_quality_errors_survive_the_way_home_from_a_worker():
    error = pickle.loads(pickle.dumps(QualityError("flat", "lead row 3 is flat")))
    assert (error.kind, str(error)) == ("flat", "lead row 3 is flat")
