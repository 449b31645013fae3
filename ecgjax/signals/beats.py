"""R peaks of a recording with any leads at any rate from 80 Hz."""

import functools

import numpy as np
import scipy.ndimage
import scipy.signal
from jaxtyping import Float, Float64, Int

from ecgjax.signals.ecg import Rate

MIN_RATE_HZ = 80
"""Below it the QRS band does not fit under half the rate."""

BEFORE_S, AFTER_S = 0.30, 0.50
"""How far `median_beat` reaches before and after R."""

_BAND_HZ = (8.0, 20.0)
_SMOOTH_S = 0.08
_REFRACTORY_S = 0.25  # 240 beats a minute; shorter distances are two parts of one QRS or a T wave.
_TOP_S = 1.0  # Most hold a beat down to 30 a minute; longer ones see only the large beats of a bigeminy.
_LEVEL_S = 4.0  # The threshold follows the beats of this neighbourhood.
_THRESHOLD = 0.4


def r_peaks(signal: Float[np.ndarray, "l t"], rate_hz: Rate) -> Int[np.ndarray, "beat"]:
    """Sample indices of the R peaks, all leads together.

    Slope energy in the QRS band, summed over leads scaled to equal beats, smoothed over 80 ms; a beat is a
    local maximum above 0.4 of the median beat within 4 s, at least 250 ms from a larger one. The peak is
    then moved to the largest QRS-band amplitude within 60 ms, which is the fiducial that agrees from beat to
    beat. Flat leads are ignored; without any beat the result is empty. NaN counts as 0.
    """
    if not rate_hz >= MIN_RATE_HZ:
        raise ValueError(
            f"rate {rate_hz} Hz is too low to find beats; resample to at least {MIN_RATE_HZ} Hz."
        )
    length = signal.shape[1]
    if length < rate_hz:
        return np.zeros(0, np.int64)
    band = _qrs_band(np.nan_to_num(signal, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float64), rate_hz)
    if not len(band):
        return np.zeros(0, np.int64)
    slope = np.abs(np.diff(band, axis=1, prepend=band[:, :1])).sum(axis=0)
    energy = scipy.ndimage.uniform_filter1d(slope, max(int(_SMOOTH_S * rate_hz), 1), mode="nearest")
    distance = max(int(_REFRACTORY_S * rate_hz), 1)
    candidates, _ = scipy.signal.find_peaks(energy, distance=distance)
    if not candidates.size:
        return candidates
    beats = candidates[energy[candidates] > _THRESHOLD * _local_level(candidates, energy, rate_hz)]
    return _refine(beats, np.abs(band).sum(axis=0), int(0.06 * rate_hz))


def heart_rate_bpm(peaks: Int[np.ndarray, "beat"], rate_hz: Rate) -> float:
    """Beats a minute by the median interval, which one missed beat leaves alone; NaN below two beats."""
    return float(60 * rate_hz / np.median(np.diff(peaks))) if len(peaks) > 1 else float("nan")


def median_beat(
    signal: Float64[np.ndarray, "l t"],
    peaks: Int[np.ndarray, "beat"],
    rate_hz: Rate,
    *,
    before_s: float = BEFORE_S,
    after_s: float = AFTER_S,
) -> Float64[np.ndarray, "l w"]:
    """Median over the beats, from `before_s` before R to `after_s` after it; zeros without a whole beat.

    Every beat is first moved to 0 at 80 to 50 ms before R, where it is quiet. That and the median take off
    the wander without the harm that a high-pass does to ST and T.
    """
    before, after = int(before_s * rate_hz), int(after_s * rate_hz)
    inside = peaks[(peaks >= before) & (peaks + after < signal.shape[1])]
    if not len(inside):
        return np.zeros((len(signal), before + after))
    windows = signal[:, inside[:, None] + np.arange(-before, after)]
    quiet = windows[:, :, before - int(0.08 * rate_hz) : before - int(0.05 * rate_hz) + 1]
    return np.median(windows - quiet.mean(axis=2, keepdims=True), axis=1)


def _qrs_band(signal: Float64[np.ndarray, "l t"], rate_hz: Rate) -> Float64[np.ndarray, "alive t"]:
    """QRS band of the leads that are not flat, each divided by a robust size of its beats."""
    band = scipy.signal.sosfiltfilt(_band_pass(float(rate_hz)), signal, axis=1)
    size = np.median(_tops(np.abs(band), rate_hz), axis=1)
    alive = size > 1e-9
    return band[alive] / size[alive, None]


@functools.lru_cache(maxsize=16)
def _band_pass(rate_hz: float) -> Float64[np.ndarray, "section 6"]:
    return scipy.signal.butter(2, _BAND_HZ, btype="bandpass", fs=rate_hz, output="sos")


def _local_level(
    candidates: Int[np.ndarray, "peak"], energy: Float64[np.ndarray, "t"], rate_hz: Rate
) -> Float64[np.ndarray, "peak"]:
    """Height of a typical beat around every candidate: the median of the tops within `_LEVEL_S`."""
    tops = _tops(energy[None], rate_hz)[0]
    windows = min(int(_LEVEL_S / _TOP_S), len(tops) - 1) * 2 + 1
    # "reflect", because "nearest" would count a last stretch without a beat many times over.
    level = scipy.ndimage.median_filter(tops, size=windows, mode="reflect")
    return level[np.minimum(candidates // int(_TOP_S * rate_hz), len(level) - 1)]


def _tops(values: Float64[np.ndarray, "l t"], rate_hz: Rate) -> Float64[np.ndarray, "l window"]:
    """The largest value of every second: their median is the height of a beat, whatever the artefacts."""
    leads, length = values.shape
    window = min(int(_TOP_S * rate_hz), length)
    return values[:, : length // window * window].reshape(leads, -1, window).max(axis=2)


def _refine(
    beats: Int[np.ndarray, "beat"], amplitude: Float64[np.ndarray, "t"], reach: int
) -> Int[np.ndarray, "beat"]:
    window = np.clip(beats[:, None] + np.arange(-reach, reach + 1), 0, len(amplitude) - 1)
    return np.unique(window[np.arange(len(beats)), amplitude[window].argmax(axis=1)])
