"""Agreement of scores with binary truth; NaN truth is missing and left out, one class alone gives NaN."""

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float

from ecgjax.metrics.regression import observed


def auroc(truth: Float[np.ndarray, " n"], score: Float[np.ndarray, " n"]) -> float:
    """Probability that a positive scores above a negative, ties counting half (Mann-Whitney)."""
    positive, score = _binary(truth, score)
    positives, negatives = positive.sum(), (~positive).sum()
    if not positives or not negatives:
        return float("nan")
    rank_sum = scipy.stats.rankdata(score)[positive].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def auprc(truth: Float[np.ndarray, " n"], score: Float[np.ndarray, " n"]) -> float:
    """Average precision: precision at every distinct threshold, weighted by the recall gained there."""
    positive, score = _binary(truth, score)
    if not positive.any() or positive.all():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.diff(score[order]) != 0, True)
    hits = np.cumsum(positive[order])[last_of_tie]
    precision = hits / (np.flatnonzero(last_of_tie) + 1)
    return float(np.sum(np.diff(hits, prepend=0) * precision) / positive.sum())


def auroc_macro(truth: Float[np.ndarray, " n"], score: Float[np.ndarray, " n"]) -> float:
    """Mean of the AUROC of both one-hot columns; equal to `auroc`, since either ranks the pairs alike."""
    return (auroc(truth, score) + auroc(1 - truth, -score)) / 2


def auprc_macro(truth: Float[np.ndarray, " n"], score: Float[np.ndarray, " n"]) -> float:
    """Mean of the average precision of both one-hot columns, as the newest release of the reference reports it.

    The frequent class, whose precision is high whatever the score, lifts it far above `auprc`: a score without
    content has 1/2 here, and the prevalence there.
    """
    return (auprc(truth, score) + auprc(1 - truth, -score)) / 2


def weighted_recall(
    truth: Float[np.ndarray, " n"], score: Float[np.ndarray, " n"], *, threshold: float = 0.5
) -> float:
    """Recall of each class weighted by its frequency, which the reference's first release calls accuracy, and is."""
    positive, score = _binary(truth, score)
    right = positive == (score >= threshold)
    classes = [positive, ~positive]
    return float(sum(c.mean() * right[c].mean() for c in classes if c.any())) if len(score) else float("nan")


def accuracy(
    truth: Float[np.ndarray, " n"], score: Float[np.ndarray, " n"], *, threshold: float = 0.5
) -> float:
    """Share of right decisions, `score >= threshold` being positive."""
    positive, score = _binary(truth, score)
    return float(np.mean(positive == (score >= threshold))) if len(score) else float("nan")


def balanced_accuracy(
    truth: Float[np.ndarray, " n"], score: Float[np.ndarray, " n"], *, threshold: float = 0.5
) -> float:
    """Mean of sensitivity and specificity."""
    positive, score = _binary(truth, score)
    if not positive.any() or positive.all():
        return float("nan")
    decision = score >= threshold
    return float((np.mean(decision[positive]) + np.mean(~decision[~positive])) / 2)


def f1(truth: Float[np.ndarray, " n"], score: Float[np.ndarray, " n"], *, threshold: float = 0.5) -> float:
    """Harmonic mean of precision and sensitivity; NaN where the truth has one class only."""
    positive, score = _binary(truth, score)
    if not positive.any() or positive.all():
        return float("nan")
    decision = score >= threshold
    return float(2 * np.sum(decision & positive) / (decision.sum() + positive.sum()))


def _binary(
    truth: Float[np.ndarray, " n"], score: Float[np.ndarray, " n"]
) -> tuple[Bool[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    truth, score = observed(truth, score)
    strange = truth[(truth != 0) & (truth != 1)]
    if len(strange):
        raise ValueError(f"binary truth holds {strange[0]}; give 0, 1, or NaN for missing.")
    return truth == 1, score
