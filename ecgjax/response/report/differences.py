"""Whether transfer helps: paired differences of one contender against the others, and the sentence that follows."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ecgjax.metrics.bootstrap import Interval, percentile_interval
from ecgjax.metrics.draws import auroc_draws
from ecgjax.metrics.paired import McNemar, mcnemar
from ecgjax.metrics.repeated import patient_draws, pooled
from ecgjax.reports.tables import signed
from ecgjax.response.report.contenders import Contender, CrossValidated

HELPS, NO_EVIDENCE = "Transfer helps", "No evidence that transfer helps"


@dataclasses.dataclass(frozen=True, eq=False)
class Difference:
    """AUROC of the contender minus that of `other` on the patients both evaluate; `reason` why there is none.

    `mcnemar` compares their decisions (of most repeats; at Youden's threshold or by the rule), None where one decides
    nothing.
    """

    other: str
    auroc: Interval | None
    mcnemar: McNemar | None
    repeats: int
    left_out: int
    reason: str = ""

    @property
    def above(self) -> bool:
        """Whether the interval lies above 0."""
        return self.auroc is not None and self.auroc.low > 0


@dataclasses.dataclass(frozen=True, eq=False)
class Judgement:
    """Every difference, and whether those in `required` all lie above 0.

    `leaks` names contenders, of those this rests on, that predict permuted labels: then nothing is shown.
    """

    contender: str
    differences: tuple[Difference, ...]
    required: tuple[str, ...]
    leaks: tuple[str, ...] = ()

    @property
    def helps(self) -> bool:
        """Whether the interval against everything required excludes 0 from above; with nothing required, no."""
        needed = [difference for difference in self.differences if difference.other in self.required]
        return not self.leaks and len(needed) > 0 and all(difference.above for difference in needed)

    @property
    def sentence(self) -> str:
        """The verdict with what it rests on."""
        if self.leaks:
            return (
                f"{NO_EVIDENCE}: {' and '.join(self.leaks)} predicts permuted labels. Something leaks, and until it is "
                "found no difference counts."
            )
        found = {difference.other: difference for difference in self.differences}
        parts = [_said(found[name]) for name in self.required]
        if self.helps:
            intervals = (
                "the interval of the difference excludes" if len(parts) == 1 else "all intervals exclude"
            )
            return (
                f"{HELPS}: the AUROC of {self.contender} is higher than that of {' and of '.join(self.required)}, and "
                f"{intervals} 0 ({'; '.join(parts)})."
            )
        rest = "; ".join(parts) or "nothing was required to be beaten"
        return (
            f"{NO_EVIDENCE}: {self.contender} would have to beat {' and '.join(self.required)} with intervals that "
            f"exclude 0 ({rest})."
        )


def judge(
    found: CrossValidated,
    name: str,
    *,
    against: Sequence[str],
    required: Sequence[str],
    draws: int = 2000,
    seed: int = 0,
) -> Judgement:
    """Compares contender `name` with each of `against`, which hold `required`, on the same draws of patients."""
    if outside := set(required) - set(against):
        raise ValueError(
            f"required names {sorted(outside)}, which is not among against = {', '.join(against)}."
        )
    for each in (name, *against):
        if found.find(each) is None and not found.missing:
            known = ", ".join(contender.name for contender in found.contenders)
            raise ValueError(f"no contender is shown as {each!r}; choose from {known}.")
    first = found.find(name)
    differences = tuple(
        _difference(found, name, first, other, found.find(other), draws=draws, seed=seed) for other in against
    )
    leaks = tuple(each for each in (name, *required) if (one := found.find(each)) is not None and one.leaks)
    return Judgement(name, differences, tuple(required), leaks)


def _difference(
    found, name, first: Contender | None, other, second: Contender | None, *, draws, seed
) -> Difference:
    if first is None or second is None:
        absent = name if first is None else other
        return Difference(other, None, None, 0, 0, f"{absent} is missing")
    repeats = min(len(first.score), len(second.score))
    a, b = first.score[:repeats], second.score[:repeats]
    keep = ~np.isnan(a).any(axis=0) & ~np.isnan(b).any(axis=0)
    truth, left_out = found.truth[keep], int(np.sum(~keep))
    if len(np.unique(truth)) < 2:
        return Difference(other, None, None, repeats, left_out, "those whom both evaluate have one outcome")
    counts = patient_draws(truth, draws=draws, seed=seed)
    drawn = pooled(auroc_draws, truth, a[:, keep], counts) - pooled(auroc_draws, truth, b[:, keep], counts)
    auroc = percentile_interval(drawn[0], drawn[1:], n=len(truth), subjects=len(truth))
    decisions = [each.decision[:repeats, keep] for each in (first, second)]
    test = None
    if not any(np.isnan(decision).any() for decision in decisions):
        test = mcnemar(*((decision.mean(axis=0) > 0.5) == (truth == 1) for decision in decisions))
    return Difference(other, auroc, test, repeats, left_out)


def _said(difference: Difference) -> str:
    if difference.auroc is None:
        return f"against {difference.other}: {difference.reason}"
    found = difference.auroc
    return (
        f"against {difference.other} {signed(found.value)}, 95 % {signed(found.low)} to {signed(found.high)}"
    )
