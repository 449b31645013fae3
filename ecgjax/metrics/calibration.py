"""How far probabilities can be taken at their word."""

import numpy as np
import scipy.special
from jaxtyping import Float

NEAREST = 1e-6
"""Probabilities are taken no nearer to 0 or 1 than this before a logit."""
_STEPS = 30


def brier_draws(
    truth: Float[np.ndarray, " n"],
    probability: Float[np.ndarray, " n"],
    counts: Float[np.ndarray, "draws n"],
) -> Float[np.ndarray, " draws"]:
    """Mean squared difference of probability and outcome in every draw; prevalence (1 - prevalence) without knowledge.

    A draw is the multiplicity of every patient.
    """
    return counts @ (probability - truth) ** 2 / counts.sum(axis=1)


def recalibration_draws(
    truth: Float[np.ndarray, " n"],
    probability: Float[np.ndarray, " n"],
    counts: Float[np.ndarray, "draws n"],
) -> dict[str, Float[np.ndarray, " draws"]]:
    """Slope and intercept of the logistic regression of the outcome on the logit (Cox 1958), and `in_the_large`.

    Of every draw, a draw being the multiplicity of every patient; Newton steps for all at once. Calibrated
    probabilities have slope 1 and intercept 0; a slope below 1 says too extreme. `in_the_large` is the intercept with
    the slope held at 1: below 0 says probabilities too high on average. NaN where a maximum does not exist (one class,
    or classes that the logit separates) or the logit is constant (slope and intercept).
    """
    x = scipy.special.logit(np.clip(probability, NEAREST, 1 - NEAREST))
    slope, intercept = _newton(x, truth, counts)
    return {
        "calibration_slope": slope,
        "calibration_intercept": intercept,
        "calibration_in_the_large": _offset_newton(x, truth, counts),
    }


def _newton(x, truth, counts):
    """Slope and intercept, in units of the standardised logit so that the steps are well scaled."""
    spread = x.std()
    if spread <= 1e-9:
        return np.full(len(counts), np.nan), np.full(len(counts), np.nan)
    centre = x.mean()
    z = (x - centre) / spread
    a, b = np.zeros(len(counts)), _log_odds(truth, counts)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for _ in range(_STEPS):
            p = scipy.special.expit(a[:, None] * z + b[:, None])
            weight, residual = counts * p * (1 - p), counts * (truth - p)
            g0, g1 = residual.sum(axis=1), residual @ z
            h00, h01, h11 = weight.sum(axis=1), weight @ z, weight @ z**2
            determinant = h00 * h11 - h01**2
            da, db = (h00 * g1 - h01 * g0) / determinant, (h11 * g0 - h01 * g1) / determinant
            # A whole step may overshoot far from the maximum; two logits a step do not.
            size = np.maximum(1, np.hypot(da, db) / 2)
            a, b = a + da / size, b + db / size
            if np.nanmax(np.hypot(da, db), initial=0) < 1e-9:
                break
        converged = np.hypot(da, db) < 1e-6
    slope = np.where(converged, a / spread, np.nan)
    return slope, np.where(converged, b - slope * centre, np.nan)


def _offset_newton(x, truth, counts):
    b = np.zeros(len(counts))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for _ in range(_STEPS):
            p = scipy.special.expit(x + b[:, None])
            step = (counts * (truth - p)).sum(axis=1) / (counts * p * (1 - p)).sum(axis=1)
            b = b + np.clip(step, -2, 2)
            if np.nanmax(np.abs(step), initial=0) < 1e-9:
                break
    return np.where(np.abs(step) < 1e-6, b, np.nan)


def _log_odds(truth, counts):
    with np.errstate(divide="ignore"):
        return scipy.special.logit(counts @ truth / counts.sum(axis=1))
