"""ECG conditioning: quality rules, resampling, clipping, baseline removal, normalisation."""

import dataclasses
import fractions
import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Float64, Int
from scipy.linalg import lapack

from ecgjax.signals.quality import QualityError

Normalisation = Literal["group", "record", "lead", "range", "none"]
Rate = float | int

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", *(f"V{i}" for i in range(1, 7)))
"""The standard order, as in `formats.recording`, which this floor does not see."""

LEAD_GROUPS = (slice(0, 3), slice(3, 6), slice(6, 12))
"""I, II, III | aVR, aVL, aVF | V1 to V6: the leads that share a mean and a variance under "group"."""

_VARIANCE_EPSILON = 1e-12
_SAME_MV = 1e-6  # Samples this close are one value: above rounding, below any converter's step.
_LARGEST_RATIO_TERM = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class ConditionedEcg:
    """`signal * scale + offset` is the clipped signal without `baseline`, all in mV."""

    signal: Float32[np.ndarray, "l t"]
    baseline: Float32[np.ndarray, "l t"]
    offset: Float32[np.ndarray, "l"]
    scale: Float32[np.ndarray, "l"]


def condition(
    signal: Float[np.ndarray, "l t"],
    *,
    baseline_lambda: float | None = 1e7,
    baseline_p: float = 0.3,
    baseline_iterations: int = 5,
    clip_sigma: float | None = 4.0,
    normalise: Normalisation = "group",
) -> ConditionedEcg:
    """Conditions one recording (mV) as the ECG-CMR reference does: NaN to 0, clip, baseline, normalisation.

    The clip is `clip_sigma` population standard deviations of the whole array, about 0 and not about the
    mean. None leaves a step out. `normalise="range"` takes each lead's median off and divides by the distance of its
    2.5th and 97.5th percentile. `baseline_lambda` holds at the rate of `signal`: the same cut-off
    at another rate needs it to grow with the fourth power of the rate (1e7 at 500 Hz is 1.6e4 at 100 Hz), the penalty
    being on the second difference. Where the reference turns infinities into the largest float, which
    leaves nothing of the record, this raises; `check` refuses such records earlier.
    """
    if np.isinf(signal).any():
        raise QualityError(
            "nan", f"{np.isinf(signal).sum()} samples are infinite; mark them NaN or drop the record"
        )
    if clip_sigma is not None and not clip_sigma > 0:
        raise ValueError(f"clip_sigma is {clip_sigma}, must be above 0; None leaves the clip out.")
    clean = np.nan_to_num(signal.astype(np.float64), nan=0.0)
    if clip_sigma is not None:
        limit = clip_sigma * clean.std()
        clean = np.clip(clean, -limit, limit)
    if baseline_lambda is None:
        baseline = np.zeros_like(clean)
    else:
        baseline = asymmetric_baseline(
            clean, lam=baseline_lambda, p=baseline_p, iterations=baseline_iterations
        )
        clean = clean - baseline
    offset, scale = _offset_and_scale(clean, normalise)
    return ConditionedEcg(
        signal=((clean - offset[:, None]) / scale[:, None]).astype(np.float32),
        baseline=baseline.astype(np.float32),
        offset=offset.astype(np.float32),
        scale=scale.astype(np.float32),
    )


def band_pass(
    signal: Float[np.ndarray, "l t"], rate_hz: Rate, band_hz: Sequence[float]
) -> Float64[np.ndarray, "l t"]:
    """Zero-phase Butterworth band-pass of order 3, run forwards and backwards; NaN counts as 0."""
    low, high = band_hz
    if not 0 < low < high < rate_hz / 2:
        raise ValueError(
            f"config.ecg.band_hz is {low} to {high} Hz; it must ascend within 0 and half the rate, {rate_hz / 2} Hz."
        )
    from scipy.signal import butter, sosfiltfilt

    sections = butter(3, (low, high), btype="bandpass", fs=rate_hz, output="sos")
    return sosfiltfilt(sections, np.nan_to_num(signal.astype(np.float64), nan=0.0), axis=1)


def asymmetric_baseline(
    signal: Float64[np.ndarray, "l t"], *, lam: float, p: float, iterations: int
) -> Float64[np.ndarray, "l t"]:
    """Asymmetric least squares baseline of every lead (Eilers and Boelens 2005).

    Minimises sum w (y - z)^2 + lam sum (second difference of z)^2, with weight p above the baseline, 1 - p
    below it and 0 on it; starts at weight 1 and returns the solution of the last solve. The leads that a
    solve is for are one banded system without coupling between them, which costs one call instead of one a
    lead; a lead whose weights repeat has its solution already. Float64 only: the condition number reaches
    16 lam / p.
    """
    leads, length = signal.shape
    if length < 3:
        raise ValueError(f"A signal of {length} samples has no second difference; give at least 3.")
    if not (lam > 0 and 0 < p < 1 and iterations >= 1):
        raise ValueError(
            f"baseline_lambda {lam}, baseline_p {p}, baseline_iterations {iterations}: "
            "lambda must be above 0, p between 0 and 1, iterations at least 1."
        )
    bands, factor = _penalty_and_first_factor(lam, length)
    solution, _ = lapack.dpbtrs(factor, signal.T, lower=1)
    baseline = np.ascontiguousarray(solution.T)
    weight = np.ones_like(signal)
    changed = np.arange(leads)
    for _ in range(iterations - 1):
        new = _baseline_weight(signal[changed], baseline[changed], p)
        differs = (new != weight[changed]).any(axis=1)
        changed, new = changed[differs], new[differs]
        if not len(changed):
            break
        weight[changed] = new
        baseline[changed] = _solve(bands, new, signal[changed], f"lambda {lam} and p {p}")
    return baseline


def resample(signal: Float[np.ndarray, "l t"], from_hz: Rate, to_hz: Rate) -> Float[np.ndarray, "l t2"]:
    """Resamples to `to_hz` by a polyphase filter; ceil(t * to_hz / from_hz) samples.

    The line through a lead's first and last sample is taken off before the filter and put back, so that an
    offset makes no edge. Refuses NaN (QualityError), which the filter would smear, and rates whose ratio has
    a term above 1000, such as 257.3 to 100.
    """
    if not (from_hz > 0 and to_hz > 0):
        raise ValueError(f"rates {from_hz} Hz and {to_hz} Hz must be above 0.")
    ratio = fractions.Fraction(to_hz / from_hz).limit_denominator(_LARGEST_RATIO_TERM)
    exact = ratio > 0 and abs(float(ratio) * from_hz / to_hz - 1) < 1e-9
    if not exact or ratio.numerator > _LARGEST_RATIO_TERM:
        raise ValueError(
            f"{from_hz} Hz to {to_hz} Hz is no ratio of integers up to {_LARGEST_RATIO_TERM}; "
            "resample to a rate that is, or correct the rate in the header."
        )
    if not np.isfinite(signal).all():
        raise QualityError("nan", f"{_not_finite(signal)}; resampling would spread them")
    if ratio == 1 or signal.shape[1] == 0:
        return signal
    from scipy.signal import resample_poly  # Costs most of a second: not before it is needed.

    return resample_poly(signal, ratio.numerator, ratio.denominator, axis=1, padtype="line")


def check(
    signal: Float[np.ndarray, "l t"],
    *,
    max_nonfinite: float = 0.0,
    min_std_mv: float = 0.002,
    max_flat_share: float = 0.3,
    min_length: int = 100,
    max_amplitude_mv: float = 50.0,
) -> None:
    """Raises QualityError where a recording (mV) should not enter a data set; run it before `condition`.

    Rules in order, by `kind`. "short": fewer than `min_length` samples. "nan": a share of samples above
    `max_nonfinite` is not finite; the default 0 refuses a record with any, and only with a larger one does
    `condition` replace NaN by 0 as the reference does for every record. "flat": a lead whose standard
    deviation is below `min_std_mv` (a quiet lead has 0.02), or that holds one value for more than
    `max_flat_share` of the record; a record in V read as mV also falls here. "amplitude": a sample further
    than `max_amplitude_mv` from its lead's median, as in a record in uV read as mV; electrode transients stay
    below, and the clip deals with them.
    """
    leads, length = signal.shape
    if length < min_length or leads == 0:
        raise QualityError(
            "short", f"{leads} leads of {length} samples; at least 1 of {min_length} is needed"
        )
    finite = np.isfinite(signal)
    if 1 - finite.mean() > max_nonfinite or np.isinf(signal).any():
        raise QualityError(
            "nan", f"{_not_finite(signal)}; {max_nonfinite:.2%} NaN are allowed, infinities never"
        )
    filled = np.where(finite, signal, 0.0)
    std = filled.std(axis=1)
    if (std < min_std_mv).any():
        row = int(std.argmin())
        raise QualityError(
            "flat", f"lead row {row} has standard deviation {std[row]:.2g} mV, below {min_std_mv} mV"
        )
    run = _longest_constant_runs(filled)
    if (run > max_flat_share * length).any():
        row = int((run > max_flat_share * length).argmax())
        raise QualityError(
            "flat",
            f"lead row {row} holds one value for {run[row]} of {length} samples, above {max_flat_share:.0%}",
        )
    if np.ptp(filled, axis=1).max() <= max_amplitude_mv:
        return  # The median lies within the range, and costs ten times as much.
    deviation = np.abs(filled - np.median(filled, axis=1, keepdims=True)).max(axis=1)
    if (deviation > max_amplitude_mv).any():
        row = int(deviation.argmax())
        raise QualityError(
            "amplitude",
            f"lead row {row} reaches {deviation[row]:.3g} mV from its median, above {max_amplitude_mv} mV; "
            "is the unit right?",
        )


@functools.lru_cache(maxsize=4)
def _penalty_and_first_factor(
    lam: float, length: int
) -> tuple[Float64[np.ndarray, "t 3"], Float64[np.ndarray, "3 t"]]:
    """Bands of the penalty, and the factor of the first solve, whose weights are the same for every signal."""
    bands = lam * _second_difference_bands(length)
    system = np.asfortranarray(bands)
    system[0] += 1
    factor, info = lapack.dpbtrf(system, lower=1)
    _check_solved(info, f"lambda {lam}")
    bands = np.ascontiguousarray(bands.T)
    for shared in (bands, factor):
        shared.flags.writeable = False
    return bands, factor


def _baseline_weight(
    signal: Float64[np.ndarray, "l t"], baseline: Float64[np.ndarray, "l t"], p: float
) -> Float64[np.ndarray, "l t"]:
    weight = np.where(signal > baseline, p, 1 - p)
    weight[signal == baseline] = 0
    # A lead that is a straight line is its own baseline; without any weight its system would be singular.
    weight[np.count_nonzero(weight, axis=1) < 2] = 1
    return weight


def _solve(
    bands: Float64[np.ndarray, "t 3"],
    weight: Float64[np.ndarray, "l t"],
    signal: Float64[np.ndarray, "l t"],
    settings: str,
) -> Float64[np.ndarray, "l t"]:
    """The z of (diag(weight) + penalty) z = weight * signal for every lead."""
    # Seen from LAPACK, which counts columns first, these are the lower bands [3, l * t]: nothing is copied.
    system = np.empty((*signal.shape, 3))
    system[:] = bands
    system[:, :, 0] += weight
    _, solution, info = lapack.dpbsv(
        system.reshape(-1, 3).T, (weight * signal).reshape(-1), lower=1, overwrite_ab=1, overwrite_b=1
    )
    _check_solved(info, settings)
    return solution.reshape(signal.shape)


def _check_solved(info: int, settings: str) -> None:
    if info != 0:
        raise ValueError(f"The baseline of {settings} is numerically singular at row {info}; lower lambda.")


def _second_difference_bands(length: int) -> Float64[np.ndarray, "3 t"]:
    """Lower bands of D D^T, D the t x (t - 2) matrix with 1, -2, 1 down each column, as LAPACK stores them.

    The entries that would lie below the matrix are 0; repeated side by side they keep leads uncoupled.
    """
    columns = np.ones(length - 2)
    bands = np.zeros((3, length))
    bands[0] = np.convolve(columns, [1, 4, 1])
    bands[1, :-1] = np.convolve(columns, [-2, -2])
    bands[2, :-2] = columns
    return bands


def _offset_and_scale(
    signal: Float64[np.ndarray, "l t"], normalise: Normalisation
) -> tuple[Float64[np.ndarray, "l"], Float64[np.ndarray, "l"]]:
    leads = len(signal)
    if normalise == "group" and leads != 12:
        raise ValueError(
            f'normalise "group" needs the 12 standard leads, got {leads}; choose "record", "lead", "range" or "none".'
        )
    if normalise == "range":
        low, offset, high = np.percentile(signal, (2.5, 50, 97.5), axis=1)
        return offset, np.sqrt((high - low) ** 2 + _VARIANCE_EPSILON)
    groups = {
        "group": LEAD_GROUPS,
        "record": [slice(0, leads)],
        "lead": [slice(i, i + 1) for i in range(leads)],
        "none": [],
    }[normalise]
    offset, scale = np.zeros(leads), np.ones(leads)
    for group in groups:
        offset[group] = signal[group].mean()
        scale[group] = np.sqrt(signal[group].var() + _VARIANCE_EPSILON)
    return offset, scale


def _not_finite(signal: Float[np.ndarray, "l t"]) -> str:
    bad = ~np.isfinite(signal)
    rows = np.flatnonzero(bad.any(axis=1)).tolist()
    return f"{bad.sum()} of {bad.size} samples ({bad.mean():.2%}) are not finite, in lead rows {rows}"


def _longest_constant_runs(signal: Float[np.ndarray, "l t"]) -> Int[np.ndarray, "l"]:
    """Samples in the longest stretch without change, by lead."""
    ends = np.ones(signal.shape, np.bool_)  # Where a stretch ends: before a change, and with the record.
    ends[:, :-1] = np.abs(np.diff(signal, axis=1)) > _SAME_MV
    last = np.flatnonzero(ends)
    stretch = np.diff(last, prepend=-1)
    first_of_lead = np.searchsorted(last, np.arange(len(signal)) * signal.shape[1])
    return np.maximum.reduceat(stretch, first_of_lead)
