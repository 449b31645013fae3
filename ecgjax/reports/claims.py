"""Claims that one row is better than another, decided by a paired interval and never by hand."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ecgjax.metrics.bootstrap import Interval, percentile_interval
from ecgjax.reports.intervals import NOTHING
from ecgjax.reports.probe_scores import ReportResults, ScoredRow
from ecgjax.reports.specs import check_keys

HOLDS, FAILS, OPEN = "holds", "does not hold", "not shown"
_KEYS = {"lower", "higher", "metric", "relation", "margin"}


@dataclasses.dataclass(frozen=True, eq=False)
class Verdict:
    """A claim with the paired difference `higher` - `lower` of the headline means, and what follows from it.

    `by_target` holds the same difference target by target, `by_seed` seed by seed (where both rows have as many).
    """

    lower: str
    higher: str
    relation: str
    margin: float
    metric: str
    difference: Interval
    verdict: str
    reason: str
    seeds: tuple[int, int]
    by_target: Mapping[str, Interval]
    by_seed: Float[np.ndarray, " r"]


def decide(claims: Sequence[Mapping[str, Any]], results: ReportResults) -> list[Verdict]:
    """Decides claims `{"lower", "higher", "metric": "r2" | "auroc", "relation": "<" | "<=", "margin"}`.

    "lower < higher" holds where the 95 % interval of the difference lies above 0, does not hold where it lies
    below, and is not shown otherwise. "lower <= higher" holds where the interval lies above -`margin`: equality
    can only be shown up to a margin, which the claim must state.
    """
    return [_decide(claim, f"claims[{i}]", results) for i, claim in enumerate(claims)]


def _decide(claim: Mapping[str, Any], path: str, results: ReportResults) -> Verdict:
    check_keys(claim, path, _KEYS, needed={"lower", "higher", "metric"})
    relation, margin = claim.get("relation", "<"), float(claim.get("margin", 0.0))
    if relation not in ("<", "<=") or margin < 0 or (relation == "<" and margin):
        raise ValueError(
            f"{path}: relation {relation!r} with margin {margin}; give '<', or '<=' and a margin from 0."
        )
    lower, higher = results.row(claim["lower"]), results.row(claim["higher"])
    targets = results.headline(claim["metric"])
    shared = (claim["lower"], claim["higher"], relation, margin, claim["metric"])
    seeds = (lower.seeds, higher.seeds)
    reason = _incomparable(lower, higher, targets)
    if reason:
        return Verdict(*shared, NOTHING, OPEN, reason, seeds, {}, np.zeros(0))
    difference = _difference(lower, higher, targets)
    bound = -margin if relation == "<=" else 0.0
    if difference.low > bound or (relation == "<=" and difference.low == bound):
        verdict = HOLDS
    elif difference.high < bound:
        verdict = FAILS
    else:
        verdict = OPEN
    by_target = {target: _difference(lower, higher, (target,)) for target in targets}
    paired = lower.seeds == higher.seeds
    by_seed = higher.mean_by_seed(targets) - lower.mean_by_seed(targets) if paired else np.zeros(0)
    return Verdict(*shared, difference, verdict, "", seeds, by_target, by_seed)


def _difference(lower: ScoredRow, higher: ScoredRow, targets: Sequence[str]) -> Interval:
    a, b = lower.mean(targets), higher.mean(targets)
    draws = higher.mean_draws(targets) - lower.mean_draws(targets)
    return percentile_interval(b.value - a.value, draws, n=b.n, subjects=b.subjects)


def _incomparable(lower: ScoredRow, higher: ScoredRow, targets: Sequence[str]) -> str:
    """Why no paired difference exists; empty where one does."""
    if not targets:
        return "no target to compare"
    for row in (lower, higher):
        if row.missing:
            return f"{row.name} lacks results"
        if row.scored is None:
            return f"{row.name} has no predictions to pair"
        if np.isnan(row.mean(targets).value):
            return f"{row.name} lacks a value for one of {', '.join(targets)}"
    a, b = lower.runs[0], higher.runs[0]
    if not np.array_equal(np.sort(a.record), np.sort(b.record)):
        return "the rows were evaluated on different records"
    return ""
