"""Lines of the tables that compare topologies."""

from collections.abc import Iterator

from ecgjax.plans import markdown as md
from ecgjax.plans.case import Case
from ecgjax.plans.estimate import Estimate
from ecgjax.plans.markdown import ABSENT

GIB = 2**30

COMPILED = (
    "topology",
    "batch",
    "peak GiB a chip",
    "usable",
    "model TF",
    "hardware TF",
    "HBM GB",
    "ms a step",
    "ms exposed",
    "MFU, at most",
    "samples/s a chip",
    "samples/s",
    "largest batch",
    "bound by",
)


def compiled_row(case: Case) -> tuple[str, ...]:
    """One compilation, under `COMPILED`."""
    compiled, found = case.compiled, case.estimate
    head = (case.topology.name, f"{compiled.batch_size:,}", *_peak(case))
    last = ABSENT if case.largest is None else f"{case.largest.batch:,}"
    if found is None:
        middle = (ABSENT,) * 8
        return (*head, *middle, last, compiled.error or "unknown: no facts of these chips")
    return (
        *head,
        f"{found.model_flops / 1e12:.2f}",
        f"{found.flops / 1e12:.2f}",
        ABSENT if found.hbm_bytes is None else f"{found.hbm_bytes / 1e9:.1f}",
        over(found) + md.ms(found.step_s),
        md.ms(found.exposed_s),
        f"{found.mfu:.1%}",
        f"{under(found)}{found.samples_per_s_chip:,.0f}",
        f"{under(found)}{found.samples_per_s:,.0f}",
        last,
        found.limit + (" (low effort)" if compiled.effort == "fast" else ""),
    )


SCALED = (
    "weak scaling, predicted",
    "chips",
    "batch",
    "ms a step",
    "ms exposed",
    "samples/s",
    "against compiled",
    "against no communication",
)


def scaled_rows(case: Case) -> Iterator[tuple[str, ...]]:
    """The compilation and what it predicts of larger slices, under `SCALED`."""
    effort = ", low effort" if case.compiled.effort == "fast" else ""
    for one in case.scaling:
        found, own = one.estimate, one.topology == case.topology.name
        yield (
            one.topology + (f" (compiled{effort})" if own else ""),
            f"{found.chips:,}",
            f"{found.batch_size:,}",
            over(found) + md.ms(found.step_s),
            md.ms(found.exposed_s),
            f"{under(found)}{found.samples_per_s:,.0f}",
            "100%" if own else _share(found, one.to_compiled),
            _share(found, one.to_one_chip),
        )


def over(found: Estimate) -> str:
    """Stands before what is a bound from below where the step takes longer than told."""
    return "over " if found.caveats else ""


def under(found: Estimate) -> str:
    """Stands before what is then a bound from above."""
    return "under " if found.caveats else ""


def _share(found: Estimate, value: float) -> str:
    """An efficiency; the longer a step computes, the closer to 1."""
    return f"{over(found) if value < 1 else under(found)}{value:.0%}"


def _peak(case: Case) -> tuple[str, str]:
    memory, devices = case.compiled.memory, case.topology.devices_per_chip
    if memory is None:
        return ABSENT, ABSENT
    available = ABSENT if memory.available is None else f"{devices * memory.available / GIB:.2f}"
    return f"{devices * memory.peak / GIB:.2f}", available
