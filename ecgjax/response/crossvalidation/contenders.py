"""What takes part in a cross-validation, and what it answers."""

import dataclasses
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import scipy.special
from jaxtyping import Bool, Float, Int

from ecgjax.metrics.calibration import NEAREST


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """Answers about the test patients of one fold.

    `score` ranks patients and must be comparable between folds; NaN means not evaluable (never "no"). `probability`
    is of the outcome, NaN from what gives none. `inner` are out-of-fold probabilities of the TRAINING patients in
    their order, by which the threshold is chosen; NaN where there is none. `decision` is a rule's own yes (1), no (0)
    or NaN, in place of a threshold. `chosen` are settings that selection chose, for the report.
    """

    score: Float[np.ndarray, " b"]
    probability: Float[np.ndarray, " b"]
    inner: Float[np.ndarray, " a"]
    decision: Float[np.ndarray, " b"] | None = None
    chosen: Mapping[str, float] = dataclasses.field(default_factory=dict)


@runtime_checkable
class Contender(Protocol):
    """Built with the inputs of all patients and with no truth; patients are given by their number.

    Everything that is fitted (standardisation, imputation, selection, training, early stopping) uses `train` only.
    """

    @property
    def name(self) -> str:
        """Its name in results: letters, digits, '_', '-' and '.'."""

    def fit_predict(
        self,
        train: Int[np.ndarray, " a"],
        truth: Float[np.ndarray, " a"],
        test: Int[np.ndarray, " b"],
        *,
        inner: Int[np.ndarray, " a"],
        seed: int,
    ) -> Scores:
        """Fits on patients `train`, whose truths are `truth`, and answers about patients `test`.

        `inner` is the inner fold of each training patient, for whatever it chooses; the same for every contender.
        """


def margin(probability: Float[np.ndarray, " b"], truth: Float[np.ndarray, " a"]) -> Float[np.ndarray, " b"]:
    """The log odds of probabilities above those of the training prevalence: a score that pools over folds.

    Raw probabilities do not: a fold with more positives leaves fewer to its training set, hence a lower intercept.
    A fit that has learnt nothing would rank patients by that alone, below an AUROC of 0.5; where a fit has learnt
    something it hardly matters.
    """
    return scipy.special.logit(np.clip(probability, NEAREST, 1 - NEAREST)) - scipy.special.logit(truth.mean())


def inner_splits(
    inner: Int[np.ndarray, " a"],
) -> list[tuple[Bool[np.ndarray, " a"], Bool[np.ndarray, " a"]]]:
    """Masks (fit, held out) over the training patients, one pair an inner fold."""
    return [(inner != k, inner == k) for k in np.unique(inner)]
