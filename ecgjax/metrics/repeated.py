"""Metrics of repeated out-of-fold predictions, with draws of patients and repeats.

A patient has one prediction in each repeat, and the value of a metric is its mean over repeats. A draw takes patients
with replacement and, of each patient, the prediction of one repeat, the same one for all: it shows what other patients
and another dealing of the folds would change. Drawing patients under the mean of all repeats shows too little: the
repeats share their patients, and on null cohorts those intervals were a quarter too narrow
(tests/benchmarks/null_cohorts.py).
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Int

from ecgjax.metrics.bootstrap import class_complete, subject_counts


def patient_draws(truth: Float[np.ndarray, " n"], *, draws: int, seed: int) -> Float[np.ndarray, "draws n"]:
    """How often each patient is drawn, with replacement, in each draw; every draw holds both classes."""
    counts = subject_counts(len(truth), draws=draws, seed=seed)
    return class_complete(counts, truth == 1, truth == 0, seed=seed)


def over_repeats(
    metrics: Callable[[int, Float[np.ndarray, "k n"]], Mapping[str, Float[np.ndarray, " k"]]],
    counts: Float[np.ndarray, "draws n"],
    *,
    repeats: int,
) -> dict[str, Float[np.ndarray, " draws_and_1"]]:
    """Values by name: of the cohort first (mean over repeats), then of every draw, which belongs to one repeat.

    `metrics(repeat, counts)` gives them for draws of one repeat. Equal counts and repeats pair two contenders.
    """
    whole = np.ones((1, counts.shape[1]))
    found: dict[str, np.ndarray] = {}
    for repeat in range(repeats):
        mine = slice(1 + repeat, None, repeats)
        for name, values in metrics(repeat, np.concatenate([whole, counts[repeat::repeats]])).items():
            drawn = found.setdefault(name, np.zeros(len(counts) + 1))
            drawn[0] += values[0] / repeats
            drawn[mine] = values[1:]
    return found


def pooled(
    metric: Callable,
    truth: Float[np.ndarray, " n"],
    score: Float[np.ndarray, "repeat n"],
    counts: Float[np.ndarray, "draws n"],
) -> Float[np.ndarray, " draws_and_1"]:
    """`over_repeats` of one metric of all patients' scores together; `metric` is a function of `metrics.draws`."""
    index = np.arange(len(truth))
    found = over_repeats(
        lambda repeat, drawn: {"": metric(truth, score[repeat], index, drawn)}, counts, repeats=len(score)
    )
    return found[""]


def fold_mean(
    metrics: Callable[
        [Int[np.ndarray, " m"], Float[np.ndarray, "k m"]], Mapping[str, Float[np.ndarray, " k"]]
    ],
    truth: Float[np.ndarray, " n"],
    fold: Int[np.ndarray, " n"],
    counts: Float[np.ndarray, "draws n"],
) -> dict[str, Float[np.ndarray, " draws"]]:
    """Mean over the folds of one repeat of metrics within a fold, `metrics(rows, counts)` of some of its patients.

    In a draw, a fold that lacks a class, or in which a metric is NaN, is left out of that draw's mean.
    """
    total: dict[str, np.ndarray] = {}
    taken: dict[str, np.ndarray] = {}
    for k in np.unique(fold):
        rows = np.flatnonzero(fold == k)
        weights, y = counts[:, rows], truth[rows]
        both = np.flatnonzero((weights @ (y == 1) > 0) & (weights @ (y == 0) > 0))
        if not len(both):
            continue
        for name, values in metrics(rows, weights[both]).items():
            known = ~np.isnan(values)
            total.setdefault(name, np.zeros(len(counts)))[both[known]] += values[known]
            taken.setdefault(name, np.zeros(len(counts)))[both[known]] += 1
    with np.errstate(invalid="ignore"):
        return {name: values / taken[name] for name, values in total.items()}
