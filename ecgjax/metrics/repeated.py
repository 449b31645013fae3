"""Metrics of repeated out-of-fold predictions: the mean over repeats, on the patients and on every draw of them.

A patient has one prediction in each repeat. A draw of patients takes all the repeats of a patient together, since
repeats add no patients: the interval says what other patients would change, given these folds' models.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from ecgjax.metrics.bootstrap import class_complete, subject_counts
from ecgjax.metrics.draws import auroc_draws


def patient_draws(
    truth: Float[np.ndarray, " n"], *, draws: int, seed: int
) -> Float[np.ndarray, "draws_and_1 n"]:
    """How often each patient is drawn; the first row is the cohort itself, so that values come with their draws."""
    counts = subject_counts(len(truth), draws=draws, seed=seed)
    counts = class_complete(counts, truth == 1, truth == 0, seed=seed)
    return np.concatenate([np.ones((1, len(truth))), counts])


def pooled(
    metric: Callable,
    truth: Float[np.ndarray, " n"],
    score: Float[np.ndarray, "repeat n"],
    counts: Float[np.ndarray, "draws n"],
) -> Float[np.ndarray, " draws"]:
    """Mean over repeats of a metric of all patients' predictions; `metric` is a function of `metrics.draws`."""
    index = np.arange(len(truth))
    rows, times = np.unique(
        score, axis=0, return_counts=True
    )  # A fixed measure scores alike in every repeat.
    return sum(k * metric(truth, row, index, counts) for row, k in zip(rows, times, strict=True)) / len(score)


def fold_mean_auroc(
    truth: Float[np.ndarray, " n"],
    score: Float[np.ndarray, "repeat n"],
    fold: Int[np.ndarray, "repeat n"],
    counts: Float[np.ndarray, "draws n"],
) -> Float[np.ndarray, " draws"]:
    """Mean over folds of the AUROC within a fold, then over repeats.

    In a draw, a fold that lacks a class has no AUROC and is left out of that draw's mean.
    """
    total, taken = np.zeros(len(counts)), np.zeros(len(counts))
    for scores, folds in zip(score, fold, strict=True):
        for k in np.unique(folds):
            rows = np.flatnonzero(folds == k)
            weights, y = counts[:, rows], truth[rows]
            both = (weights @ (y == 1) > 0) & (weights @ (y == 0) > 0)
            if both.any():
                total[both] += auroc_draws(y, scores[rows], np.arange(len(rows)), weights[both])
                taken += both
    with np.errstate(invalid="ignore"):
        return total / taken
