"""Heart to ECG parameters: the only place where the heart may be read for the ECG."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from ecgjax.data.cohorts.synthetic.heart import TERRITORIES, Heart

CONTINUOUS: Mapping[str, tuple[float, Mapping[str, float], float]] = {
    # name: (mean, change for one standard deviation of each phenotype, own noise's deviation)
    "log_lv_ratio": (0.0, {"LVM": 0.24}, 0.26),  # LV against septal and RV vectors.
    "log_amplitude": (0.0, {"LVM": 0.12}, 0.25),  # Habitus: the chest between heart and electrode.
    "qrs_ms": (90.0, {"LVEDV": 4.5, "LVM": 2.5}, 7.0),
    "rotation_deg": (0.0, {"LVEDV": 7.0}, 12.0),  # About the body axis; positive: late transition.
    "axis_deg": (
        0.0,
        {"WT": -8.0, "RVEDV": 9.0},
        16.0,
    ),  # Against the usual frontal axis of about 35 degrees.
    "log_rv_terminal": (0.0, {"RVEDV": 0.30, "RVEF": -0.15}, 0.35),
    "log_t": (0.0, {"LVEF": 0.20}, 0.25),
    "qrs_t_deg": (55.0, {"LVEF": -12.0}, 14.0),
    "qtc_ms": (412.0, {"LVEF": -7.0}, 16.0),
    "fragmentation": (0.0, {"LVEF": -0.12}, 0.15),  # Mid-QRS notch; below 0 there is none.
    "heart_rate": (66.0, {"LVEF": -3.0}, 9.0),  # Per minute.
}
"""Continuous ECG parameters: `strength` scales the middle column, never the noise."""

PARAMETERS = (*CONTINUOUS, *(f"q_{name}" for name in TERRITORIES), "lbbb", "af")
"""Columns of the ECG parameter matrix, in order."""

STRAIN_SHARE, STRAIN_QRS_T_DEG = 0.60, 68.0
"""Share of LVH with the strain pattern, and how far its T turns from the QRS."""

LBBB_QRS_MS, LBBB_AXIS_DEG, LBBB_QRS_T_DEG = 52.0, -22.0, 112.0
INFARCT_LOG_T = -0.2
AF_HEART_RATE = 16.0

Q_SHARE, Q_LOG_DEVIATION, Q_OF_SIZE = 0.70, 0.30, 5.0
"""Share of infarcts with a Q wave (the others are silent), spread of its size, its size per infarct size."""

HEART_RATE_LIMITS, QRS_LIMITS_MS, QTC_LIMITS_MS = (42.0, 150.0), (68.0, 190.0), (350.0, 520.0)


def draw_ecg_parameters(
    heart: Heart, rng: np.random.Generator, *, strength: float = 1.0
) -> Float[np.ndarray, "n m"]:
    """ECG parameters of n hearts, columns `PARAMETERS`: strength x heart + own noise.

    At strength 0 the flags (strain, Q wave, LBBB, AF) still show; a null cohort permutes the pairs instead.
    Raises ValueError for a negative strength.
    """
    if strength < 0:
        raise ValueError(
            f"strength {strength} is negative; give 0 (flags only) or more, 1 is the usual cohort."
        )
    count = len(heart.lvef_percent)
    noise = rng.standard_normal((len(CONTINUOUS), count))
    chance, q_normal = rng.random((2, count)), rng.standard_normal(count)
    standard = heart.standards()
    e = {}
    for own, (name, (mean, change, deviation)) in zip(noise, CONTINUOUS.items(), strict=True):
        e[name] = mean + deviation * own
        for phenotype, slope in change.items():
            e[name] = e[name] + strength * slope * standard[phenotype]
    strain = heart.lvh & (chance[0] < STRAIN_SHARE)
    e["qrs_t_deg"] = e["qrs_t_deg"] + STRAIN_QRS_T_DEG * (strain & ~heart.lbbb) + LBBB_QRS_T_DEG * heart.lbbb
    e["qrs_ms"] = np.clip(e["qrs_ms"] + LBBB_QRS_MS * heart.lbbb, *QRS_LIMITS_MS)
    e["axis_deg"] = e["axis_deg"] + LBBB_AXIS_DEG * heart.lbbb
    e["log_t"] = e["log_t"] + INFARCT_LOG_T * heart.infarct
    e["qtc_ms"] = np.clip(e["qtc_ms"], *QTC_LIMITS_MS)
    e["heart_rate"] = np.clip(e["heart_rate"] + AF_HEART_RATE * heart.af, *HEART_RATE_LIMITS)
    e["fragmentation"] = np.maximum(e["fragmentation"], 0.0)
    visible = heart.infarct & (chance[1] < Q_SHARE)
    q = visible * Q_OF_SIZE * heart.infarct_size * np.exp(Q_LOG_DEVIATION * q_normal)
    for index, name in enumerate(TERRITORIES):
        e[f"q_{name}"] = np.where(heart.territory == index, q, 0.0)
    e["lbbb"], e["af"] = heart.lbbb, heart.af
    return np.stack([np.asarray(e[name], np.float64) for name in PARAMETERS], axis=1)
