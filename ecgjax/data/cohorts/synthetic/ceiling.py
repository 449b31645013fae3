"""The attainable score: how well any function of the ECG could tell the heart, estimated from below."""

import warnings

import numpy as np
from jaxtyping import Float

from ecgjax.data.cohorts.base import Target
from ecgjax.data.cohorts.synthetic.cohort import TARGETS, draw_parameters

INPUT = "attainable"
SUBJECTS, HELD_OUT = 40_000, 10_000
RIDGE_PENALTY = 1.0
BOOTSTRAPS, BOOTSTRAP_SEED = 500, 0


def attainable(
    *,
    seed: int,
    strength: float = 1.0,
    subjects: int = SUBJECTS,
    held_out: int = HELD_OUT,
    bootstraps: int = BOOTSTRAPS,
) -> list[dict[str, object]]:
    """One Results row a target, input "attainable": R2 or AUROC with its 95 % bootstrap interval.

    Heart -> ECG parameters -> ECG is a Markov chain, so no function of the ECG beats the best function of
    the noise-free parameters. Ridge (or logistic) and gradient boosting are fitted on parameter-only subjects
    of a stream of their own and scored on the last `held_out`; the larger score is the row. A fit can fall
    short of the best function, so a row estimates the bound from below; it also leaves out noise and gain,
    which lower what an ECG really gives. AUROC of LBBB and AF is 1 by construction. At another `strength` hearts and
    noise stay the same, and 0 is no null: strain, Q waves, LBBB and AF still show.
    Raises ValueError where fewer subjects remain to fit on than to score.
    """
    if not 0 < held_out <= subjects / 2:
        raise ValueError(
            f"{held_out} of {subjects} subjects held out; hold out at most half, and at least 1."
        )
    heart, e = draw_parameters(subjects, seed=seed, strength=strength)
    truth = {**heart.phenotypes(), **heart.flags()}
    fit = slice(0, subjects - held_out)
    mean, deviation = e[fit].mean(0), e[fit].std(0)
    # A parameter that is the same for all (a rare flag in a small draw) carries nothing.
    e = (e - mean) / np.where(deviation > 0, deviation, 1.0)
    rows = []
    for target in TARGETS:
        y = truth[target.name].astype(np.float64)
        predictions = _predictions(e[fit], y[fit], e[subjects - held_out :], binary=target.kind == "binary")
        scored = y[subjects - held_out :]
        score = _auroc if target.kind == "binary" else _r2
        best = max(predictions, key=lambda prediction: score(scored, prediction))
        rows.append(_row(target, scored, best, bootstraps=bootstraps))
    return rows


def _predictions(x: np.ndarray, y: np.ndarray, x_new: np.ndarray, *, binary: bool) -> list[np.ndarray]:
    """Predictions of the linear and of the boosted fit."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from threadpoolctl import threadpool_limits

    boosting = {
        "max_iter": 120,
        "learning_rate": 0.1,
        "max_leaf_nodes": 15,
        "random_state": 0,
        "early_stopping": False,
    }
    # One thread: OpenMP's waiting threads made a fit 20 times as slow beside another job.
    with threadpool_limits(1), warnings.catch_warnings():
        if not binary:
            fits = (Ridge(alpha=RIDGE_PENALTY), HistGradientBoostingRegressor(**boosting))
            return [fit.fit(x, y).predict(x_new) for fit in fits]
        # A control that is itself a parameter separates perfectly, where logistic steps run out; harmless.
        warnings.filterwarnings("ignore", message="lbfgs failed to converge")
        fits = (LogisticRegression(max_iter=300), HistGradientBoostingClassifier(**boosting))
        return [fit.fit(x, y).decision_function(x_new) for fit in fits]


def _row(target: Target, truth: np.ndarray, prediction: np.ndarray, *, bootstraps: int) -> dict[str, object]:
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    score, count = (_auroc if target.kind == "binary" else _r2), len(truth)
    again = [score(truth[draw], prediction[draw]) for draw in rng.integers(0, count, (bootstraps, count))]
    low, high = np.nanpercentile(again, [2.5, 97.5])
    return {
        "target": target.name,
        "kind": target.kind,
        "control": target.control,
        "input": INPUT,
        "metric": "auroc" if target.kind == "binary" else "r2",
        "value": score(truth, prediction),
        "low": float(low),
        "high": float(high),
        "n": count,
        "subjects": count,
    }


def _r2(truth: Float[np.ndarray, " n"], prediction: Float[np.ndarray, " n"]) -> float:
    return float(1 - np.mean((truth - prediction) ** 2) / np.var(truth))


def _auroc(truth: Float[np.ndarray, " n"], prediction: Float[np.ndarray, " n"]) -> float:
    """Share of (positive, negative) pairs in order, ties half; not-a-number where a class is missing."""
    _, place, counts = np.unique(prediction, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]
    positive = truth > 0.5
    ones, zeros = positive.sum(), (~positive).sum()
    if ones == 0 or zeros == 0:
        return float("nan")
    return float((rank[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))
