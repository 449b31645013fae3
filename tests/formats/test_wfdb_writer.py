import numpy as np
import pytest

from ecgjax.formats import wfdb, wfdb_writer
from ecgjax.formats.recording import Recording


def test_what_is_written_is_read(tmp_path):
    signal = np.random.default_rng(0).normal(size=(3, 70)).round(3)
    signal[1, 5] = np.nan
    wfdb_writer.write(tmp_path / "p_1-a", Recording(signal, 250.0, ("II", "V1", "X")))
    got = wfdb.read(tmp_path / "p_1-a")
    assert (got.rate_hz, got.leads) == (250.0, ("II", "V1", "X"))
    np.testing.assert_allclose(got.signal_mv, signal, atol=1e-12)


def test_the_gain_is_the_resolution(tmp_path):
    wfdb_writer.write(tmp_path / "r", Recording(np.array([[0.12345, -1.0]]), 500.0, ("I",)), gain=200.0)
    np.testing.assert_allclose(wfdb.read(tmp_path / "r").signal_mv, [[0.125, -1.0]], atol=1e-12)


def test_what_16_bits_or_a_header_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match="40 mV at 1000 units a mV is beyond 16 bits; give a smaller gain"):
        wfdb_writer.write(tmp_path / "r", Recording(np.array([[40.0, 0.0]]), 500.0, ("I",)))
    with pytest.raises(ValueError, match="a record's name has letters"):
        wfdb_writer.write(tmp_path / "a b", Recording(np.zeros((1, 3)), 500.0, ("I",)))
