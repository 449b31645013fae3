"""Pacing spikes: ECGs of hearts that are already paced do not belong into a cohort that asks who will respond."""

import numpy as np
import scipy.ndimage
from jaxtyping import Float, Int

from ecgjax.signals.ecg import Rate
from ecgjax.signals.qrs import MIN_RATE_HZ
from ecgjax.signals.quality import QualityError


def pacing_spikes(signal_mv: Float[np.ndarray, "l t"], rate_hz: Rate) -> Int[np.ndarray, "spike"]:
    """Sample indices of pacing spikes in a recording that was not filtered below 100 Hz, from 250 Hz.

    A spike stands out of the median of its neighbourhood for at most 10 ms, by at least 0.2 mV and ten times what
    the recording usually does in some lead. Any leads.
    """
    if not rate_hz >= MIN_RATE_HZ:
        raise QualityError(
            "rate", f"{rate_hz} Hz does not hold a pacing spike; at least {MIN_RATE_HZ} Hz is needed"
        )
    signal = np.nan_to_num(signal_mv.astype(np.float64), nan=0.0)
    width = 2 * int(0.010 * rate_hz) + 1
    narrow = np.abs(signal - scipy.ndimage.median_filter(signal, size=(1, width), mode="nearest"))
    usual = np.percentile(narrow, 98, axis=1, keepdims=True)
    over = np.flatnonzero((narrow > np.maximum(0.2, 10 * usual)).any(axis=0))
    if not len(over):
        return over
    groups = np.split(over, np.flatnonzero(np.diff(over) > 0.02 * rate_hz) + 1)
    height = narrow.max(axis=0)
    return np.array([group[height[group].argmax()] for group in groups])
