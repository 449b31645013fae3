"""Pacing spikes: the ECG of a heart that is already paced tells when it was made, not who will respond."""

import numpy as np
from jaxtyping import Float, Float64, Int
from numpy.lib.stride_tricks import sliding_window_view

from ecgjax.signals.beats import r_peaks
from ecgjax.signals.ecg import Rate
from ecgjax.signals.qrs import MIN_RATE_HZ
from ecgjax.signals.quality import QualityError

_LEAST_MV = 0.2
_RISE_S = 0.004
_QUIET_S = 0.016
_FALL_S = (0.012, 0.016)
_APART_S = 0.020
_BEAT_S = 0.30
_SAME_DIRECTION = 0.9


def pacing_spikes(signal_mv: Float[np.ndarray, "l t"], rate_hz: Rate) -> Int[np.ndarray, "spike"]:
    """Sample indices of pacing spikes, in recordings from 250 Hz that no filter below about 100 Hz has blurred.

    A spike is a narrow jump (`_jumps`) with an R peak in the 300 ms after it, as after a paced atrium or
    ventricle, and there is another of the same direction in the space of the leads. Single jumps are artefacts of
    electrodes, of which 1 in 20 recordings has one. A spike within a QRS, or one that the recorder flattened below
    0.2 mV, is not found. NaN counts as 0. All thresholds are our choice.
    """
    if not rate_hz >= MIN_RATE_HZ:
        raise QualityError(
            "rate", f"{rate_hz} Hz does not hold a pacing spike; at least {MIN_RATE_HZ} Hz is needed"
        )
    signal = np.nan_to_num(signal_mv.astype(np.float64), nan=0.0)
    at, leap = _jumps(signal, rate_hz)
    if len(at) < 2:
        return np.zeros(0, np.int64)
    wait = (r_peaks(signal, rate_hz) - at[:, None]) / rate_hz
    before_a_beat = ((wait > _RISE_S) & (wait <= _BEAT_S)).any(axis=1)
    at, leap = at[before_a_beat], leap[:, before_a_beat]
    direction = leap / np.linalg.norm(leap, axis=0)
    alike = direction.T @ direction > _SAME_DIRECTION
    return at[alike.sum(axis=1) > 1]


def _jumps(
    signal: Float64[np.ndarray, "l t"], rate_hz: Rate
) -> tuple[Int[np.ndarray, "jump"], Float64[np.ndarray, "l jump"]]:
    """Where the trace jumps out of quiet and falls back, which no wave of the heart does; and how far each lead.

    Within 4 ms the leads together (the length of their vector) leave the level of the 16 ms before by five times
    what they strayed from it until then, and at least one lead by 0.2 mV; 12 to 16 ms later less than half of the
    jump is left.
    """
    rise, quiet = max(round(_RISE_S * rate_hz), 1), round(_QUIET_S * rate_hz)
    fall = [round(seconds * rate_hz) for seconds in _FALL_S]
    first, last = quiet + rise, signal.shape[1] - fall[1]
    if last <= first:
        return np.zeros(0, np.int64), np.zeros((len(signal), 0))
    before = sliding_window_view(signal[:, : last - rise - 1], quiet, axis=1)
    level = before.mean(axis=2)
    strayed = np.linalg.norm(before - level[:, :, None], axis=0).max(axis=1)
    leap = signal[:, first:last] - level
    size = np.linalg.norm(leap, axis=0)
    after = sliding_window_view(signal[:, first + fall[0] :], fall[1] - fall[0] + 1, axis=1).mean(axis=2)
    left = np.linalg.norm(after - level, axis=0)
    tall = np.abs(leap).max(axis=0) >= _LEAST_MV
    found = np.flatnonzero(tall & (size >= 5 * strayed) & (left <= 0.5 * size))
    if not len(found):
        return found, np.zeros((len(signal), 0))
    groups = np.split(found, np.flatnonzero(np.diff(found) > _APART_S * rate_hz) + 1)
    tops = np.array([group[size[group].argmax()] for group in groups])
    return first + tops, leap[:, tops]
