"""A linear readout of an embedding, for few patients: the frozen encoder as a contender."""

import dataclasses

import numpy as np
import scipy.special
from jaxtyping import Float, Int

from ecgjax.evaluators.comparators.logistic import nested_margins, standardised
from ecgjax.evaluators.crossvalidation.contenders import Scores, margin
from ecgjax.evaluators.crossvalidation.patients import Patients

STRENGTHS = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
"""Stronger than for a few columns: the penalty of one direction falls as the width of the embedding grows."""


@dataclasses.dataclass(frozen=True, eq=False)
class EmbeddingProbe:
    """L2-logistic regression on the matrix `features` of the patients, its strength chosen by the inner folds."""

    patients: Patients
    features: str
    name: str

    def __post_init__(self):
        if self.features not in self.patients.features:
            raise ValueError(
                f"no features {self.features!r}; choose from {', '.join(sorted(self.patients.features))}."
            )

    def fit_predict(
        self,
        train: Int[np.ndarray, " a"],
        truth: Float[np.ndarray, " a"],
        test: Int[np.ndarray, " b"],
        *,
        inner: Int[np.ndarray, " a"],
        seed: int,
    ) -> Scores:
        """Standardises by the training patients of every fit; `seed` has no part in it."""
        del seed
        x = self.patients.features[self.features].astype(np.float64)
        found, held, strength = nested_margins(
            x[train], truth, x[test], inner, prepare=standardised, strengths=STRENGTHS
        )
        probability = scipy.special.expit(found)
        return Scores(
            margin(probability, truth), probability, scipy.special.expit(held), chosen={"strength": strength}
        )
