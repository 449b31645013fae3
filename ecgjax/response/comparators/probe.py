"""A linear readout of an embedding, for few patients: the frozen encoder as a contender."""

import dataclasses

import numpy as np
import scipy.special
from jaxtyping import Float, Int

from ecgjax.response.comparators.logistic import deviation, fit_path, nested_margins, standardised
from ecgjax.response.crossvalidation.contenders import Scores, margin
from ecgjax.response.crossvalidation.patients import Patients

STRENGTHS = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
"""Stronger than for a few columns: the penalty of one direction falls as the width of the embedding grows."""


@dataclasses.dataclass(frozen=True, eq=False)
class EmbeddingProbe:
    """L2-logistic regression on the matrix `features` of the patients, its strength chosen by the inner folds.

    `maps` are the feature maps of r leads whose means are a patient's features, lead after lead; with them `explain`
    has something to draw.
    """

    patients: Patients
    features: str
    name: str
    maps: Float[np.ndarray, "n r y x c"] | None = None

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

    def explain(
        self,
        train: Int[np.ndarray, " a"],
        truth: Float[np.ndarray, " a"],
        test: Int[np.ndarray, " b"],
        *,
        inner: Int[np.ndarray, " a"],
    ) -> Float[np.ndarray, "b r y x"]:
        """Grad-CAM of the outcome's log odds for patients `test` (see `models.grad_cam`), as `fit_predict` fits.

        The readout is linear, so that the weight of a channel is its coefficient: a map is what each place adds to the
        log odds, 0 where it takes from them.
        """
        x = self.patients.features[self.features].astype(np.float64)
        *_, strength = nested_margins(
            x[train], truth, x[test], inner, prepare=standardised, strengths=STRENGTHS
        )
        (path,) = fit_path(standardised(x[train])[0], truth == 1, strengths=(strength,))
        maps = self.maps[test]
        weights = (path[:-1] / deviation(x[train])).reshape(maps.shape[1], maps.shape[-1])
        return np.maximum(np.einsum("bryxc,rc->bryx", maps, weights), 0) / (maps.shape[2] * maps.shape[3])
