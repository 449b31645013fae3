"""Columns as model inputs: those that know the outcome are refused, gaps are filled by the training patients."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from ecgjax.response.comparators.logistic import standardised

_KNOWS_THE_OUTCOME = re.compile(
    r"(^|_)(post|after|change|delta|response|responder|outcome|followup|follow_up|died|dead|death|alive|event"
    r"|hospitalisation|hospitalization|fold|split)(_|$)"
)


def refuse_outcomes(columns: Sequence[str]) -> None:
    """Raises where a column's name says that it was not known before implantation."""
    for name in columns:
        if _KNOWS_THE_OUTCOME.search(name.lower()):
            raise ValueError(
                f"column {name!r} is known only after implantation, or is the outcome itself; a contender may not "
                "read it: leave it out of the inputs."
            )


def chosen_columns(
    columns: Mapping[str, Float[np.ndarray, " n"]], names: Sequence[str]
) -> Float[np.ndarray, "n d"]:
    """The named columns side by side; raises where one is unknown or knows the outcome."""
    refuse_outcomes(names)
    if not names:
        raise ValueError("no input column; name at least one.")
    for name in names:
        if name not in columns:
            raise ValueError(f"no column {name!r}; choose from {', '.join(sorted(columns))}.")
    return np.stack([columns[name] for name in names], axis=1).astype(np.float64)


def filled(
    train: Float[np.ndarray, "a d"], test: Float[np.ndarray, "b d"]
) -> tuple[Float[np.ndarray, "a e"], Float[np.ndarray, "b e"]]:
    """Both with gaps at the training median and standardised by the training patients.

    A column that has gaps in training gets an indicator of them beside it; one without any known training value
    tells nothing and becomes zero, as does a constant one.
    """
    gaps = np.isnan(train)
    empty = gaps.all(axis=0)
    median = np.zeros(train.shape[1])
    median[~empty] = np.nanmedian(train[:, ~empty], axis=0)
    marked = gaps.any(axis=0) & ~empty
    widened = []
    for x in (train, test):
        x = np.where(empty, 0.0, x)
        missing = np.isnan(x)
        widened.append(np.append(np.where(missing, median, x), missing[:, marked].astype(float), axis=1))
    fitted, asked = standardised(*widened)
    return fitted, asked
