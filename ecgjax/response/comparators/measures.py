"""One number as a score: QRS duration, QRS area, a definition of LBBB. Nothing is trained but its probability."""

import dataclasses

import numpy as np
import scipy.special
from jaxtyping import Float, Int

from ecgjax.response.comparators.inputs import refuse_outcomes
from ecgjax.response.comparators.logistic import fit_path, margins, standardised
from ecgjax.response.crossvalidation.contenders import Scores, inner_splits
from ecgjax.response.crossvalidation.patients import Patients

STRENGTH = 1e-6
"""Penalty beside the mean log loss: only keeps the slope finite where the measure separates the classes."""


@dataclasses.dataclass(frozen=True, eq=False)
class SingleMeasure:
    """The value itself ranks the patients; a univariate logistic fit inside the fold makes it a probability.

    `higher` says whether higher values speak for the outcome; fixed before the data, not fitted, so that an AUROC
    below 0.5 can appear. A patient whose value is missing is not evaluable. The training patients with a known value
    must hold both outcomes.
    """

    patients: Patients
    column: str
    higher: bool = True

    def __post_init__(self):
        refuse_outcomes([self.column])
        if self.column not in self.patients.columns:
            raise ValueError(
                f"no column {self.column!r}; choose from {', '.join(sorted(self.patients.columns))}."
            )

    @property
    def name(self) -> str:
        """The column's."""
        return self.column

    def fit_predict(
        self,
        train: Int[np.ndarray, " a"],
        truth: Float[np.ndarray, " a"],
        test: Int[np.ndarray, " b"],
        *,
        inner: Int[np.ndarray, " a"],
        seed: int,
    ) -> Scores:
        """Scores by the value; `seed` has no part in it."""
        del seed
        values = self.patients.columns[self.column] * (1.0 if self.higher else -1.0)
        held = np.full(len(train), np.nan)
        for fit, out in inner_splits(inner):
            held[out] = _probability(values[train[fit]], truth[fit], values[train[out]])
        return Scores(values[test], _probability(values[train], truth, values[test]), held)


def _probability(
    known: Float[np.ndarray, " a"], truth: Float[np.ndarray, " a"], asked: Float[np.ndarray, " b"]
) -> Float[np.ndarray, " b"]:
    """NaN where the value is missing, or where the known values come with one outcome only."""
    have = ~np.isnan(known)
    if len(np.unique(truth[have])) < 2:
        return np.full(len(asked), np.nan)
    x, test = standardised(known[have, None], asked[:, None])
    path = fit_path(x, truth[have] == 1, strengths=(STRENGTH,))
    return scipy.special.expit(margins(path, test)[0])
