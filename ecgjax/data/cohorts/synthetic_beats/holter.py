"""One person's single-lead Holter recording: sinus rhythm, ectopic and fusion beats, and what disturbs the trace."""

import bisect
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from ecgjax.data.cohorts.synthetic.dipole import p_wave, ventricles
from ecgjax.data.cohorts.synthetic.ecg_parameters import PARAMETERS, draw_ecg_parameters
from ecgjax.data.cohorts.synthetic.heart import draw_hearts
from ecgjax.data.cohorts.synthetic.waveform import LEAD_FIELD

CONDUCTION = ("N", "L", "R")
"""Normal, left and right bundle branch block: a person conducts every sinus beat in one of these ways."""

MLII = LEAD_FIELD[1]
"""The modified limb lead II of a Holter sees the heart as II does, give or take `LEAD_DEVIATION`."""
LEAD_DEVIATION, GAIN_LOG_DEVIATION = 0.12, 0.15

S_SHARE, V_SHARE, F_SHARE = (0.035, 1.0), (0.075, 0.9), 0.10
"""Mean share of a person's beats and log-deviation between persons; fusion beats are a share of the ventricular."""
SHARE_LIMIT = 0.30
"""A person with more ectopic beats of a kind than this would have another basic rhythm."""

S_COUPLING, V_COUPLING, F_COUPLING = (0.60, 0.80), (0.50, 0.72), (0.93, 1.0)
"""When an early beat comes, in sinus intervals after the beat before it."""
S_P_MS, S_P_GAIN = 105.0, -0.7
"""An ectopic P wave runs against the usual direction, nearer to the QRS."""

LBBB_QRS_MS, RBBB_QRS_MS, V_QRS_MS = (146.0, 9.0), (134.0, 8.0), (158.0, 11.0)
LBBB_NOTCH, RBBB_TERMINAL = (0.40, 0.12), (1.0, 0.15)
DISCORDANT_T_DEG = 168.0

DRIFT_MV, DRIFT_HZ, EMG_MV, NOISE_LOG_DEVIATION = 0.06, (0.05, 0.5), 0.014, 0.5
MOTION_MV, MOTION_PER_S, MOTION_S = 0.20, 0.03, (0.08, 0.35)
"""Electrode motion: bumps as wide as a wave, which no filter of the baseline takes off."""

MARGIN_S = 1.6
"""Recorded before the first and after the last beat that counts, so that a window of 3 s fits around each."""
QT_INTERVALS_S = (0.4, 1.6)
"""QT follows the interval before it only so far."""
BEFORE_S, AFTER_S, PEAK_WITHIN_S = 0.40, 0.90, 0.06


@dataclasses.dataclass(frozen=True, eq=False)
class Person:
    """What stays with a person: shapes by beat symbol, how often ectopic beats come, lead, noise levels."""

    conduction: str
    shapes: Mapping[str, Mapping[str, float]]
    shares: Mapping[str, float]
    interval_s: float
    pr_ms: float
    lead: Float[np.ndarray, "3"]
    drift_mv: float
    emg_mv: float


@dataclasses.dataclass(frozen=True, eq=False)
class Holter:
    """A recording with every beat in it: symbols, and samples of the R peaks. Beat `first` and those that follow it
    lie `MARGIN_S` inside."""

    signal_mv: Float[np.ndarray, " t"]
    symbols: tuple[str, ...]
    peak: Int[np.ndarray, " k"]
    first: int


def draw_person(rng: np.random.Generator, conduction: str) -> Person:
    """A heart of the synthetic cohort that conducts as told, in sinus rhythm, with an ectopic focus of its own."""
    heart = draw_hearts(rng, 1)
    heart = dataclasses.replace(heart, lbbb=np.array([conduction == "L"]), af=np.array([False]))
    sinus = dict(zip(PARAMETERS, draw_ecg_parameters(heart, rng)[0], strict=True))
    notch, terminal, left_ms, right_ms = (
        mean + deviation * rng.standard_normal()
        for mean, deviation in (LBBB_NOTCH, RBBB_TERMINAL, LBBB_QRS_MS, RBBB_QRS_MS)
    )
    if conduction == "L":
        sinus |= {"qrs_ms": left_ms, "fragmentation": notch}
    elif conduction == "R":
        sinus |= {"qrs_ms": right_ms, "log_rv_terminal": terminal, "qrs_t_deg": sinus["qrs_t_deg"] + 25}
    shares = {}
    for symbol, (mean, deviation) in (("S", S_SHARE), ("V", V_SHARE)):
        normal = rng.standard_normal()
        shares[symbol] = min(mean * np.exp(deviation * normal - deviation**2 / 2), SHARE_LIMIT)
    tilt, gain, pr, drift, emg = rng.standard_normal(5)
    return Person(
        conduction=conduction,
        shapes={conduction: sinus, "S": sinus, "V": _focus(sinus, rng)},
        shares=shares,
        interval_s=60 / sinus["heart_rate"],
        pr_ms=158 + 12 * pr,
        lead=np.exp(GAIN_LOG_DEVIATION * gain) * (MLII + LEAD_DEVIATION * np.array([1, 0.3, 0.5]) * tilt),
        drift_mv=DRIFT_MV * np.exp(NOISE_LOG_DEVIATION * drift),
        emg_mv=EMG_MV * np.exp(NOISE_LOG_DEVIATION * emg),
    )


def _focus(sinus: Mapping[str, float], rng: np.random.Generator) -> dict[str, float]:
    """A ventricular focus: slow fronts from one place, so any axis, a large complex and T opposite to it."""
    mean, deviation = V_QRS_MS
    wide, large, rotation = rng.standard_normal(3)
    return {
        **sinus,
        "lbbb": 1.0,
        "qrs_ms": mean + deviation * wide,
        "axis_deg": rng.choice((-1, 1)) * rng.uniform(45, 150),
        "rotation_deg": 35 * rotation,
        "fragmentation": 0.0,
        "qrs_t_deg": DISCORDANT_T_DEG,
        "log_amplitude": sinus["log_amplitude"] + 0.30 + 0.15 * large,
    }


def draw_holter(person: Person, rng: np.random.Generator, *, beats: int, rate_hz: float) -> Holter:
    """At least `beats` beats with a margin on either side, and the trace of the lead in mV."""
    symbols, middle_s = _rhythm(person, rng, beats)
    first = int(np.searchsorted(middle_s, MARGIN_S))
    time_s = np.arange(round((middle_s[first + beats - 1] + MARGIN_S) * rate_hz)) / rate_hz
    clean = np.zeros(time_s.size)
    for i in range(1, len(symbols)):
        low, high = np.searchsorted(time_s, middle_s[i] + np.array([-BEFORE_S, AFTER_S]))
        after_ms = 1000 * (time_s[low:high] - middle_s[i])
        clean[low:high] += _beat(person, symbols[i], after_ms, middle_s[i] - middle_s[i - 1], rng)
    inside = [i for i in range(1, len(symbols)) if 0 <= middle_s[i] < time_s[-1]]
    return Holter(
        signal_mv=clean + _disturbance(person, rng, time_s),
        symbols=tuple(symbols[i] for i in inside),
        peak=np.array([_peak(clean, middle_s[i], rate_hz) for i in inside]),
        first=inside.index(first),
    )


def _rhythm(person: Person, rng: np.random.Generator, beats: int) -> tuple[Sequence[str], np.ndarray]:
    """Symbols and times from before time 0 to after the last margin: a sinus node that early beats disturb.

    An early atrial beat sets the node's clock anew; an early ventricular one does not, so that the pause after it
    is compensatory: the node's next beat finds the ventricles refractory and the one after that is on time.
    """
    breath_hz, phase = 0.2 + 0.12 * rng.random(), rng.random()
    symbols, times = [person.conduction], [-1.5]
    clock = times[0]
    while True:
        last = bisect.bisect_left(times, MARGIN_S) + beats - 1
        if last < len(times) and times[-1] > times[last] + MARGIN_S + BEFORE_S:
            return symbols, np.array(times)
        breath = np.sin(2 * np.pi * (breath_hz * clock + phase))
        rr = person.interval_s * (1 + 0.03 * breath + 0.012 * rng.standard_normal())
        kind, coupling = rng.random(2)
        if kind < person.shares["S"]:
            clock += rr * _within(S_COUPLING, coupling)
            symbols.append("S")
            times.append(clock)
        elif kind < person.shares["S"] + person.shares["V"]:
            fused = rng.random() < F_SHARE
            early = clock + rr * _within(F_COUPLING if fused else V_COUPLING, coupling)
            clock += 2 * rr
            symbols += ["F" if fused else "V", person.conduction]
            times += [early, clock]
        else:
            clock += rr
            symbols.append(person.conduction)
            times.append(clock)


def _within(limits: tuple[float, float], share: float) -> float:
    return limits[0] + share * (limits[1] - limits[0])


def _beat(
    person: Person, symbol: str, after_ms: np.ndarray, rr_s: float, rng: np.random.Generator
) -> Float[np.ndarray, " t"]:
    """One beat in the lead, mV, `after_ms` the middle of its QRS."""
    slow = np.full((1, after_ms.size), np.sqrt(np.clip(rr_s, *QT_INTERVALS_S)))
    sinus_share = {"F": rng.uniform(0.35, 0.65), "V": 0.0}.get(symbol, 1.0)
    vector = np.zeros((3, after_ms.size))
    if sinus_share > 0:
        vector += sinus_share * ventricles(person.shapes[person.conduction], after_ms[None], slow)
        pr_ms, gain = (S_P_MS, S_P_GAIN) if symbol == "S" else (person.pr_ms, 1.0)
        vector += p_wave(after_ms + pr_ms, gain)
    if sinus_share < 1:
        vector += (1 - sinus_share) * ventricles(person.shapes["V"], after_ms[None], slow)
    return np.exp(0.05 * rng.standard_normal()) * person.lead @ vector


def _peak(clean: np.ndarray, middle_s: float, rate_hz: float) -> int:
    """The sample of the largest deflection of the undisturbed QRS, which is where annotators put a beat."""
    middle, reach = round(middle_s * rate_hz), round(PEAK_WITHIN_S * rate_hz)
    low = max(middle - reach, 0)
    return low + int(np.abs(clean[low : middle + reach + 1]).argmax())


def _disturbance(person: Person, rng: np.random.Generator, time_s: np.ndarray) -> Float[np.ndarray, " t"]:
    """Baseline drift, muscle and electrode motion in mV."""
    low, high = DRIFT_HZ
    hz = low * (high / low) ** rng.random(6)
    phase, size = rng.random(6), rng.standard_normal(6) * np.sqrt(0.1 / hz)
    drift = size @ np.sin(2 * np.pi * (hz[:, None] * time_s + phase[:, None]))
    count = rng.poisson(MOTION_PER_S * time_s[-1])
    at, width = rng.uniform(0, time_s[-1], count), rng.uniform(*MOTION_S, count)
    bumps = np.exp(-0.5 * ((time_s - at[:, None]) / width[:, None]) ** 2)
    motion = MOTION_MV * rng.standard_normal(count) @ bumps
    return person.drift_mv * drift + motion + person.emg_mv * rng.standard_normal(time_s.size)
