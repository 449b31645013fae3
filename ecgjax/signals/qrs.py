"""The representative beat of a 12-lead recording, where its QRS begins and ends, and its PR interval."""

import dataclasses
import functools

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal
from jaxtyping import Float, Float64, Int

from ecgjax.signals.beats import heart_rate_bpm, median_beat, r_peaks
from ecgjax.signals.ecg import Rate
from ecgjax.signals.quality import QualityError

MIN_RATE_HZ = 250
"""Below it half the rate cuts off notches, and a sample is more than 4 ms: no measure of the QRS is given."""

BEFORE_S, AFTER_S = 0.40, 0.40
"""How far the representative beat reaches before and after R."""

_REACH_S = 0.20  # How far from its steepest slope a QRS may reach.

_PR_GAP_S = 0.02  # What lies closer to the QRS is not asked for P waves.
_SAME_P = 0.7  # Correlation.

_SHAPE_BAND_HZ = (5.0, 40.0)
_SHAPE_S = 0.08  # Half of the window by which beats are compared.
_SHIFT_S = 0.02  # How far an R peak may be off between beats of one shape.
_SAME_SHAPE = 0.9  # Correlation.


@dataclasses.dataclass(frozen=True, eq=False)
class Beat:
    """Median of the beats of the commonest shape, 0 in the PR segment; `onset` and `offset` of the QRS in samples."""

    signal_mv: Float64[np.ndarray, "l w"]
    rate_hz: float
    rate_bpm: float
    onset: int
    offset: int
    pr_ms: float
    """From the onset of P to the onset of the QRS; NaN without a P wave in front of most beats."""

    @property
    def qrs_ms(self) -> float:
        """From the earliest onset to the latest offset in any lead."""
        return 1000 * (self.offset - self.onset) / self.rate_hz


def representative_beat(signal_mv: Float[np.ndarray, "l t"], rate_hz: Rate) -> Beat:
    """Finds, compares and aligns the beats of a recording of 0.05 to 150 Hz, and delineates their median.

    Mains hum is taken off first. Raises QualityError: "rate" below `MIN_RATE_HZ`, "beats" where no two whole beats
    are alike, "qrs" where the QRS does not end.
    """
    if not rate_hz >= MIN_RATE_HZ:
        raise QualityError(
            "rate",
            f"{rate_hz} Hz holds too little of a QRS to measure it; at least {MIN_RATE_HZ} Hz is needed",
        )
    signal = _without_hum(signal_mv.astype(np.float64), rate_hz)
    peaks = r_peaks(signal, rate_hz)
    typical = _typical_beats(signal, peaks, rate_hz)
    if len(typical) < 2:
        raise QualityError(
            "beats",
            f"no two whole beats are alike among {len(peaks)} R peaks in {signal.shape[1] / rate_hz:.1f} s",
        )
    median = functools.partial(median_beat, signal, rate_hz=rate_hz, before_s=BEFORE_S, after_s=AFTER_S)
    beat = median(typical)
    onset, offset = qrs_limits(beat, int(BEFORE_S * rate_hz), rate_hz)
    quiet = beat[:, max(onset - int(0.02 * rate_hz), 0) : max(onset - int(0.004 * rate_hz), 1)]
    rate_bpm = heart_rate_bpm(peaks, rate_hz)
    p_onset = _p_onset(beat, onset, rate_hz, rate_bpm)
    if p_onset is not None:
        p_wave = slice(p_onset, onset - int(_PR_GAP_S * rate_hz))
        if not _agree(median(typical[::2])[:, p_wave], median(typical[1::2])[:, p_wave]):
            p_onset = None
    return Beat(
        signal_mv=beat - np.median(quiet, axis=1, keepdims=True),
        rate_hz=float(rate_hz),
        rate_bpm=rate_bpm,
        onset=onset,
        offset=offset,
        pr_ms=float("nan") if p_onset is None else 1000 * (onset - p_onset) / rate_hz,
    )


def qrs_limits(beat_mv: Float64[np.ndarray, "l w"], at: int, rate_hz: Rate) -> tuple[int, int]:
    """First and last sample of the QRS whose R peak is at sample `at`, over all leads.

    From its steepest slope the QRS reaches to where the mean slope of the leads was last above 5 % of that (gaps of
    up to 25 ms bridged), and on while it falls towards the quiet level of that side, to 2 % and 0.25 mV/s above
    it; a P wave close by, from which it would rise again, stays outside. A reader marks where the trace leaves
    the baseline, before it is that steep, so that the onset is moved 8 ms ahead; the offset needs no such
    correction. All numbers are our choice, made on the 40 records of LUDB that tests/signals/test_measures.py
    compares with.
    """
    speed = _speed(beat_mv, rate_hz, 0.014)
    near = int(0.10 * rate_hz)
    steepest = at - near + int(speed[at - near : at + near].argmax())
    first, last = steepest - int(_REACH_S * rate_hz), steepest + int(_REACH_S * rate_hz)
    ahead, behind = speed[first : steepest + 1], speed[steepest : last + 1]
    to_onset = _reach(ahead[::-1], quiet=np.percentile(ahead, 10), rate_hz=rate_hz)
    to_offset = _reach(behind, quiet=np.percentile(behind, 15), rate_hz=rate_hz)
    if max(to_onset, to_offset) >= len(behind) - 1:
        raise QualityError("qrs", f"the QRS does not end within {_REACH_S} s of its steepest slope")
    return steepest - to_onset - round(0.008 * rate_hz), steepest + to_offset


def _without_hum(signal: Float64[np.ndarray, "l t"], rate_hz: Rate) -> Float64[np.ndarray, "l t"]:
    """The signal without a sinusoid near 50 or 60 Hz, where one stands out of the spectrum.

    Its slope would be taken for a QRS without end. One sinusoid over the whole recording is so narrow (0.1 Hz in
    10 s) that it leaves the QRS as it is, where a notch filter would ring.
    """
    length = signal.shape[1]
    time = np.arange(length) / rate_hz
    bins = scipy.fft.next_fast_len(4 * length, real=True)
    faded = signal * scipy.signal.get_window("hann", length)
    spectrum = np.abs(scipy.fft.rfft(faded, n=bins, axis=1)).sum(axis=0)
    frequency = np.arange(len(spectrum)) * rate_hz / bins
    for mains_hz in (50, 60):
        near = np.abs(frequency - mains_hz) < 3
        peak = int(np.where(near, spectrum, 0).argmax())
        if abs(frequency[peak] - mains_hz) > 0.5 or spectrum[peak] < 6 * np.median(spectrum[near]):
            continue
        angle = 2 * np.pi * frequency[peak] * time
        waves = np.stack([np.cos(angle), np.sin(angle)])
        signal = signal - np.linalg.solve(waves @ waves.T, waves @ signal.T).T @ waves
    return signal


def _reach(speed: Float64[np.ndarray, "w"], *, quiet: float, rate_hz: Rate) -> int:
    """Samples from the steepest slope, `speed[0]`, to the end of the QRS on this side."""
    top = speed[0] - quiet
    fast = np.flatnonzero(speed > quiet + 0.05 * top)
    parted = np.flatnonzero(np.diff(fast) > 0.025 * rate_hz)
    end = int(fast[parted[0]] if len(parted) else fast[-1])
    level = quiet + 0.02 * top + 0.25
    while end + 1 < len(speed) and level < speed[end + 1] <= speed[end]:
        end += 1
    return end


def _speed(beat_mv: Float64[np.ndarray, "l w"], rate_hz: Rate, seconds: float) -> Float64[np.ndarray, "w"]:
    """Mean size of the leads' slopes in mV/s, each over this time."""
    slope = np.gradient(beat_mv, axis=1) * rate_hz
    slope = scipy.ndimage.uniform_filter1d(slope, max(round(seconds * rate_hz), 1), axis=1, mode="nearest")
    return np.abs(slope).mean(axis=0)


def _p_onset(beat_mv: Float64[np.ndarray, "l w"], onset: int, rate_hz: Rate, rate_bpm: float) -> int | None:
    """Where the slope of the P wave begins; None where nothing in front of the QRS stands out of its surroundings.

    Looked for from 320 ms, or 0.45 of a cycle, to 20 ms before the QRS, after the end of a T wave that reaches into
    that. Flutter waves that are conducted regularly are taken for P waves.
    """
    cycle_s = 60 / rate_bpm if rate_bpm > 0 else 1.0
    first = max(onset - int(min(0.32, 0.45 * cycle_s) * rate_hz), 0)
    speed = _speed(beat_mv, rate_hz, 0.042)[first : onset - int(_PR_GAP_S * rate_hz)]
    falls = np.diff(speed) <= 0
    after_t = len(falls) if falls.all() else int(np.argmin(falls))
    speed = speed[after_t:]
    if len(speed) < 0.02 * rate_hz:
        return None
    quiet, steepest = np.percentile(speed, 15), int(speed.argmax())
    over = np.flatnonzero(speed > quiet + 0.2 * (speed[steepest] - quiet))
    groups = np.split(over, np.flatnonzero(np.diff(over) > 0.04 * rate_hz) + 1)
    start = next(int(group[0]) for group in groups if group[0] <= steepest <= group[-1])
    if speed[steepest] < 3.5 * quiet or start == 0:
        return None
    return first + after_t + start


def _agree(a: Float64[np.ndarray, "l w"], b: Float64[np.ndarray, "l w"]) -> bool:
    """Whether the P waves of every other beat look like those between them, as waves of fibrillation do not."""
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    return float((a * b).sum()) > _SAME_P * float(np.linalg.norm(a) * np.linalg.norm(b))


def _typical_beats(
    signal: Float64[np.ndarray, "l t"], peaks: Int[np.ndarray, "beat"], rate_hz: Rate
) -> Int[np.ndarray, "typical"]:
    """Peaks of the beats of the commonest shape, moved so that their QRS lie on one another.

    Extrasystoles differ in shape; of two shapes that are as common the one with the longer pauses before it is
    taken, which is the conducted beat of a bigeminy.
    """
    half, shift = int(_SHAPE_S * rate_hz), int(_SHIFT_S * rate_hz)
    before, after = int(BEFORE_S * rate_hz) + shift, int(AFTER_S * rate_hz) + shift
    inside = (peaks >= before) & (peaks + after < signal.shape[1])
    pause = np.diff(peaks, prepend=peaks[:1])[inside]
    peaks = peaks[inside]
    if not len(peaks):
        return peaks
    band = scipy.signal.sosfiltfilt(_shape_band(float(rate_hz)), signal, axis=1)
    shape = band[:, peaks[:, None] + np.arange(-half, half + 1)].transpose(1, 0, 2).reshape(len(peaks), -1)
    shape = shape / np.maximum(np.linalg.norm(shape, axis=1, keepdims=True), 1e-9)
    alike = shape @ shape.T > _SAME_SHAPE
    members = max(alike, key=lambda row: (row.sum(), pause[row].mean()))
    peaks = peaks[members]
    template = np.median(shape[members], axis=0).reshape(len(signal), -1)
    shifts = np.arange(-shift, shift + 1)
    wide = band[:, peaks[:, None] + np.arange(-half - shift, half + shift + 1)]
    windows = np.lib.stride_tricks.sliding_window_view(wide, 2 * half + 1, axis=2)
    fit = np.einsum("lbsw,lw->bs", windows, template)
    return peaks + shifts[fit.argmax(axis=1)]


@functools.lru_cache(maxsize=16)
def _shape_band(rate_hz: float) -> Float64[np.ndarray, "section 6"]:
    return scipy.signal.butter(2, _SHAPE_BAND_HZ, btype="bandpass", fs=rate_hz, output="sos")
