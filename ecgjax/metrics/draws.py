"""A metric of every bootstrap draw at once.

A draw is a multiplicity for every subject, so a metric of all draws is weighted sums: sums per subject, then one
matrix product (R2, correlation), or one cumulative sum over sorted scores (AUROC, AUPRC).
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Int

from ecgjax.metrics.regression import observed

_BUDGET = 4_000_000
"""Weights held at once, in numbers: 32 MB."""


def r2_draws(
    truth: Float[np.ndarray, " n"],
    prediction: Float[np.ndarray, " n"],
    index: Int[np.ndarray, " n"],
    counts: Float[np.ndarray, "draws s"],
) -> Float[np.ndarray, " draws"]:
    """R2 of every draw; record i belongs to subject `index[i]`. NaN where a draw's truth is constant."""
    index = index[~np.isnan(truth)]
    truth, prediction = observed(truth, prediction)
    truth, error = truth - truth.mean(), truth - prediction  # Centred: the sums below lose no digits.
    columns = [np.ones_like(truth), truth, truth**2, error**2]
    weight, first, second, residual = _weighted_sums(columns, index, counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = second - first**2 / weight
        # A draw of one repeated record leaves only rounding here.
        return np.where(total > 1e-12 * second, 1 - residual / total, np.nan)


def pearson_draws(
    truth: Float[np.ndarray, " n"],
    prediction: Float[np.ndarray, " n"],
    index: Int[np.ndarray, " n"],
    counts: Float[np.ndarray, "draws s"],
) -> Float[np.ndarray, " draws"]:
    """Linear correlation of every draw; NaN where a draw's truth or prediction is constant."""
    index = index[~np.isnan(truth)]
    x, y = (values - values.mean() for values in observed(truth, prediction))
    weight, sx, sy, sxx, syy, sxy = _weighted_sums([np.ones_like(x), x, y, x**2, y**2, x * y], index, counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread_x, spread_y = sxx - sx**2 / weight, syy - sy**2 / weight
        varied = (spread_x > 1e-12 * sxx) & (spread_y > 1e-12 * syy)
        return np.where(varied, (sxy - sx * sy / weight) / np.sqrt(spread_x * spread_y), np.nan)


def auprc_draws(
    truth: Float[np.ndarray, " n"],
    score: Float[np.ndarray, " n"],
    index: Int[np.ndarray, " n"],
    counts: Float[np.ndarray, "draws s"],
) -> Float[np.ndarray, " draws"]:
    """Average precision of every draw, equal scores being one threshold; each draw needs a positive."""
    index = index[~np.isnan(truth)]
    truth, score = observed(truth, score)
    order = np.argsort(-score, kind="stable")
    index, positive = index[order], truth[order] == 1
    last_of_tie = np.append(np.diff(score[order]) != 0, True)
    values = np.empty(len(counts))
    step = max(1, _BUDGET // max(1, len(score)))
    for start in range(0, len(counts), step):
        weight = counts[start : start + step][:, index]
        hits = np.cumsum(weight * positive, axis=1)[:, last_of_tie]
        taken = np.cumsum(weight, axis=1)[:, last_of_tie]
        gained = np.diff(hits, axis=1, prepend=0)
        # Before the first drawn record there is no precision, and nothing is gained either.
        values[start : start + step] = np.sum(gained * hits / np.maximum(taken, 1), axis=1) / hits[:, -1]
    return values


def auroc_draws(
    truth: Float[np.ndarray, " n"],
    score: Float[np.ndarray, " n"],
    index: Int[np.ndarray, " n"],
    counts: Float[np.ndarray, "draws s"],
) -> Float[np.ndarray, " draws"]:
    """AUROC of every draw, ties counting half; each draw needs both classes (`class_complete`)."""
    keep = ~np.isnan(truth)
    index = index[keep]
    truth, score = observed(truth, score)
    order = np.argsort(score, kind="stable")
    score, positive, index = score[order], truth[order] == 1, index[order]
    negatives_sorted = score[~positive]
    below = np.searchsorted(negatives_sorted, score[positive], side="left")
    up_to = np.searchsorted(negatives_sorted, score[positive], side="right")
    values = np.empty(len(counts))
    step = max(1, _BUDGET // max(1, len(score)))
    for start in range(0, len(counts), step):
        part = counts[start : start + step]
        positive_weight, negative_weight = part[:, index[positive]], part[:, index[~positive]]
        beaten = np.zeros((len(part), len(negatives_sorted) + 1))
        np.cumsum(negative_weight, axis=1, out=beaten[:, 1:])
        wins = np.einsum("dp,dp->d", positive_weight, beaten[:, below] + beaten[:, up_to]) / 2
        values[start : start + step] = wins / (positive_weight.sum(axis=1) * beaten[:, -1])
    return values


DRAWS: Mapping[str, Callable] = {
    "r2": r2_draws,
    "pearson": pearson_draws,
    "auroc": auroc_draws,
    "auprc": auprc_draws,
}


def _weighted_sums(columns, index, counts) -> np.ndarray:
    """The sum of each column over the records of every draw [column draws]."""
    sums = [np.bincount(index, column, minlength=counts.shape[1]) for column in columns]
    return (counts @ np.stack(sums, axis=1)).T
