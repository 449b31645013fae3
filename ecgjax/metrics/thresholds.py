"""Decisions at a threshold: its choice, and the rates that follow from it."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float


def youden(truth: Float[np.ndarray, " n"], score: Float[np.ndarray, " n"]) -> float:
    """The threshold with the largest sensitivity + specificity - 1, `score >= threshold` being yes.

    Candidates lie midway between neighbouring scores; of equally good ones the middle one is taken. NaN scores are
    left out, and NaN is returned where a class or a second score is lacking.
    """
    known = ~np.isnan(score)
    truth, score = truth[known], score[known]
    values = np.unique(score)
    positives, negatives = np.sort(score[truth == 1]), np.sort(score[truth == 0])
    if not len(positives) or not len(negatives) or len(values) < 2:
        return float("nan")
    candidates = (values[1:] + values[:-1]) / 2
    sensitivity = 1 - np.searchsorted(positives, candidates) / len(positives)
    specificity = np.searchsorted(negatives, candidates) / len(negatives)
    index = sensitivity + specificity
    best = np.flatnonzero(index >= index.max() - 1e-12)
    return float(candidates[best[(len(best) - 1) // 2]])


def rate_draws(
    truth: Float[np.ndarray, " n"],
    decision: Float[np.ndarray, " n"],
    counts: Float[np.ndarray, "draws n"],
) -> Mapping[str, Float[np.ndarray, " draws"]]:
    """Rates of decisions 0 and 1 in every draw, a draw being the multiplicity of every patient.

    A rate without a denominator is NaN.
    """
    positive, negative = truth == 1, truth == 0
    hits = (counts * positive) @ decision
    alarms = (counts * negative) @ decision
    positives, negatives = counts @ positive, counts @ negative
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity, specificity = hits / positives, 1 - alarms / negatives
        passed = positives - hits + negatives - alarms
        return {
            "accuracy": (hits + negatives - alarms) / (positives + negatives),
            "balanced_accuracy": (sensitivity + specificity) / 2,
            "sensitivity": sensitivity,
            "specificity": specificity,
            "ppv": hits / (hits + alarms),
            "npv": (negatives - alarms) / passed,
        }
