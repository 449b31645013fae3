"""Classical models on measures and clinical columns, every choice made by the inner folds of a training set."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.special
from jaxtyping import Float, Int

from ecgjax.response.comparators.inputs import chosen_columns, filled
from ecgjax.response.comparators.logistic import fit_path, nested_margins
from ecgjax.response.crossvalidation.contenders import Scores, inner_splits, margin
from ecgjax.response.crossvalidation.patients import Patients

SVM_C = (0.1, 1.0, 10.0)
SVM_GAMMA = (0.1, 0.5, 2.0)
"""Times one over the number of features, which have unit variance."""
FOREST_TREES, FOREST_LEAVES = 100, (2, 8)
"""Trees, and the smallest leaf, in patients."""
BOOSTING_TREES, BOOSTING_RATE, BOOSTING_DEPTHS = 50, 0.1, (1, 2)


@dataclasses.dataclass(frozen=True, eq=False)
class Classical:
    """One of `MODELS` on named columns, gaps filled and features standardised inside every fit."""

    patients: Patients
    columns: tuple[str, ...]
    model: str
    label: str | None = None

    def __post_init__(self):
        if self.model not in MODELS:
            raise ValueError(f"model {self.model!r} is unknown; choose from {', '.join(MODELS)}.")
        chosen_columns(self.patients.columns, self.columns)

    @property
    def name(self) -> str:
        """`label`, or the model's name."""
        return self.label or self.model

    def fit_predict(
        self,
        train: Int[np.ndarray, " a"],
        truth: Float[np.ndarray, " a"],
        test: Int[np.ndarray, " b"],
        *,
        inner: Int[np.ndarray, " a"],
        seed: int,
    ) -> Scores:
        """Chooses by the inner folds, fits on all training patients, scores by the margin above their prevalence."""
        x = chosen_columns(self.patients.columns, self.columns)
        test_margin, held_margin, chosen = MODELS[self.model](
            x[train], truth, x[test], inner=inner, seed=seed
        )
        probability = scipy.special.expit(test_margin)
        return Scores(
            margin(probability, truth), probability, scipy.special.expit(held_margin), chosen=chosen
        )


Fitted = tuple[Float[np.ndarray, " b"], Float[np.ndarray, " a"], dict[str, float]]
"""Log odds of the test rows, out-of-fold log odds of the training rows, the settings chosen."""


def logistic(x, truth, test, *, inner, seed) -> Fitted:
    """L2-logistic regression; its strength is chosen."""
    del seed
    found, held, strength = nested_margins(x, truth, test, inner, prepare=filled)
    return found, held, {"strength": strength}


def svm(x, truth, test, *, inner, seed) -> Fitted:
    """Support vector machine with a Gaussian kernel; cost and width are chosen, Platt's sigmoid fitted out of fold.

    A sigmoid that would turn the ranks round has learnt nothing: its slope is then 0.
    """
    from sklearn.svm import SVC

    del seed
    grid = list(itertools.product(SVM_C, SVM_GAMMA))

    def decisions(setting, fitted, labels, asked):
        cost, gamma = setting
        return SVC(C=cost, gamma=gamma / fitted.shape[1]).fit(fitted, labels).decision_function(asked)

    held = np.empty((len(grid), len(x)))
    for fit, out in inner_splits(inner):
        fitted, asked = filled(x[fit], x[out])
        for row, setting in enumerate(grid):
            held[row, out] = decisions(setting, fitted, truth[fit], asked)
    sigmoids = [_platt(row, truth) for row in held]
    logits = np.stack([slope * row + level for row, (slope, level) in zip(held, sigmoids, strict=True)])
    best = int(np.argmin(_log_loss(logits, truth)))
    slope, level = sigmoids[best]
    found = slope * decisions(grid[best], *_with_labels(x, truth, test)) + level
    return found, logits[best], {"cost": grid[best][0], "gamma": grid[best][1]}


def random_forest(x, truth, test, *, inner, seed) -> Fitted:
    """Random forest; the smallest leaf is chosen by the trees that did not see a patient, without inner folds.

    Each probability is half a vote away from 0 and 1.
    """
    from sklearn.ensemble import RandomForestClassifier

    del inner
    fitted, asked = filled(x, test)
    best = None
    for leaf in FOREST_LEAVES:
        forest = RandomForestClassifier(
            FOREST_TREES, min_samples_leaf=leaf, oob_score=True, random_state=seed % 2**31
        ).fit(fitted, truth)
        held = _log_odds_of_votes(forest.oob_decision_function_[:, 1])
        loss = float(_log_loss(held, truth))
        if best is None or loss < best[0]:
            best = loss, forest, held, leaf
    _, forest, held, leaf = best
    return _log_odds_of_votes(forest.predict_proba(asked)[:, 1]), held, {"leaf": float(leaf)}


def gradient_boosting(x, truth, test, *, inner, seed) -> Fitted:
    """Boosted trees of log loss, half of the patients a tree; depth and number of trees are chosen."""
    from sklearn.ensemble import GradientBoostingClassifier

    def boosted(depth, trees, fitted, labels):
        return GradientBoostingClassifier(
            n_estimators=trees,
            learning_rate=BOOSTING_RATE,
            max_depth=depth,
            subsample=0.5,
            min_samples_leaf=3,
            random_state=seed % 2**31,
        ).fit(fitted, labels)

    held = np.empty((len(BOOSTING_DEPTHS), BOOSTING_TREES, len(x)))
    for fit, out in inner_splits(inner):
        fitted, asked = filled(x[fit], x[out])
        for row, depth in enumerate(BOOSTING_DEPTHS):
            model = boosted(depth, BOOSTING_TREES, fitted, truth[fit])
            held[row][:, out] = [stage.ravel() for stage in model.staged_decision_function(asked)]
    row, stage = np.unravel_index(np.argmin(_log_loss(held, truth)), held.shape[:2])
    depth, trees = BOOSTING_DEPTHS[row], int(stage) + 1
    fitted, asked = filled(x, test)
    found = boosted(depth, trees, fitted, truth).decision_function(asked)
    return found, held[row, stage], {"depth": float(depth), "trees": float(trees)}


MODELS: Mapping[str, Callable[..., Fitted]] = {
    "logistic": logistic,
    "svm": svm,
    "random_forest": random_forest,
    "gradient_boosting": gradient_boosting,
}


def _with_labels(x, truth, test):
    fitted, asked = filled(x, test)
    return fitted, truth, asked


def _platt(decision: Float[np.ndarray, " a"], truth: Float[np.ndarray, " a"]) -> tuple[float, float]:
    (path,) = fit_path(decision[:, None], truth == 1, strengths=(1e-3,))
    return (
        (float(path[0]), float(path[1])) if path[0] > 0 else (0.0, float(scipy.special.logit(truth.mean())))
    )


def _log_odds_of_votes(share: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    return scipy.special.logit((share * FOREST_TREES + 0.5) / (FOREST_TREES + 1))


def _log_loss(logits: Float[np.ndarray, "*grid a"], truth: Float[np.ndarray, " a"]) -> Any:
    return np.mean(np.logaddexp(0, logits) - logits * truth, axis=-1)
