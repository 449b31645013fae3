import numpy as np
import pytest
import scipy.ndimage

from ecgjax.formats import wfdb
from ecgjax.signals import vcg
from ecgjax.signals.ecg import LEADS


def test_entries_are_those_that_were_published():
    """Kors et al. 1990 by rows, over I, II, V1 to V6."""
    leads = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
    x, y, z = vcg.kors(np.eye(8), leads)
    np.testing.assert_array_equal(x, [0.38, -0.07, -0.13, 0.05, -0.01, 0.14, 0.06, 0.54])
    np.testing.assert_array_equal(y, [-0.07, 0.93, 0.06, -0.02, -0.05, 0.06, -0.17, 0.13])
    np.testing.assert_array_equal(z, [0.11, -0.23, -0.43, -0.06, -0.14, -0.20, -0.11, 0.31])


def test_rows_are_found_by_name_in_any_order():
    signal = np.random.default_rng(0).standard_normal((12, 7))
    want = vcg.kors(signal)
    np.testing.assert_allclose(vcg.kors(signal[::-1], LEADS[::-1]), want, atol=1e-12)
    eight = [LEADS.index(lead) for lead in vcg.KORS]
    np.testing.assert_allclose(vcg.kors(signal[eight], list(vcg.KORS)), want, atol=1e-12)


def test_vcg_is_linear():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 12, 5))
    np.testing.assert_allclose(vcg.kors(2 * a - 3 * b), 2 * vcg.kors(a) - 3 * vcg.kors(b), atol=1e-12)


def test_missing_leads_are_named():
    with pytest.raises(ValueError, match=r"\['V6'\] are missing"):
        vcg.kors(np.zeros((11, 3)), LEADS[:-1])


def test_area_of_a_triangle_in_one_lead_is_half_base_times_height():
    """1 mV high and 0.1 s wide in V6 alone: 0.05 mV s = 50 uV s, times the row of V6."""
    beat = np.zeros((12, 200))
    beat[11, 50:101] = 1 - np.abs(np.linspace(-1, 1, 51))
    vector = vcg.qrs_vector_uvs(beat, LEADS, onset=50, offset=100, rate_hz=500)
    np.testing.assert_allclose(vector, 50 * np.array([0.54, 0.13, 0.31]), rtol=1e-9)
    assert vcg.qrs_area_uvs(vector) == pytest.approx(50 * np.sqrt(0.54**2 + 0.13**2 + 0.31**2))


def test_kors_agrees_with_frank_leads_that_were_measured(shared_data):
    """PTB s0010_re, the moving mean of 0.6 s off: r = 0.986, 0.949, 0.719 were measured."""
    path = next(shared_data.rglob("s0010_re.hea"), None)
    if path is None:
        pytest.skip(f"no s0010_re of the PTB database (12 leads and Frank's) under {shared_data}")
    recording = wfdb.read(path)
    mean = scipy.ndimage.uniform_filter1d(recording.signal_mv, int(0.6 * recording.rate_hz), axis=1)
    signal = recording.signal_mv - mean
    frank = signal[[[lead.lower() for lead in recording.leads].index(name) for name in ("vx", "vy", "vz")]]
    found = vcg.kors(signal, recording.leads)
    for got, want, floor in zip(found, frank, (0.95, 0.90, 0.65), strict=True):
        assert np.corrcoef(got, want)[0, 1] > floor
