"""Shape of the QRS in one lead: q, QS or rS, breadth of R, notches and slurs.

The definitions of left bundle branch block give no numbers for these; every threshold here is our choice.
"""

import numpy as np
import scipy.ndimage
from jaxtyping import Float64

from ecgjax.signals.lbbb import LeadQrs

WAVE_MV = 0.05
"""A wave of less is not one: half a small square of the paper."""

_BROAD_S = 0.08
_NOTCH_FROM_S = 0.04  # An earlier one belongs to the septum and the right ventricle.
_NOTCH_TO_SHARE = 2 / 3
_NOTCH_RISE = 0.08  # Of the steepest slope.


def lead_qrs(qrs_mv: Float64[np.ndarray, "w"], rate_hz: float) -> LeadQrs:
    """Shape of one lead from the onset to the offset of the QRS of all leads, 0 in the PR segment."""
    r_at = int(qrs_mv.argmax())
    r = float(qrs_mv[r_at])
    deepest = int(qrs_mv.argmin())
    s = -float(qrs_mv[deepest])
    has_r = r >= WAVE_MV
    first_r = float(qrs_mv[: deepest + 1].max())
    q = has_r and -float(qrs_mv[: r_at + 1].min()) >= WAVE_MV
    # An elevated ST segment ends the QRS above 0, which is no second R.
    second_r = float(qrs_mv[deepest:].max() - max(qrs_mv[-1], 0.0)) >= WAVE_MV
    early_q = -float(qrs_mv[: int(qrs_mv[: deepest + 1].argmax()) + 1].min()) >= WAVE_MV
    qs_or_rs = s >= WAVE_MV and s > first_r and not second_r and not (early_q and first_r >= WAVE_MV)
    width_s = float((qrs_mv > 0.1 * r).sum() / rate_hz)
    return LeadQrs(
        q=q,
        qs_or_rs=qs_or_rs,
        broad_r=has_r and r > s and width_s >= _BROAD_S,
        notched=notched(qrs_mv, rate_hz),
        r_peak_ms=1000 * r_at / rate_hz if has_r else float("nan"),
    )


def notched(qrs_mv: Float64[np.ndarray, "w"], rate_hz: float) -> bool:
    """Whether the largest wave has a notch or slur in the middle of the QRS."""
    wave = qrs_mv * np.sign(qrs_mv[np.abs(qrs_mv).argmax()])
    if len(wave) < 5 or wave.max() < 2 * WAVE_MV:
        return False
    slope = scipy.ndimage.gaussian_filter1d(np.gradient(wave), max(0.006 * rate_hz, 0.5), mode="nearest")
    size = np.abs(slope).max()
    up = np.flatnonzero(slope >= 0.3 * slope.max())[0]
    down = np.flatnonzero(slope <= 0.3 * slope.min())[-1]
    dips = np.flatnonzero((slope[1:-1] < slope[:-2]) & (slope[1:-1] <= slope[2:])) + 1
    for dip in dips[(dips > up) & (dips < down)]:
        rise = slope[dip : down + 1].max() - slope[dip]
        middle = _NOTCH_FROM_S * rate_hz <= dip <= _NOTCH_TO_SHARE * len(wave)
        if middle and rise >= _NOTCH_RISE * size and wave[dip] > 0.1 * wave.max():
            return True
    return False
