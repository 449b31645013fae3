"""How well the best possible classifier can tell the responders: dyssynchrony to response, by quadrature."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float64

_NODES = np.linspace(-9.0, 9.0, 4001)
_WEIGHTS = np.exp(-0.5 * _NODES**2) / np.exp(-0.5 * _NODES**2).sum()
"""A standard normal on a grid: the sums below are exact to 1e-5."""


@dataclasses.dataclass(frozen=True)
class Response:
    """P(response | d) = sigmoid(intercept + slope d), where dyssynchrony d is standard normal."""

    intercept: float
    slope: float

    def probability(self, d: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
        """Of response, given dyssynchrony."""
        return 1 / (1 + np.exp(-(self.intercept + self.slope * d)))

    def prevalence(self) -> float:
        """Of response in the population."""
        return float(_WEIGHTS @ self.probability(_NODES))

    def bayes_auc(self) -> float:
        """P(d of a responder > d of another patient): no function of d, nor of what d causes, does better."""
        responders = _WEIGHTS * self.probability(_NODES)
        others = _WEIGHTS - responders
        below = np.cumsum(others) - others / 2
        return float(responders @ below / (responders.sum() * others.sum()))


@functools.cache
def response_of(auc: float, prevalence: float) -> Response:
    """The response that has this Bayes AUC and this prevalence; `auc` 0.5 is independent of dyssynchrony."""
    if not 0.5 <= auc <= 0.99:
        raise ValueError(
            f"config.cohort.auc is {auc}; give 0.5 (response is chance) to 0.99: beyond, the latent decides alone."
        )
    if not 0.05 <= prevalence <= 0.95:
        raise ValueError(f"config.cohort.prevalence is {prevalence}; give 0.05 to 0.95.")

    def at(slope: float) -> Response:
        reach = 9.0 * slope + 5.0
        intercept = _root(lambda a: Response(a, slope).prevalence() - prevalence, -reach, reach)
        return Response(intercept, slope)

    if auc == 0.5:
        return at(0.0)
    return at(_root(lambda b: at(b).bayes_auc() - auc, 0.0, 60.0))


def _root(rising, low: float, high: float) -> float:
    """Where a rising function crosses 0, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2
