"""The alarm for leaks: with labels dealt anew, nothing may be predicted."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from ecgjax.metrics.classification import auroc
from ecgjax.response.crossvalidation.contenders import Contender
from ecgjax.response.crossvalidation.folds import stratified
from ecgjax.response.crossvalidation.predictions import predict_out_of_fold


@dataclasses.dataclass(frozen=True, eq=False)
class PermutedLabels:
    """Out-of-fold AUROCs under permuted labels, one cross-validation each, and what was observed with the true ones."""

    auroc: Float[np.ndarray, " permutations"]
    observed: float

    @property
    def p(self) -> float:
        """One-sided p of the observed AUROC, (1 + hits) / (1 + permutations): the whole procedure being refitted.

        A permutation has one repeat and the observed AUROC is the mean of all, which varies less: p is rather too
        large than too small.
        """
        return float((1 + np.sum(self.auroc >= self.observed - 1e-12)) / (1 + len(self.auroc)))

    @property
    def leaks(self) -> bool:
        """Whether permuted labels are predicted: their mean AUROC is above 0.5 by more than four standard errors."""
        error = self.auroc.std(ddof=1) / np.sqrt(len(self.auroc))
        return bool(self.auroc.mean() - 0.5 > 4 * error)


def permuted_labels(
    build: Callable[[Float[np.ndarray, " n"]], Contender],
    truth: Float[np.ndarray, " n"],
    *,
    observed: float,
    permutations: int,
    folds: int,
    inner: int,
    seed: int,
) -> PermutedLabels:
    """Cross-validates once (one repeat) with each permutation of the labels.

    `build` makes the contender from the permuted truth: whatever a contender learnt from labels before the folds
    must happen inside, or the alarm cannot hear it. An honest contender ignores the argument.
    """
    if permutations < 2:
        raise ValueError(f"permutations is {permutations}; the alarm needs at least 2.")
    found = []
    for number in range(permutations):
        dealt = np.random.default_rng([seed, 4, number]).permutation(truth)
        fold = stratified(dealt, folds=folds, seed=[seed, 5, number])[None]
        answer = predict_out_of_fold(build(dealt), dealt, fold, inner=inner, seed=seed + number)
        keep = ~np.isnan(answer.score[0])
        found.append(auroc(dealt[keep], answer.score[0, keep]))
    return PermutedLabels(np.array(found), observed)
