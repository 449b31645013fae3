"""L2-logistic regression for few patients: exact Newton steps at every strength, chosen by inner folds."""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.special
from jaxtyping import Bool, Float, Int

from ecgjax.response.crossvalidation.contenders import inner_splits

STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.001)
"""Weights of |w|^2 / 2 beside the mean log loss (C = 1 / (n strength)), strongest first for the warm start."""


def fit_path(
    x: Float[np.ndarray, "n d"],
    positive: Bool[np.ndarray, " n"],
    *,
    strengths: Sequence[float] = STRENGTHS,
) -> Float[np.ndarray, "s d_and_1"]:
    """Weights at every strength (descending), the free intercept last.

    Newton steps in the row space of the centred features: with fewer patients than features it has the rank of the
    patients, which makes an embedding of 768 numbers as cheap as one of 60.
    """
    centre = x.mean(axis=0)
    _, size, directions = np.linalg.svd(x - centre, full_matrices=False)
    directions = directions[size > 1e-10 * max(size[0], 1e-300)] if len(size) else directions
    basis = np.append((x - centre) @ directions.T, np.ones((len(x), 1)), axis=1)
    weight = np.append(np.zeros(len(directions)), scipy.special.logit(positive.mean()))
    path = np.empty((len(strengths), x.shape[1] + 1))
    for row, strength in enumerate(strengths):
        weight = _newton(basis, positive, weight, strength)
        path[row, :-1] = weight[:-1] @ directions
        path[row, -1] = weight[-1] - path[row, :-1] @ centre
    return path


def margins(path: Float[np.ndarray, "s d_and_1"], x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "s n"]:
    """The log odds of every row of `x` at every strength."""
    return path[:, :-1] @ x.T + path[:, -1:]


def nested_margins(
    x: Float[np.ndarray, "a d"],
    truth: Float[np.ndarray, " a"],
    test: Float[np.ndarray, "b d"],
    inner: Int[np.ndarray, " a"],
    *,
    prepare: Callable[[np.ndarray, np.ndarray], Sequence[np.ndarray]],
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " a"], float]:
    """Log odds of the test rows, inner out-of-fold log odds of the training rows, and the strength.

    The strength is the one with the least log loss of the inner out-of-fold log odds; the fit at it is on all
    training rows. `prepare` makes the features of a fit and those it is asked about from the former alone, such as
    `standardised`.
    """
    held = np.empty((len(strengths), len(x)))
    for fit, out in inner_splits(inner):
        scaled, held_x = prepare(x[fit], x[out])
        held[:, out] = margins(fit_path(scaled, truth[fit] == 1, strengths=strengths), held_x)
    loss = np.mean(np.logaddexp(0, held) - held * truth, axis=1)
    best = int(np.argmin(loss))  # Of equal losses the strongest penalty.
    scaled, test_x = prepare(x, test)
    path = fit_path(scaled, truth == 1, strengths=strengths[: best + 1])
    return margins(path[-1:], test_x)[0], held[best], float(strengths[best])


def standardised(
    fit: Float[np.ndarray, "a d"], *others: Float[np.ndarray, "_ d"]
) -> list[Float[np.ndarray, "_ d"]]:
    """All of them shifted and scaled by the mean and standard deviation of `fit`; a constant column becomes zero."""
    mean, scale = fit.mean(axis=0), deviation(fit)
    return [(x - mean) / scale for x in (fit, *others)]


def deviation(fit: Float[np.ndarray, "a d"]) -> Float[np.ndarray, " d"]:
    """What columns are scaled by: their standard deviation, infinite where a column is constant."""
    mean, scale = fit.mean(axis=0), fit.std(axis=0)
    return np.where(scale <= 1e-9 * (np.abs(mean) + 1e-12), np.inf, scale)


def _newton(basis, positive, weight, strength):
    penalty = np.append(np.full(len(weight) - 1, strength), 0.0)

    def loss(w):
        margin = basis @ w
        return np.mean(np.logaddexp(0, margin) - margin * positive) + penalty @ w**2 / 2

    value = loss(weight)
    for _ in range(50):
        p = scipy.special.expit(basis @ weight)
        gradient = basis.T @ (p - positive) / len(basis) + penalty * weight
        hessian = (basis.T * (p * (1 - p))) @ basis / len(basis) + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        if gradient @ step < 1e-14:
            return weight
        size = 1.0
        while (trial := loss(weight - size * step)) > value - 1e-4 * size * (gradient @ step) and size > 1e-6:
            size /= 2
        if size <= 1e-6:  # Rounding forbids a further descent.
            return weight
        weight, value = weight - size * step, trial
    return weight
