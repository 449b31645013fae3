"""One patient: latent dyssynchrony to ECG parameters, clinical columns and course; the course sees the response."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from ecgjax.data.cohorts.synthetic.ecg_parameters import PARAMETERS
from ecgjax.data.cohorts.synthetic_crt.latent import Response

BLOCK_CENTRE, BLOCK_SLOPE, LEAST_BLOCK = -0.27, 2.0, 0.15
"""Share of left bundle branch block, a sigmoid of slope (d - centre) from its least to 1: above 0.5 in two thirds of
patients, and in none absent, as a failing ventricle is slow everywhere."""

QRS_MS, QRS_PER_D_MS, QRS_OWN_MS, QRS_LIMITS_MS = 150.0, 9.0, 16.0, (118.0, 208.0)
"""Width follows dyssynchrony loosely: heart size and drugs widen a QRS as well."""
FEMALE_QRS_MS = -6.0
EDGES, EDGES_PER_BLOCK = 1.14, 0.10
"""Width from edge to edge, as delineated, over the parameter's: fronts are Gaussian, and slower in block."""

NOTCH, NOTCH_PER_D, NOTCH_OWN = 0.11, 0.08, 0.04
RV_TERMINAL, RV_OWN = 1.3, 0.20
"""Terminal right-ventricular forces, largest where the left is not late: they lift V1, which block turns down."""
AMPLITUDE, AMPLITUDE_PER_D, AMPLITUDE_OWN = 0.18, 0.10, 0.05
"""A front that crosses the ventricles alone is opposed by no other: its forces are larger."""
AXIS_DEG, AXIS_OWN_DEG, ROTATION_OWN_DEG = -20.0, 20.0, 8.0
SYNCHRONOUS_T_DEG, DISCORDANT_T_DEG, T_OWN_DEG = 80.0, 165.0, 10.0
LOG_T, LOG_T_OWN = -0.5, 0.2
PR_MS, PR_OWN_MS = 125.0, 12.0
"""From the middle of P to the onset of the QRS, which a wide one has earlier before its middle."""
QTC_MS, QTC_PER_QRS, QTC_OWN_MS = 425.0, 1.0, 14.0

MISREAD_BLOCK, MISREAD_QRS_MS = 0.05, 6.0
"""The clinic's table against the heart: share of wrong LBBB flags, deviation of the width."""

MAY_BE_MISSING = ("age", "nyha", "ischaemic", "lvef_pre", "lvesv_pre", "qrs_ms", "lbbb", "followup_months")


@dataclasses.dataclass(frozen=True, eq=False)
class Patient:
    """`pr_ms` is from the middle of P to the middle of the QRS; `e` are the ECG parameters.

    `columns` are the clinic's values as `crt.columns` names them, and `lvef_post` and `lvesv_post`, from which the
    response follows; NaN is missing.
    """

    dyssynchrony: float
    pr_ms: float
    e: Float[np.ndarray, " m"]
    columns: Mapping[str, float]


def draw_patient(
    heart: np.random.Generator,
    course: np.random.Generator,
    response: Response,
    *,
    deaths: float,
    missing: float,
) -> Patient:
    """From two streams, so that patients of a null cohort have the ECGs of the other: what they are, how they fare."""
    d = float(heart.standard_normal())
    qrs_ms, before = _before(d, heart)
    pr_ms = PR_MS + PR_OWN_MS * float(heart.standard_normal()) + qrs_ms / 2
    e = _ecg_parameters(d, qrs_ms, before["atrial_fibrillation"], heart)
    chance, died = course.random(2)
    responds = float(chance < response.probability(np.array([d]))[0])
    columns = before | _after(before, responds, bool(died < deaths), course)
    # What is missing says nothing of the patient; response and course are what the study was for.
    gaps = {name for name in MAY_BE_MISSING if heart.random() < missing}
    return Patient(d, pr_ms, e, {name: np.nan if name in gaps else value for name, value in columns.items()})


def _before(d: float, rng: np.random.Generator) -> tuple[float, dict[str, float]]:
    """QRS width, and the columns known before implantation: most LVEF <= 35 % and QRS >= 120 ms, as guidelines ask."""
    female, ischaemic, fibrillates, reader = rng.random(4) < (0.30, 0.42, 0.14, MISREAD_BLOCK)
    age, lvef, lvesv, width, reading = rng.standard_normal(5)
    qrs_ms = QRS_MS + QRS_PER_D_MS * d + FEMALE_QRS_MS * female + QRS_OWN_MS * width
    qrs_ms = float(np.clip(qrs_ms, *QRS_LIMITS_MS))
    return qrs_ms, {
        "age": float(np.clip(np.round(67 + 10 * age), 25, 92)),
        "female": float(female),
        "nyha": float(rng.choice((2, 3, 4), p=(0.35, 0.57, 0.08))),
        "ischaemic": float(ischaemic),
        "sinus_rhythm": float(not fibrillates),
        "atrial_fibrillation": float(fibrillates),
        "paced": 0.0,
        "lvef_pre": float(np.clip(np.round(26.5 + 5.5 * lvef), 10, 42)),
        "lvesv_pre": float(np.round(165 * np.exp(0.3 * lvesv))),
        "qrs_ms": float(2 * np.round((qrs_ms + MISREAD_QRS_MS * reading) / 2)),
        "lbbb": float((block_share(d) > 0.5) != reader),
    }


def block_share(d: float) -> float:
    """How far conduction is on its way from normal (0) to complete left bundle branch block (1)."""
    return float(LEAST_BLOCK + (1 - LEAST_BLOCK) / (1 + np.exp(-BLOCK_SLOPE * (d - BLOCK_CENTRE))))


def _ecg_parameters(d: float, qrs_ms: float, fibrillates: float, rng: np.random.Generator) -> np.ndarray:
    """Columns `PARAMETERS`. The block's share is d itself, read through a sigmoid: no noise of its own."""
    block = block_share(d)
    own = dict(zip(PARAMETERS, rng.standard_normal(len(PARAMETERS)), strict=True))
    e = dict.fromkeys(PARAMETERS, 0.0) | {
        "log_lv_ratio": 0.08 * own["log_lv_ratio"],
        "log_amplitude": AMPLITUDE + AMPLITUDE_PER_D * d + AMPLITUDE_OWN * own["log_amplitude"],
        "qrs_ms": qrs_ms / (EDGES + EDGES_PER_BLOCK * block),
        "rotation_deg": ROTATION_OWN_DEG * own["rotation_deg"],
        "axis_deg": AXIS_DEG * block + AXIS_OWN_DEG * own["axis_deg"],
        "log_rv_terminal": RV_TERMINAL * (1 - block) + RV_OWN * own["log_rv_terminal"],
        "log_t": LOG_T + LOG_T_OWN * own["log_t"],
        "qrs_t_deg": (1 - block) * SYNCHRONOUS_T_DEG
        + block * DISCORDANT_T_DEG
        + T_OWN_DEG * own["qrs_t_deg"],
        "qtc_ms": QTC_MS + QTC_PER_QRS * (qrs_ms - 90) + QTC_OWN_MS * own["qtc_ms"],
        "fragmentation": max(NOTCH + NOTCH_PER_D * d + NOTCH_OWN * own["fragmentation"], 0.0),
        "heart_rate": float(np.clip(70 + 9 * own["heart_rate"] + 8 * fibrillates, 45, 105)),
        "lbbb": block,
        "af": fibrillates,
    }
    return np.array([e[name] for name in PARAMETERS])


def _after(
    before: Mapping[str, float], responds: float, dies: bool, rng: np.random.Generator
) -> dict[str, float]:
    """Follow-up. LVESV falls by 15 % or more, and LVEF rises by more than 5 points, in responders and in no other;
    who dies before has not responded."""
    fall, rise, months = rng.gamma(2.0, 1.0), rng.gamma(2.0, 1.0), rng.standard_normal()
    # One millilitre and one point from the limits, so that rounding crosses neither.
    pre = before["lvesv_pre"]
    lvesv = (
        np.floor(pre * (0.85 - 0.07 * min(fall, 6.0))) if responds else np.ceil(pre * (0.86 + 0.06 * fall))
    )
    lvef = before["lvef_pre"] + np.round(6 + 3 * min(rise, 6.0) if responds else 4 - 2.5 * min(rise, 4.0))
    died = dies and not responds
    return {
        "response": responds,
        "died_before_followup": float(died),
        "followup_months": float(np.round(np.clip(6 + 0.8 * months, 3, 12), 1)),
        "lvef_post": np.nan if died else float(max(lvef, 5.0)),
        "lvesv_post": np.nan if died else float(lvesv),
    }
