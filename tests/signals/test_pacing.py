import numpy as np
import pytest
import scipy.signal

from ecgjax.formats import wfdb
from ecgjax.formats.recording import LEADS
from ecgjax.signals.beats import r_peaks
from ecgjax.signals.ecg import resample
from ecgjax.signals.pacing import pacing_spikes
from ecgjax.signals.quality import QualityError


def paced(signal, rate_hz, *, ahead_s, size_mv, seed=0):
    """Pulses of 1 ms ahead of every beat through a recorder's filter of 150 Hz, of `size_mv` in the largest lead."""
    fine = 2000
    at = r_peaks(signal, rate_hz) / rate_hz - ahead_s
    at = at[at > 0.1]
    train = np.zeros(signal.shape[1] * fine // rate_hz)
    for start in (at * fine).astype(int):
        train[start : start + 2] = 1
    train = scipy.signal.sosfilt(scipy.signal.butter(2, 150, fs=fine, output="sos"), train)
    train = resample(train[None], fine, rate_hz)[0]
    direction = np.random.default_rng(seed).standard_normal(len(signal))
    pulse = np.outer(direction / np.abs(direction).max(), train / np.abs(train).max())
    return signal + size_mv * pulse, at


@pytest.mark.parametrize(
    ("rate_hz", "size_mv", "floor"), [(500, 0.3, 0.95), (500, 1.0, 0.95), (250, 1.0, 0.9)]
)
@pytest.mark.parametrize("ahead_s", [0.1, 0.2])
def test_pulses_ahead_of_beats_are_found(ludb, rate_hz, size_mv, floor, ahead_s):
    """As of a paced ventricle and of a paced atrium, in the ECGs of ten hearts that are not paced."""
    found = wanted = 0
    for seed, record in enumerate([one for one in ludb.values() if one.name != "104"][:10]):
        signal = resample(record.recording.signal_mv.astype(float), 500, rate_hz)
        signal, at = paced(signal, rate_hz, ahead_s=ahead_s, size_mv=size_mv, seed=seed)
        got = pacing_spikes(signal, rate_hz) / rate_hz
        found += (np.abs(got[:, None] - at).min(axis=0, initial=1) < 0.01).sum()
        wanted += len(at)
    assert found / wanted >= floor


def test_a_paced_heart_is_the_only_one_of_ludb(ludb):
    """104: complete block, pacemaker that follows the P wave."""
    spikes = {name: len(pacing_spikes(record.recording.signal_mv, 500)) for name, record in ludb.items()}
    assert spikes.pop("104") >= 10
    assert not any(spikes.values())


def test_paced_hearts_are_the_only_ones_of_ptbxl(shared_data):
    headers = sorted((shared_data / "ptbxl" / "records500").glob("*/*_hr.hea"))
    if not headers:
        pytest.skip(f"no ptbxl records at 500 Hz under {shared_data}")
    found = {}
    for path in headers:
        recording = wfdb.read(path, leads=LEADS)
        found[int(path.stem[:5])] = len(pacing_spikes(recording.signal_mv, recording.rate_hz))
    # 382 is paced on demand: few beats are.
    assert {name for name, count in found.items() if count} == {382, 385} & set(found)


def test_one_jump_is_an_artefact(ludb):
    signal = ludb["142"].recording.signal_mv.astype(float)
    signal[:, 2005] += 0.5
    assert len(pacing_spikes(signal, 500)) == 0


def test_flat_and_short_recordings_have_none():
    assert len(pacing_spikes(np.zeros((12, 5000)), 500)) == 0
    assert len(pacing_spikes(np.full((12, 5000), np.nan), 500)) == 0
    assert len(pacing_spikes(np.zeros((12, 10)), 500)) == 0


def test_too_low_a_rate_is_refused():
    with pytest.raises(QualityError, match="100 Hz does not hold a pacing spike") as error:
        pacing_spikes(np.zeros((12, 1000)), 100)
    assert error.value.kind == "rate"
