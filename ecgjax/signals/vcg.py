"""Vectorcardiogram out of the standard leads, and the QRS area on it."""

import types
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float64

from ecgjax.signals.ecg import LEADS, Rate

KORS: Mapping[str, tuple[float, float, float]] = types.MappingProxyType(
    {
        "I": (0.38, -0.07, 0.11),
        "II": (-0.07, 0.93, -0.23),
        "V1": (-0.13, 0.06, -0.43),
        "V2": (0.05, -0.02, -0.06),
        "V3": (-0.01, -0.05, -0.14),
        "V4": (0.14, 0.06, -0.20),
        "V5": (0.06, -0.17, -0.11),
        "V6": (0.54, 0.13, 0.31),
    }
)
"""Weights of each lead in X (to the left), Y (down) and Z (backwards): Kors et al. 1990."""


def kors(signal: Float[np.ndarray, "l t"], leads: Sequence[str] = LEADS) -> Float64[np.ndarray, "3 t"]:
    """X, Y, Z of Kors' regression, in the unit of `signal`; `leads` names its rows, in any order.

    The eight independent leads suffice; others are not read. +Z points to the back, as Frank's does.
    """
    matrix = np.array(list(KORS.values())).T
    return matrix @ signal[rows_of(KORS, leads)].astype(np.float64)


def qrs_vector_uvs(
    beat_mv: Float[np.ndarray, "l w"], leads: Sequence[str], *, onset: int, offset: int, rate_hz: Rate
) -> Float64[np.ndarray, "3"]:
    """Areas of X, Y, Z from `onset` to `offset` above the level of the lead before the QRS, in uV s.

    `beat_mv` is already moved to 0 before the QRS. Trapezoids, so that half of the first and last sample counts.
    """
    xyz = kors(beat_mv[:, onset : offset + 1], leads)
    return 1000 * np.trapezoid(xyz, dx=1 / rate_hz, axis=1)


def qrs_area_uvs(vector_uvs: Float[np.ndarray, "3"]) -> float:
    """Length of the vector of areas: van Deursen et al. 2015, who cut at 98 uV s."""
    return float(np.linalg.norm(vector_uvs))


def rows_of(wanted: Sequence[str] | Mapping[str, object], leads: Sequence[str]) -> list[int]:
    """Row of every wanted lead in a signal whose rows are named `leads`."""
    missing = [lead for lead in wanted if lead not in leads]
    if missing:
        raise ValueError(
            f"leads {missing} are missing among {list(leads)}; give the eight leads {list(KORS)} at least."
        )
    return [leads.index(lead) for lead in wanted]
