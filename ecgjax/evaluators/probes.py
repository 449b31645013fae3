"""Linear readouts of fixed features: ridge for real targets, L2-logistic for binary ones, strength by validation."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.optimize
import scipy.special
from jaxtyping import Bool, Float

RIDGE_STRENGTHS = tuple(10.0**k for k in np.arange(-5, 3.5, 0.5))
"""Multiples of the identity added to the feature covariance; features have unit variance."""
LOGISTIC_STRENGTHS = tuple(10.0**k for k in np.arange(1, -5.5, -1.0))
"""Weights of |w|^2 / 2 beside the mean log loss (C = 1 / (n strength)), strongest first for the warm start."""


@dataclasses.dataclass(frozen=True, eq=False)
class Standardiser:
    """Shift and scale of the train split; a constant feature becomes zero."""

    mean: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]

    @classmethod
    def of(cls, x: Float[np.ndarray, "n d"]) -> "Standardiser":
        """Takes the statistics of `x`."""
        x = x.astype(np.float64)
        mean, scale = x.mean(axis=0), x.std(axis=0)
        constant = scale <= 1e-6 * (np.abs(mean) + 1e-12)
        return cls(mean, np.where(constant, np.inf, scale))

    def __call__(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Applies them."""
        return (x.astype(np.float64) - self.mean) / self.scale


@dataclasses.dataclass(frozen=True, eq=False)
class Readout:
    """Scores of the test split (values, or probabilities) and the strength that validation chose."""

    test: Float[np.ndarray, " n"]
    strength: float


def ridge(
    train: Float[np.ndarray, "n d"],
    label: Float[np.ndarray, "n m"],
    val: Float[np.ndarray, "v d"],
    val_label: Float[np.ndarray, "v m"],
    test: Float[np.ndarray, "t d"],
    *,
    strengths: Sequence[float] = RIDGE_STRENGTHS,
) -> list[Readout]:
    """Ridge of every column of `label` on features, one eigendecomposition for all strengths and columns.

    With X centred, X'X/n = V diag(s) V', the weights are V (s + strength)^-1 V'X'y/n. The strength of a column is
    the one with the least squared error on its observed validation labels. Columns whose missing labels differ
    have different covariances, hence one decomposition for each pattern of missing labels.
    """
    readouts: list[Readout | None] = [None] * label.shape[1]
    observed = ~np.isnan(label)
    patterns, group = np.unique(observed, axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        rows, columns = patterns[:, number], np.flatnonzero(group.ravel() == number)
        x, y = train[rows], label[rows][:, columns].astype(np.float64)
        centre, level = x.mean(axis=0), y.mean(axis=0)
        eigenvalues, vectors = np.linalg.eigh((x - centre).T @ (x - centre) / len(x))
        eigenvalues = np.maximum(eigenvalues, 0)  # Rounding leaves tiny negative ones.
        moment = vectors.T @ ((x - centre).T @ (y - level)) / len(x)
        val_basis, test_basis = (val - centre) @ vectors, (test - centre) @ vectors
        # errors [strength, column]
        errors = np.stack(
            [
                np.nanmean(
                    (val_basis @ (moment / (eigenvalues + s)[:, None]) + level - val_label[:, columns]) ** 2,
                    axis=0,
                )
                for s in strengths
            ]
        )
        for position, column in enumerate(columns):
            strength = strengths[int(np.argmin(errors[:, position]))]
            weight = moment[:, position] / (eigenvalues + strength)
            readouts[column] = Readout(test_basis @ weight + level[position], float(strength))
    return readouts


def logistic(
    train: Float[np.ndarray, "n d"],
    label: Float[np.ndarray, " n"],
    val: Float[np.ndarray, "v d"],
    val_label: Float[np.ndarray, " v"],
    test: Float[np.ndarray, "t d"],
    *,
    strengths: Sequence[float] = LOGISTIC_STRENGTHS,
) -> Readout:
    """L2-logistic regression by L-BFGS, each strength started from the solution of the stronger one.

    The intercept is free. The strength is the one with the least log loss on validation. The solver works in the
    eigenbasis of the covariance, each direction scaled by its curvature at the prevalence: embeddings are strongly
    correlated, and without this 300 iterations do not suffice.
    """
    rows, val_rows = ~np.isnan(label), ~np.isnan(val_label)
    x, positive, val_positive = train[rows], label[rows] == 1, val_label[val_rows] == 1
    prevalence = positive.mean()
    centre = x.mean(axis=0)
    x = x - centre
    eigenvalues, vectors = np.linalg.eigh(x.T @ x / len(x))
    basis, val_basis = x @ vectors, (val[val_rows] - centre) @ vectors
    curvature = prevalence * (1 - prevalence) * np.append(np.maximum(eigenvalues, 0), 1)
    weight = np.append(np.zeros(x.shape[1]), scipy.special.logit(prevalence))
    best = (np.inf, weight, strengths[0])
    for strength in sorted(strengths, reverse=True):
        penalty = np.append(np.full(x.shape[1], float(strength)), 0)
        scale = 1 / np.sqrt(curvature + penalty)
        fit = scipy.optimize.minimize(
            _penalised_log_loss,
            weight / scale,
            args=(scale, basis, positive, penalty),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 500, "gtol": 1e-6},
        )
        weight = fit.x * scale
        margin = val_basis @ weight[:-1] + weight[-1]
        loss = np.mean(np.logaddexp(0, margin) - margin * val_positive)
        if loss < best[0]:
            best = (loss, weight, strength)
    _, weight, strength = best
    margin = (test - centre) @ (vectors @ weight[:-1]) + weight[-1]
    return Readout(scipy.special.expit(margin), float(strength))


def _penalised_log_loss(
    scaled: Float[np.ndarray, " w"],
    scale: Float[np.ndarray, " w"],
    x: Float[np.ndarray, "n d"],
    positive: Bool[np.ndarray, " n"],
    penalty: Float[np.ndarray, " w"],
) -> tuple[float, np.ndarray]:
    """Mean log loss plus penalty / 2 weight^2, with weight = scale * scaled (intercept last), and the gradient."""
    weight = scale * scaled
    margin = x @ weight[:-1] + weight[-1]
    loss = np.mean(np.logaddexp(0, margin) - margin * positive) + penalty @ weight**2 / 2
    residual = (scipy.special.expit(margin) - positive) / len(x)
    return float(loss), scale * (np.append(x.T @ residual, residual.sum()) + penalty * weight)
