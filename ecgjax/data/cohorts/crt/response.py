"""What counts as a response to cardiac resynchronisation: pure functions of the table's columns.

The field has no one definition, and results flip on ties, so every rule says its inequality. Values have few decimals:
differences are rounded to a millionth before they are compared, so that 30.1 to 35.1 is a rise of 5 exactly.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Float64

Definition = Literal["lvesv15", "lvef5", "super", "clinical"]
Deaths = Literal["nonresponder", "excluded"]
Column = Float64[np.ndarray, "n"]

NEEDS: Mapping[str, tuple[str, ...]] = {
    "lvesv15": ("lvesv_pre", "lvesv_post"),
    "lvef5": ("lvef_pre", "lvef_post"),
    "super": ("lvef_pre", "lvef_post"),
    "clinical": ("lvef_pre", "lvef_post", "hf_admission"),
}
"""Columns without which a definition cannot be applied."""

_DECIMALS = 6


def lvesv15(pre_ml: Column, post_ml: Column) -> Column:
    """LVESV fell by at least 15 %: the commonest rule (van Deursen 2015, He 2021, Mori 2025). NaN is unknown."""
    return _known(np.round(100 * (pre_ml - post_ml) - 15 * pre_ml, _DECIMALS) >= 0, pre_ml, post_ml)


def lvef_rise(pre: Column, post: Column, *, points: float, strict: bool) -> Column:
    """LVEF rose by `points` percentage points or more; by more than that where `strict`. NaN is unknown.

    At 5 points: `strict` False is Fernandes 2022's rule, True Larsen 2024's.
    """
    rise = np.round(post - pre, _DECIMALS)
    return _known(rise > points if strict else rise >= points, pre, post)


def super_response(pre: Column, post: Column) -> Column:
    """LVEF rose by at least 15 points (Fernandes 2022)."""
    return lvef_rise(pre, post, points=15.0, strict=False)


def clinical(pre: Column, post: Column, hf_admission: Column) -> Column:
    """LVEF rose by more than 5 points without an admission for heart failure (PMC7261585); deaths are `derive`'s.

    Where one criterion is known to fail the other need not be known.
    """
    risen = lvef_rise(pre, post, points=5.0, strict=True)
    failed = (risen == 0) | (hf_admission == 1)
    return np.where(failed, 0.0, _known(risen == 1, risen, hf_admission))


def derive(
    columns: Mapping[str, Column], *, definition: Definition, strict: bool | None, deaths: Deaths
) -> Column:
    """1 for responders, 0 for others, NaN where `columns` do not tell.

    `strict` is for "lvef5", whose authors disagree; the other definitions name their inequality, and take None. Who
    `died_before_followup` is by `deaths` no responder, or NaN: leaving the dead out flatters a treatment.
    """
    if (strict is None) == (definition == "lvef5"):
        raise ValueError(
            f"config.cohort.strict is {strict} for response {definition!r}: 'lvef5' needs False for a rise of 5 points "
            "or more (Fernandes 2022), or True for more than 5 (Larsen 2024); the others name their inequality and "
            "take None."
        )
    needed = [columns[name] for name in NEEDS[definition]]
    if definition == "lvesv15":
        response = lvesv15(*needed)
    elif definition == "lvef5":
        response = lvef_rise(*needed, points=5.0, strict=strict)
    elif definition == "super":
        response = super_response(*needed)
    else:
        response = clinical(*needed)
    return after_deaths(response, columns.get("died_before_followup"), deaths=deaths)


def after_deaths(response: Column, died: Column | None, *, deaths: Deaths) -> Column:
    """`response` with those who died before follow-up counted as `deaths` says."""
    if died is None:
        return response
    return np.where(died == 1, 0.0 if deaths == "nonresponder" else np.nan, response)


def _known(holds: np.ndarray, *values: Column) -> Column:
    """`holds` as 0 and 1, NaN where one of `values` is."""
    return np.where(np.isnan(values).any(axis=0), np.nan, holds)
