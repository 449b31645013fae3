"""Two contenders on the same patients, and one contender against chance."""

import dataclasses

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float

from ecgjax.metrics.classification import auroc


@dataclasses.dataclass(frozen=True)
class McNemar:
    """Patients that only the first, or only the second, decided rightly, and the exact two-sided p."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first_right: Bool[np.ndarray, " n"], second_right: Bool[np.ndarray, " n"]) -> McNemar:
    """Exact test that either is right as often, given how often just one of them is (McNemar 1947; binomial)."""
    first, second = int(np.sum(first_right & ~second_right)), int(np.sum(second_right & ~first_right))
    p = scipy.stats.binomtest(first, first + second, 0.5).pvalue if first + second else 1.0
    return McNemar(first, second, float(p))


def permutation_p(
    truth: Float[np.ndarray, " n"],
    score: Float[np.ndarray, "repeat n"],
    *,
    permutations: int,
    seed: int,
) -> float:
    """One-sided p of a pooled AUROC above 0.5: how often labels dealt anew to these scores reach it.

    (1 + hits) / (1 + permutations). Exact for scores that no label has touched (a measure, a guideline); for
    out-of-fold scores of a fit it leaves out that the fit saw the labels of the others: see the permuted-label run.
    """
    observed = np.mean([auroc(truth, row) for row in score])
    generator = np.random.default_rng(seed)
    ranks = np.mean(
        [scipy.stats.rankdata(row) for row in score], axis=0
    )  # The mean over repeats is linear in ranks.
    positives = int(truth.sum())
    order = np.argsort(generator.random((permutations, len(truth))), axis=1)[:, :positives]
    dealt = ranks[order].sum(axis=1) - positives * (positives + 1) / 2
    dealt /= positives * (len(truth) - positives)
    return float((1 + np.sum(dealt >= observed - 1e-12)) / (1 + permutations))
