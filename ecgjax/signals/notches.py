"""Shape of the QRS in one lead: q, QS or rS, breadth of R, notches and slurs.

The definitions of left bundle branch block give no numbers for these; every threshold here is our choice.
"""

import numpy as np
import scipy.ndimage
import scipy.signal
from jaxtyping import Float64

from ecgjax.signals.ecg import Rate
from ecgjax.signals.lbbb import LeadQrs

WAVE_MV = 0.05
"""A wave of less is not one: half a small square of the paper."""

BROAD_S = 0.07
"""A broad R is above a tenth of its height for that long. Of 59 normal records of PTB-XL 95 % have less in I, aVL,
V5 and V6 (36 to 42 ms in the median, 118 ms in complete left bundle branch block)."""


def lead_qrs(qrs_mv: Float64[np.ndarray, "w"], rate_hz: Rate) -> LeadQrs:
    """Shape of one lead from the onset to the offset of the QRS of all leads, 0 in the PR segment.

    Waves are counted from a parabola between onset and offset, the repolarisation that has begun by then: an ST
    segment that begins above 0 is no second R, and one that begins below it no S.
    """
    wave = qrs_mv - qrs_mv[-1] * np.linspace(0, 1, len(qrs_mv)) ** 2
    r, s = float(wave.max()), -float(wave.min())
    upto_s, after_s = wave[: wave.argmin() + 1], wave[wave.argmin() :]
    first_r = float(upto_s.max())
    return LeadQrs(
        q=r >= WAVE_MV and _negative_first(wave),
        qs_or_rs=s >= WAVE_MV
        and s > first_r
        and float(after_s.max()) < WAVE_MV
        and not (first_r >= WAVE_MV and _negative_first(upto_s)),
        broad_r=r >= WAVE_MV and r > s and int((wave > 0.1 * r).sum()) / rate_hz >= BROAD_S,
        notched=notched(wave, rate_hz),
        r_peak_ms=1000 * _last_peak(wave) / rate_hz if r >= WAVE_MV else float("nan"),
    )


def _negative_first(wave: Float64[np.ndarray, "w"]) -> bool:
    """Whether a negative wave comes before the largest positive one."""
    return -float(wave[: int(wave.argmax()) + 1].min()) >= WAVE_MV


def _last_peak(qrs_mv: Float64[np.ndarray, "w"]) -> int:
    """Sample of the peak of R, of a notched R the last that reaches 0.8 of its height."""
    peaks, _ = scipy.signal.find_peaks(qrs_mv, height=0.8 * float(qrs_mv.max()))
    return int(peaks[-1]) if len(peaks) else int(qrs_mv.argmax())


def notched(qrs_mv: Float64[np.ndarray, "w"], rate_hz: Rate) -> bool:
    """Whether the largest wave has a notch or slur in the middle of the QRS.

    Up a smooth wave and down again its slope only falls, from the steepest rise to the steepest descent. A notch
    turns the trace back and a slur merely slows it; of both the slope falls early, and rises again. So we look,
    between the first rise and the last descent of at least 0.3 of the steepest, for a minimum of the slope from
    which it rises by 8 % of the steepest slope and by 2 mV/s (20 uV in 10 ms). Where it rises most, the bend, lies on
    the wave (above a tenth of its height), not before 40 ms, which would belong to the septum, and not in the last
    quarter of the QRS.
    """
    wave = qrs_mv * np.sign(qrs_mv[np.abs(qrs_mv).argmax()])
    if wave.max() < 2 * WAVE_MV:
        return False
    slope = scipy.ndimage.gaussian_filter1d(np.gradient(wave) * rate_hz, 0.004 * rate_hz, mode="nearest")
    rises, _ = scipy.signal.find_peaks(slope, height=0.3 * slope.max())
    descents, _ = scipy.signal.find_peaks(-slope, height=-0.3 * slope.min())
    if not (len(rises) and len(descents) and rises[0] < descents[-1]):
        return False
    least = max(0.08 * np.abs(slope).max(), 2.0)
    slow, _ = scipy.signal.find_peaks(-slope[: descents[-1] + 1], prominence=least)
    for start in slow[slow > rises[0]]:
        rise = np.diff(slope[start : descents[-1] + 1])
        falls = np.flatnonzero(rise < 0)
        bend = start + int(rise[: falls[0] if len(falls) else None].argmax())
        middle = 0.04 * rate_hz <= bend <= 0.75 * len(wave)
        if middle and wave[bend] > 0.1 * wave.max():
            return True
    return False
