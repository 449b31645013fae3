"""Agreement of real predictions with the truth; NaN truth is missing and left out."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float


def r2(truth: Float[np.ndarray, " n"], prediction: Float[np.ndarray, " n"]) -> float:
    """Coefficient of determination against the mean of the scored truth; NaN where the truth is constant."""
    truth, prediction = observed(truth, prediction)
    total = np.sum((truth - truth.mean()) ** 2) if len(truth) else 0.0
    return float(1 - np.sum((truth - prediction) ** 2) / total) if total > 0 else float("nan")


def pearson(truth: Float[np.ndarray, " n"], prediction: Float[np.ndarray, " n"]) -> float:
    """Linear correlation; NaN where either side is constant."""
    truth, prediction = observed(truth, prediction)
    if len(truth) < 2:
        return float("nan")
    truth, prediction = truth - truth.mean(), prediction - prediction.mean()
    norm = np.sqrt(np.sum(truth**2) * np.sum(prediction**2))
    return float(np.sum(truth * prediction) / norm) if norm > 0 else float("nan")


def mae(truth: Float[np.ndarray, " n"], prediction: Float[np.ndarray, " n"]) -> float:
    """Mean absolute error, in the unit of the truth."""
    truth, prediction = observed(truth, prediction)
    return float(np.mean(np.abs(truth - prediction))) if len(truth) else float("nan")


def rmse(truth: Float[np.ndarray, " n"], prediction: Float[np.ndarray, " n"]) -> float:
    """Root of the mean squared error, in the unit of the truth."""
    truth, prediction = observed(truth, prediction)
    return float(np.sqrt(np.mean((truth - prediction) ** 2))) if len(truth) else float("nan")


def mean_over_targets(
    metric: Callable[[Float[np.ndarray, " n"], Float[np.ndarray, " n"]], float],
    truth: Float[np.ndarray, "n m"],
    prediction: Float[np.ndarray, "n m"],
    *,
    missing: Literal["excluded", "counted"] = "excluded",
) -> float:
    """The metric per target, then the mean; NaN where one has none.

    `missing="counted"` is the reference's: where the truth is missing, both sides count as zero, which is right
    for none and flatters every error.
    """
    if missing == "counted":
        known = ~np.isnan(truth)
        truth, prediction = np.where(known, truth, 0), np.where(known, prediction, 0)
    return float(np.mean([metric(truth[:, m], prediction[:, m]) for m in range(truth.shape[1])]))


def observed(truth: Float[np.ndarray, " n"], prediction: Float[np.ndarray, " n"]) -> tuple:
    """Both columns in float64 where the truth is known; a non-finite prediction there is an error."""
    keep = ~np.isnan(truth)
    truth, prediction = truth[keep].astype(np.float64), prediction[keep].astype(np.float64)
    if not np.all(np.isfinite(prediction)):
        raise ValueError(
            f"{np.sum(~np.isfinite(prediction))} of {len(prediction)} predictions are not finite; "
            "a metric over them has no meaning: look for NaN in the checkpoint or in its input."
        )
    return truth, prediction
