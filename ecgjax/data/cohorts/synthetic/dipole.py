"""ECG parameters to the heart's electric dipole: beats in time, then P, QRS, ST and T as moving vectors."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from ecgjax.data.cohorts.synthetic.ecg_parameters import PARAMETERS

# Axes of every vector here: (left, inferior, posterior), millivolt; times in ms from the middle of the QRS.

NORMAL_QRS_MS = 90.0
NORMAL_QRS = (
    # time, width (s.d.), left, inferior, posterior, chamber
    (-27.0, 7.5, -0.09, -0.05, -0.29, "septal"),
    (-10.0, 8.0, 0.64, 0.30, -0.06, "lv"),
    (0.0, 8.5, 1.05, 0.48, 0.70, "lv"),
    (13.0, 9.0, -0.14, -0.04, 0.50, "lv"),
    (27.0, 8.0, -0.10, -0.04, 0.08, "rv"),
)
"""Five fronts of normal conduction: the mean loop of normal 500 Hz PTB-XL beats, a little sharper."""

LBBB_QRS_MS = 142.0
LBBB_QRS = (
    (-46.0, 13.0, 0.28, 0.14, 0.20, "septal"),
    (-16.0, 16.0, 0.84, 0.30, 0.92, "lv"),
    (20.0, 17.0, 0.78, 0.16, 1.12, "lv"),
    (46.0, 13.0, 0.34, 0.02, 0.46, "lv"),
    (64.0, 10.0, -0.02, -0.02, 0.06, "rv"),
)
"""Left bundle branch block: the septum is crossed from right to left, then the free wall late and slowly."""

NOTCH_MS, NOTCH_WIDTH_MS, NOTCH_GAIN, NOTCH_FRONT = 7.0, 5.0, 1.1, 2
"""A notch takes `fragmentation` x gain off front 2, just after its peak."""

TERRITORY_VECTORS: Mapping[str, tuple[float, float, float]] = {
    "anterior": (0.38, 0.05, -1.15),
    "inferior": (0.00, 0.99, 0.15),
    "lateral": (0.93, -0.35, 0.10),
}
"""Where each territory faces. A dead territory shows as an early vector away from it, and so does its T; an
anterior infarct, the usual one of the left anterior descending artery, is the largest."""

Q_MS, Q_WIDTH_MS, Q_MV, Q_T_MV = -18.0, 9.5, 0.66, 0.28

T_MV, LBBB_T_GAIN = 0.36, 1.8
T_PEAK_BEFORE_END_MS, T_RISE_MS, T_FALL_MS = 84.0, 52.0, 33.0  # At one beat a second.
QRS_AZIMUTH_DEG, T_ELEVATION_DEG, T_AXIS_SHARE = 21.0, 20.0, 0.5
"""The usual QRS points 21 degrees backward; T lies forward of it by the QRS-T angle, 20 degrees downward."""
ST_SHARE, ST_SHARE_DISCORDANT, ST_WIDTH_MS = 0.10, 0.28, 55.0
"""ST level as a share of T; the larger one where T is opposite to QRS (strain, LBBB)."""

P_RIGHT_ATRIUM = (-18.0, 17.0, 0.025, 0.075, -0.045)
P_LEFT_ATRIUM = (20.0, 18.0, 0.055, 0.045, 0.030)
"""Time from the middle of P, width, vector."""

FIBRILLATION_VECTOR_MV = (-0.026, 0.034, -0.042)
FIBRILLATION_HZ = (5.0, 8.0)

SHORTEST_RR_S, AF_RR_LOG_DEVIATION = 0.30, 0.22
SINUS_ARRHYTHMIA, SINUS_JITTER = 0.03, 0.008
SWITCH_S = 0.20
"""A sample belongs to the beat whose R comes at most this much later."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rhythm:
    """R times and the interval before each, from two beats before time 0 to two after the end; the atria."""

    r_s: Float[np.ndarray, " k"]
    rr_s: Float[np.ndarray, " k"]
    pr_ms: float
    p_gain: float
    fibrillation: Float[np.ndarray, "3 3"]
    respiration_hz: float
    respiration_phase: float


def draw_rhythm(e: Float[np.ndarray, " m"], rng: np.random.Generator, *, seconds: float) -> Rhythm:
    """Draws beats from heart rate and AF: sinus with respiratory arrhythmia, or log-normal intervals."""
    p = dict(zip(PARAMETERS, e, strict=True))
    mean_s = 60 / p["heart_rate"]
    start, hz, phase = rng.random(3)
    pr, gain = rng.standard_normal(2)
    fibrillation = rng.random((3, 3))
    count = int((seconds + 6) / SHORTEST_RR_S) + 2
    hz = 0.2 + 0.12 * hz
    if p["af"]:
        rr = mean_s * np.exp(AF_RR_LOG_DEVIATION * rng.standard_normal(count))
    else:
        breath = np.sin(2 * np.pi * (hz * mean_s * np.arange(count) + phase))
        rr = mean_s * (1 + SINUS_ARRHYTHMIA * breath + SINUS_JITTER * rng.standard_normal(count))
    rr = np.maximum(rr, SHORTEST_RR_S)
    r = np.cumsum(rr)
    r = r - r[2] + start * rr[2]  # Two beats lie before time 0.
    needed = int(np.searchsorted(r, seconds)) + 3
    return Rhythm(
        r_s=r[:needed],
        rr_s=rr[:needed],
        pr_ms=150 + 12 * pr,
        p_gain=float(np.exp(0.25 * gain)),
        fibrillation=fibrillation,
        respiration_hz=hz,
        respiration_phase=phase,
    )


def dipole(
    e: Float[np.ndarray, " m"], rhythm: Rhythm, time_s: Float[np.ndarray, " t"]
) -> Float[np.ndarray, "3 t"]:
    """The dipole (left, inferior, posterior) in mV at `time_s`.

    Ventricular waves are summed over the last two beats, so that no wave is cut at any rate, however
    short the interval; P belongs to the next beat, and is over long before its R.
    """
    p = dict(zip(PARAMETERS, e, strict=True))
    last = np.searchsorted(rhythm.r_s - SWITCH_S, time_s, side="right") - 1
    beats = np.stack([last, last - 1])
    after_ms = 1000 * (time_s - rhythm.r_s[beats])
    slow = np.sqrt(rhythm.rr_s)[beats]
    if p["af"]:
        atrial = _fibrillation(rhythm, time_s)
    else:
        following = np.searchsorted(rhythm.r_s, time_s, side="right")
        before_ms = 1000 * (time_s - rhythm.r_s[following]) + rhythm.pr_ms
        atrial = p_wave(before_ms, rhythm.p_gain)
    return ventricles(p, after_ms, slow) + atrial


def ventricles(
    p: Mapping[str, float], after_ms: Float[np.ndarray, "beat t"], slow: Float[np.ndarray, "beat t"]
) -> Float[np.ndarray, "3 t"]:
    """QRS, ST and T in mV, summed over beats of one shape, `after_ms` their R; `slow` is the root of RR in s."""
    times, widths, vectors = _qrs(p)
    kernels = np.exp(-0.5 * ((after_ms - times[:, None, None]) / widths[:, None, None]) ** 2).sum(1)
    qrs = vectors.T @ kernels
    t_vector = _t_vector(p)
    st, t = _st_t(p, after_ms, slow)
    share = ST_SHARE + (ST_SHARE_DISCORDANT - ST_SHARE) * _opposition(p)
    out = _turn(p, 1.0) @ qrs + np.outer(_turn(p, T_AXIS_SHARE) @ t_vector, t + share * st)
    return np.exp(p["log_amplitude"]) * out


def _qrs(p: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times and widths in ms and vectors in mV of the fronts, the notch and the Q wave.

    `lbbb` is the share of the block: 0 normal conduction, 1 complete, fronts on their way between.
    """
    block = p["lbbb"]
    ratio, terminal = p["log_lv_ratio"], p["log_rv_terminal"]
    gain = {"septal": -ratio / 2, "lv": ratio / 2, "rv": terminal - ratio / 2}
    gains = np.exp([gain[row[5]] for row in NORMAL_QRS])
    normal, blocked = (np.array([row[:5] for row in table]) for table in (NORMAL_QRS, LBBB_QRS))
    fronts = (1 - block) * normal + block * blocked
    vectors = fronts[:, 2:] * gains[:, None]
    # The terminal RV vector also holds the right-forward forces that the averaged loop hides.
    vectors[4] += (1 - block) * (gains[4] - 1) * np.array([-0.16, -0.02, -0.16])
    notch = -NOTCH_GAIN * p["fragmentation"] * vectors[NOTCH_FRONT]
    q = sum(-Q_MV * p[f"q_{name}"] * np.array(vector) for name, vector in TERRITORY_VECTORS.items())
    times = np.concatenate([fronts[:, 0], [NOTCH_MS, Q_MS]])
    widths = np.concatenate([fronts[:, 1], [NOTCH_WIDTH_MS, Q_WIDTH_MS]])
    stretch = p["qrs_ms"] / ((1 - block) * NORMAL_QRS_MS + block * LBBB_QRS_MS)
    return times * stretch, widths * stretch, np.vstack([vectors, notch, q])


def _opposition(p: Mapping[str, float]) -> float:
    """0 where T goes with the QRS, 1 where it is opposite."""
    return float(np.clip((p["qrs_t_deg"] - 80) / 60, 0, 1))


def _t_vector(p: Mapping[str, float]) -> Float[np.ndarray, "3"]:
    forward = np.deg2rad(p["qrs_t_deg"] - QRS_AZIMUTH_DEG)
    down = np.deg2rad(T_ELEVATION_DEG) * (1 - _opposition(p))
    direction = np.array([np.cos(forward) * np.cos(down), np.sin(down), -np.sin(forward) * np.cos(down)])
    size = T_MV * np.exp(p["log_t"]) * ((1 - p["lbbb"]) + p["lbbb"] * LBBB_T_GAIN)
    ischaemia = sum(Q_T_MV * p[f"q_{name}"] * np.array(vector) for name, vector in TERRITORY_VECTORS.items())
    return size * direction - ischaemia


def _st_t(p: Mapping[str, float], after_ms: np.ndarray, slow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit ST and T over time, summed over beats; T ends QTc sqrt(RR) after the QRS begins (Bazett)."""
    end = p["qtc_ms"] * slow - p["qrs_ms"] / 2
    from_peak = after_ms - (end - T_PEAK_BEFORE_END_MS * slow)
    t = np.exp(-0.5 * (from_peak / (np.where(from_peak < 0, T_RISE_MS, T_FALL_MS) * slow)) ** 2)
    middle = (p["qrs_ms"] / 2 + end - T_PEAK_BEFORE_END_MS * slow) / 2
    st = np.exp(-0.5 * ((after_ms - middle) / (ST_WIDTH_MS * slow)) ** 2)
    return st.sum(0), t.sum(0)


def p_wave(from_middle_ms: Float[np.ndarray, " t"], gain: float) -> Float[np.ndarray, "3 t"]:
    """The P wave in mV: right atrium, then left."""
    lobes = np.array([P_RIGHT_ATRIUM, P_LEFT_ATRIUM])
    time, width = lobes[:, :1], lobes[:, 1:2]
    return gain * lobes[:, 2:].T @ np.exp(-0.5 * ((from_middle_ms - time) / width) ** 2)


def _fibrillation(rhythm: Rhythm, time_s: np.ndarray) -> np.ndarray:
    """Three frequency-modulated sines, so that f-waves wax and wane."""
    low, high = FIBRILLATION_HZ
    hz, phase, drift = rhythm.fibrillation[:, :, None]
    turn = 2 * np.pi * ((low + (high - low) * hz) * time_s + phase) + 1.5 * np.sin(
        2 * np.pi * 0.4 * drift * time_s
    )
    sharpened = np.sin(turn) + 0.25 * np.sin(2 * turn)
    return rhythm.p_gain * np.outer(FIBRILLATION_VECTOR_MV, sharpened.sum(0) / np.sqrt(3) * 1.3)


def _turn(p: Mapping[str, float], axis_share: float) -> Float[np.ndarray, "3 3"]:
    """Turns by the frontal axis (positive: downward), then about the body axis (positive: backward)."""
    frontal, body = np.deg2rad(axis_share * p["axis_deg"]), np.deg2rad(p["rotation_deg"])
    about_depth = np.array(
        [[np.cos(frontal), -np.sin(frontal), 0], [np.sin(frontal), np.cos(frontal), 0], [0, 0, 1]]
    )
    about_body = np.array([[np.cos(body), 0, -np.sin(body)], [0, 1, 0], [np.sin(body), 0, np.cos(body)]])
    return about_body @ about_depth
