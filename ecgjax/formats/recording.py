"""One acquisition as read, in physical units."""

import dataclasses

import numpy as np
from jaxtyping import Float

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The twelve standard leads in the order of every shard and every model input."""


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """One ECG in millivolt; rows follow `leads`."""

    signal_mv: Float[np.ndarray, "l t"]
    rate_hz: float
    leads: tuple[str, ...] = LEADS

    def __post_init__(self):
        rows = len(self.signal_mv)
        if rows != len(self.leads):
            raise ValueError(
                f"{rows} signal rows but {len(self.leads)} lead names {self.leads}; give one name a row."
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Volume:
    """One short-axis cine CMR: frames over the heart cycle, slices from base to apex, arbitrary intensity.

    Frame `ed` is end-diastole, frame `es` end-systole. `spacing_mm` is (slice distance, row, column).
    """

    intensity: Float[np.ndarray, "frame slice y x"]
    spacing_mm: tuple[float, float, float]
    ed: int
    es: int
