"""Out-of-fold predictions of contenders: made here, kept as arrays, written as predictions.csv."""

import csv
import dataclasses
import io
import re
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from ecgjax.evaluators.base import Results
from ecgjax.metrics.thresholds import youden
from ecgjax.response.crossvalidation.contenders import Contender
from ecgjax.response.crossvalidation.folds import inner_folds, thinned

FIELDS = ("score", "probability", "threshold", "decision")
HEADER = ("contender", "patient", "repeat", "fold", "y", "score", "probability", "threshold", "decision")


@dataclasses.dataclass(frozen=True, eq=False)
class OutOfFold:
    """One contender's predictions, each by a fit that never saw the patient.

    `threshold` is Youden's of the inner out-of-fold probabilities of the training patients, NaN for rules;
    `decision` follows from it, or is the rule's own; NaN is "not evaluable". `chosen` has a value a fit.
    """

    score: Float[np.ndarray, "repeat n"]
    probability: Float[np.ndarray, "repeat n"]
    threshold: Float[np.ndarray, "repeat n"]
    decision: Float[np.ndarray, "repeat n"]
    rule: bool
    chosen: Mapping[str, np.ndarray]


def predict_out_of_fold(
    contender: Contender,
    truth: Float[np.ndarray, " n"],
    fold: Int[np.ndarray, "repeat n"],
    *,
    inner: int,
    seed: int,
    fraction: float = 1.0,
) -> OutOfFold:
    """Runs a contender over all folds of all repeats, training on `fraction` of each training set."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", contender.name):
        raise ValueError(
            f"contender name {contender.name!r} is no file name; use letters, digits, '_', '-' and '.'."
        )
    found = {name: np.full(fold.shape, np.nan) for name in FIELDS}
    rules: set[bool] = set()
    chosen: dict[str, list[float]] = {}
    for repeat, folds in enumerate(fold):
        for k in np.unique(folds):
            train, test = np.flatnonzero(folds != k), np.flatnonzero(folds == k)
            at = [seed, repeat, int(k)]
            if fraction < 1:
                train = train[thinned(truth[train], fraction=fraction, seed=[*at, 1])]
            seen = truth[train]
            answer = contender.fit_predict(
                train,
                seen,
                test,
                inner=inner_folds(seen, folds=inner, seed=[*at, 2]),
                seed=int(np.random.SeedSequence([*at, 3]).generate_state(1)[0]),
            )
            threshold = youden(seen, answer.inner)
            rules.add(answer.decision is not None)
            if answer.decision is not None:
                decision = answer.decision
            else:
                decision = np.where(np.isnan(answer.probability), np.nan, answer.probability >= threshold)
                decision = np.where(np.isnan(threshold), np.nan, decision)
            for name, values in zip(
                FIELDS, (answer.score, answer.probability, threshold, decision), strict=True
            ):
                found[name][repeat, test] = values
            for name, value in answer.chosen.items():
                chosen.setdefault(name, []).append(float(value))
    _check(contender.name, found["score"])
    (rule,) = rules
    return OutOfFold(**found, rule=rule, chosen={name: np.array(values) for name, values in chosen.items()})


def to_arrays(predictions: Mapping[str, OutOfFold]) -> dict[str, np.ndarray]:
    """`<contender>|<field>` [repeat n] for the results' file."""
    return {
        f"{name}|{field}": getattr(found, field).astype(np.float64)
        for name, found in predictions.items()
        for field in FIELDS
    }


def contenders_of(results: Results) -> list[str]:
    """Names of the contenders of a cross-validation's results, in their order."""
    return [name.removesuffix("|score") for name in results.arrays if name.endswith("|score")]


def predictions_csv(results: Results) -> str:
    """The table of every prediction: a row a contender, patient and repeat; empty where there is no number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    arrays = results.arrays
    for contender in contenders_of(results):
        fields = [arrays[f"{contender}|{field}"] for field in FIELDS]
        for repeat, folds in enumerate(arrays["fold"]):
            for n, patient in enumerate(arrays["subject"]):
                values = [field[repeat, n] for field in fields]
                writer.writerow(
                    [contender, patient, repeat, folds[n], int(arrays["y"][n])]
                    + ["" if np.isnan(value) else f"{value:.9g}" for value in values]
                )
    return text.getvalue()


def _check(name: str, score: Float[np.ndarray, "repeat n"]) -> None:
    """A patient is evaluable in all repeats or in none: whether it is depends on its inputs, not on the fold."""
    mixed = np.flatnonzero(np.isnan(score).any(axis=0) & ~np.isnan(score).all(axis=0))
    if len(mixed):
        raise ValueError(
            f"contender {name!r} scored patient {mixed[0]} in some folds and not in others; a contender scores a "
            "patient always, or never (NaN: not evaluable)."
        )
    if np.isinf(score).any():
        raise ValueError(f"contender {name!r} gave an infinite score; give finite numbers, or NaN.")
