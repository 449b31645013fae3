"""Scores of decisions between exclusive classes, from their confusion matrix; intervals resample subjects.

A confusion matrix counts records by true class (rows) and decided class (columns). Leading axes are draws.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Int, Num

from ecgjax.metrics.bootstrap import (
    Interval,
    every_class,
    percentile_interval,
    subject_counts,
    subject_index,
)


def confusion(
    truth: Int[np.ndarray, " n"], decision: Int[np.ndarray, " n"], *, classes: int
) -> Int[np.ndarray, "c c"]:
    """How many records of each class were taken for each class."""
    return _confusions(truth, decision, np.zeros(len(truth), np.int64), subjects=1, classes=classes)[0]


def sensitivity(confusion: Num[np.ndarray, "*d c c"]) -> Float[np.ndarray, "*d c"]:
    """Share of each class that is found (recall); NaN for a class that the truth lacks."""
    return _ratio(_hits(confusion), confusion.sum(-1))


def positive_predictivity(confusion: Num[np.ndarray, "*d c c"]) -> Float[np.ndarray, "*d c"]:
    """Share of the decisions for each class that are right (precision, +P of EC57); NaN where there are none."""
    return _ratio(_hits(confusion), confusion.sum(-2))


def f1(confusion: Num[np.ndarray, "*d c c"]) -> Float[np.ndarray, "*d c"]:
    """Harmonic mean of both, 0 where nothing is right; NaN for a class that neither truth nor decisions hold."""
    return _ratio(2 * _hits(confusion), confusion.sum(-1) + confusion.sum(-2))


def accuracy(confusion: Num[np.ndarray, "*d c c"]) -> Float[np.ndarray, "*d"]:
    """Share of right decisions."""
    return _ratio(_hits(confusion).sum(-1), confusion.sum((-2, -1)))


def macro_f1(confusion: Num[np.ndarray, "*d c c"]) -> Float[np.ndarray, "*d"]:
    """Mean F1 of the classes that the truth holds; a class that it lacks has no F1 to speak of."""
    return _mean_over_present(f1(confusion), confusion)


def balanced_accuracy(confusion: Num[np.ndarray, "*d c c"]) -> Float[np.ndarray, "*d"]:
    """Mean sensitivity of the classes that the truth holds."""
    return _mean_over_present(sensitivity(confusion), confusion)


OVERALL: Mapping[str, Callable] = {
    "macro_f1": macro_f1,
    "balanced_accuracy": balanced_accuracy,
    "accuracy": accuracy,
}
BY_CLASS: Mapping[str, Callable] = {
    "sensitivity": sensitivity,
    "positive_predictivity": positive_predictivity,
    "f1": f1,
}


@dataclasses.dataclass(frozen=True, eq=False)
class ClassScores:
    """The confusion matrix with the metrics of `OVERALL` and, class by class, of `BY_CLASS`.

    The sizes of a class's intervals are its records and the subjects who have one.
    """

    confusion: Int[np.ndarray, "c c"]
    overall: Mapping[str, Interval]
    by_class: Mapping[str, tuple[Interval, ...]]


def score_classes(
    truth: Int[np.ndarray, " n"],
    decision: Int[np.ndarray, " n"],
    subject: np.ndarray,
    *,
    classes: int,
    draws: int = 1000,
    seed: int = 0,
) -> ClassScores:
    """Scores with 95 % intervals over subjects, each drawn with all records; every draw holds every class of the truth.

    The draws follow the subjects, the truth and the seed, so that two decisions about the same records are paired. Of
    few subjects, above all where one of them has most of a class, an interval still says too little of new ones.
    """
    index, subjects = subject_index(subject)
    by_subject = _confusions(truth, decision, index, subjects=subjects, classes=classes)
    total, held = by_subject.sum(0), by_subject.sum(2) > 0
    present = total.sum(1) > 0
    counts = subject_counts(subjects, draws=draws, seed=seed)
    counts = every_class(counts, held[:, present], seed=seed)
    drawn = np.einsum("ds,sij->dij", counts, by_subject.astype(np.float64))
    sizes = [{"n": int(n), "subjects": int(s)} for n, s in zip(total.sum(1), held.sum(0), strict=True)]
    return ClassScores(
        total,
        {
            name: percentile_interval(float(metric(total)), metric(drawn), n=len(truth), subjects=subjects)
            for name, metric in OVERALL.items()
        },
        {
            name: tuple(
                percentile_interval(value, draws_of_class, **size)
                for value, draws_of_class, size in zip(metric(total), metric(drawn).T, sizes, strict=True)
            )
            for name, metric in BY_CLASS.items()
        },
    )


def _confusions(truth, decision, index, *, subjects, classes) -> Int[np.ndarray, "s c c"]:
    for name, values in (("truth", truth), ("decision", decision)):
        if len(values) and not (values.min() >= 0 and values.max() < classes):
            raise ValueError(
                f"{name} holds class {values.min() if values.min() < 0 else values.max()} of {classes}; number them "
                f"from 0, and leave out records without a class."
            )
    flat = (index * classes + truth) * classes + decision
    counts = np.bincount(flat, minlength=subjects * classes**2)
    return counts.reshape(subjects, classes, classes)


def _hits(confusion):
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _ratio(part, whole):
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _mean_over_present(values, confusion):
    present = confusion.sum(-1) > 0
    return _ratio(np.sum(np.where(present, values, 0), axis=-1), present.sum(-1))
