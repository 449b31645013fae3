"""Stratified folds of patients, repeated; inner folds of training patients; folds of a table's own."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


def repeated_folds(
    truth: Float[np.ndarray, " n"], *, repeats: int, folds: int, seed: int
) -> Int[np.ndarray, "repeats n"]:
    """The fold of every patient in every repeat; depends on the order and truth of the patients and on `seed`."""
    return np.stack([stratified(truth, folds=folds, seed=[seed, repeat]) for repeat in range(repeats)])


def stratified(
    truth: Float[np.ndarray, " n"], *, folds: int, seed: int | Sequence[int]
) -> Int[np.ndarray, " n"]:
    """Deals each class in random order to the folds, the second class going on where the first ended.

    So the folds' sizes differ by one at most, and so do their counts of each class.
    """
    check_size(truth, folds=folds)
    generator = np.random.default_rng(seed)
    ranked = np.concatenate([generator.permutation(np.flatnonzero(truth == c)) for c in (0, 1)])
    fold = np.empty(len(truth), np.int64)
    fold[ranked] = np.arange(len(truth)) % folds
    return fold


def inner_folds(truth: Float[np.ndarray, " a"], *, folds: int, seed: Sequence[int]) -> Int[np.ndarray, " a"]:
    """The inner fold of each training patient, for choices within one outer training set."""
    return stratified(truth, folds=folds, seed=seed)


def given_folds(
    patient: Int[np.ndarray, " r"], fold: np.ndarray, truth: Float[np.ndarray, " n"]
) -> Int[np.ndarray, "1 n"]:
    """One repeat with the folds that a table's split column names for its recordings.

    `patient` is the patient of each recording, -1 for those left out. Raises where a patient is in two folds, or a
    fold or its complement lacks a class.
    """
    names, number = np.unique(fold[patient >= 0], return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            f"the split column names {len(names)} fold; give two or more, or none for drawn folds."
        )
    mine = patient[patient >= 0]
    found = np.full(len(truth), -1)
    found[mine] = number
    straddling = np.flatnonzero(found[mine] != number)
    if len(straddling):
        who = mine[straddling[0]]
        rows = np.flatnonzero(patient == who)
        raise ValueError(
            f"the patient of recordings {', '.join(map(str, rows))} is in two folds "
            f"({', '.join(str(fold[row]) for row in rows)}); a patient belongs to one: correct the split column."
        )
    for k, name in enumerate(names):
        for where, what in ((found == k, f"fold {name}"), (found != k, f"the complement of fold {name}")):
            if len(np.unique(truth[where])) < 2:
                raise ValueError(
                    f"{what} holds one class only ({int(where.sum())} patients); every fold needs both: move patients "
                    "in the split column, or drop it and let the folds be drawn."
                )
    return found[None]


def check_size(truth: Float[np.ndarray, " n"], *, folds: int) -> None:
    """Raises where a class has fewer patients than there are folds."""
    if folds < 2:
        raise ValueError(f"folds is {folds}; it must be at least 2.")
    negatives, positives = int(np.sum(truth == 0)), int(np.sum(truth == 1))
    if negatives + positives < len(truth):
        raise ValueError(f"{len(truth) - negatives - positives} patients have no truth; leave them out.")
    if min(negatives, positives) < folds:
        raise ValueError(
            f"{positives} patients with the outcome and {negatives} without are too few for {folds} folds, each of "
            f"which needs one of either; use at most {min(negatives, positives)} folds, or more patients."
        )


def check_nested(
    truth: Float[np.ndarray, " n"], *, folds: int, inner: int, fractions: Sequence[float] = (1.0,)
) -> None:
    """Raises where the smallest training set that will occur cannot be cut into `inner` folds."""
    check_size(truth, folds=folds)
    for value, name in ((1, "with the outcome"), (0, "without")):
        count = int(np.sum(truth == value))
        left = thinned_count(count - -(-count // folds), min(fractions))
        if left < inner:
            raise ValueError(
                f"a training set may hold only {left} patients {name} (of {count}, {folds} folds, fraction "
                f"{min(fractions):g}), too few for {inner} inner folds; use fewer inner folds, larger fractions, or "
                "more patients."
            )


def smallest_class(truth: Float[np.ndarray, " n"], *, folds: int, fraction: float) -> int:
    """Patients of the rarer class in the smallest training set that will occur."""
    counts = (int(np.sum(truth == value)) for value in (0, 1))
    return min(thinned_count(count - -(-count // folds), fraction) for count in counts)


def thinned(truth: Float[np.ndarray, " a"], *, fraction: float, seed: Sequence[int]) -> Int[np.ndarray, " k"]:
    """Positions of a random `fraction` of each class, sorted; smaller fractions of one seed lie within larger."""
    generator = np.random.default_rng(seed)
    kept = []
    for value in (0, 1):
        order = generator.permutation(np.flatnonzero(truth == value))
        kept.append(order[: thinned_count(len(order), fraction)])
    return np.sort(np.concatenate(kept))


def thinned_count(count: int, fraction: float) -> int:
    """How many of `count` patients of a class a fraction keeps: rounded, one at least."""
    return max(1, round(count * fraction))
