"""Percentile intervals by resampling subjects, each with all its records, and seeds where there are several.

Two rows scored with the same draws are paired.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from ecgjax.metrics.classification import auprc, auroc
from ecgjax.metrics.draws import DRAWS
from ecgjax.metrics.regression import pearson, r2

Metric = Literal["r2", "pearson", "auroc", "auprc"]
METRICS = {"r2": r2, "pearson": pearson, "auroc": auroc, "auprc": auprc}


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value with its bounds, from `n` records of `subjects` subjects (those with a known truth)."""

    value: float
    low: float
    high: float
    n: int
    subjects: int


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """A metric a target: the value on the test set, and on every draw of subjects."""

    value: Float[np.ndarray, " m"]
    draws: Float[np.ndarray, "draws m"]


def subject_index(subject: np.ndarray) -> tuple[Int[np.ndarray, " n"], int]:
    """Numbers the subjects of the records by sorted name, so that row order does not matter."""
    names, index = np.unique(subject, return_inverse=True)
    return index, len(names)


def subject_counts(subjects: int, *, draws: int, seed: int) -> Float[np.ndarray, "draws s"]:
    """How often each subject is drawn, with replacement, in each draw."""
    return _counts(np.random.default_rng(seed), subjects, draws)


def class_complete(
    counts: Float[np.ndarray, "draws s"],
    positive: Bool[np.ndarray, " s"],
    negative: Bool[np.ndarray, " s"],
    *,
    seed: int,
) -> Float[np.ndarray, "draws s"]:
    """Replaces the draws that lack one of two classes; `positive` and `negative` say which subjects hold one."""
    return every_class(counts, np.stack([positive, negative], axis=1), seed=seed)


def every_class(
    counts: Float[np.ndarray, "draws s"], held: Bool[np.ndarray, "s c"], *, seed: int
) -> Float[np.ndarray, "draws s"]:
    """Replaces the draws that lack a class; `held` says which subjects hold which.

    Dropping such draws instead would lean the interval of a rare condition.
    """
    if not held.any(axis=0).all():
        raise ValueError(
            "no draw of these subjects holds every class; score targets with all their classes only."
        )
    generator = np.random.default_rng([seed, 1])
    counts = counts.copy()
    while True:
        lacking = np.flatnonzero((counts @ held == 0).any(axis=1))
        if not len(lacking):
            return counts
        counts[lacking] = _counts(generator, counts.shape[1], len(lacking))


def score_targets(
    truth: Float[np.ndarray, "n m"],
    prediction: Float[np.ndarray, "n m"],
    subject: np.ndarray,
    *,
    metrics: Sequence[Metric],
    draws: int = 1000,
    seed: int = 0,
) -> Scored:
    """Scores every target on the set and on `draws` resamples of its subjects; `metrics` names one a target.

    Equal subjects, truth and seed mean equal draws, so the difference of two rows is paired. A target that has
    no value (constant truth, one class) is NaN throughout.
    """
    index, subjects = subject_index(subject)
    counts = subject_counts(subjects, draws=draws, seed=seed)
    value, drawn = np.full(truth.shape[1], np.nan), np.full((draws, truth.shape[1]), np.nan)
    for column, metric in enumerate(metrics):
        target, predicted = truth[:, column], prediction[:, column]
        value[column] = METRICS[metric](target, predicted)
        if np.isnan(value[column]):
            continue
        own = counts
        if metric in ("auroc", "auprc"):
            holds = [np.bincount(index[target == c], minlength=subjects) > 0 for c in (1, 0)]
            own = class_complete(counts, *holds, seed=seed)
        drawn[:, column] = DRAWS[metric](target, predicted, index, own)
    return Scored(value, drawn)


def interval(
    truth: Float[np.ndarray, " n"],
    prediction: Float[np.ndarray, " n"],
    subject: np.ndarray,
    *,
    metric: Metric,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """The metric with its 95 % interval over subjects."""
    scored = score_targets(
        truth[:, None], prediction[:, None], subject, metrics=[metric], draws=draws, seed=seed
    )
    return percentile_interval(scored.value[0], scored.draws[:, 0], **_sizes(truth, subject))


def seed_weights(seeds: int, *, draws: int, seed: int) -> Float[np.ndarray, "draws r"]:
    """Share of each training seed in each draw, seeds being drawn with replacement."""
    return _counts(np.random.default_rng([seed, 2]), seeds, draws) / seeds


def over_seeds(scored: Sequence[Scored], *, seed: int = 0) -> Scored:
    """The mean over training seeds, its draws resampling the seeds together with the subjects.

    Two rows with equally many seeds get the same draws of seeds: seed i of one is paired with seed i of the other, and
    the difference of their draws is the hierarchical bootstrap's. Of very few seeds a resample shows too little spread
    (two thirds of the variance with three), so the bounds are still a little narrow.
    """
    value = np.mean([row.value for row in scored], axis=0)
    draws = np.stack([row.draws for row in scored], axis=1)
    weights = seed_weights(len(scored), draws=len(draws), seed=seed)
    return Scored(value, np.einsum("dr,drm->dm", weights, draws))


def percentile_interval(
    value: float | np.floating, draws: Float[np.ndarray, " draws"], *, n: int, subjects: int
) -> Interval:
    """The central 95 % of the draws; NaN where the value is NaN."""
    if np.isnan(value):
        return Interval(float("nan"), float("nan"), float("nan"), n, subjects)
    known = draws[~np.isnan(draws)]
    if not len(known):
        return Interval(float(value), float("nan"), float("nan"), n, subjects)
    low, high = np.quantile(known, [0.025, 0.975])
    return Interval(float(value), float(low), float(high), n, subjects)


def _sizes(truth: Float[np.ndarray, " n"], subject: np.ndarray) -> dict[str, int]:
    keep = ~np.isnan(truth)
    return {"n": int(keep.sum()), "subjects": len(np.unique(subject[keep]))}


def _counts(generator: np.random.Generator, subjects: int, draws: int) -> Float[np.ndarray, "draws s"]:
    drawn = generator.integers(subjects, size=(draws, subjects))
    flat = drawn + subjects * np.arange(draws)[:, None]
    return np.bincount(flat.ravel(), minlength=draws * subjects).reshape(draws, subjects).astype(np.float64)
