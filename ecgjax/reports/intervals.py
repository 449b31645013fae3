"""Intervals as results hold them: of a row, of scalars by name, and where there is none."""

import math
from collections.abc import Mapping
from typing import Any

from ecgjax.metrics.bootstrap import Interval

NOTHING = Interval(math.nan, math.nan, math.nan, 0, 0)


def of_row(row: Mapping[str, Any]) -> Interval:
    """The value of a row of results with its bounds."""
    return Interval(row["value"], row["low"], row["high"], row["n"], row["subjects"])


def of_scalars(scalars: Mapping[str, float], name: str) -> Interval:
    """The scalar `name` with the bounds `name`/low and `name`/high, NaN where there are none; counts are not known."""
    return Interval(*(scalars.get(f"{name}{end}", math.nan) for end in ("", "/low", "/high")), 0, 0)
