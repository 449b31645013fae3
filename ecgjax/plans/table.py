"""What is known of a compiled step, as Markdown whose columns also line up in a terminal."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ecgjax.plans import communication, prices, scaling
from ecgjax.plans.batch_search import Largest
from ecgjax.plans.communication import Leg
from ecgjax.plans.estimate import Estimate, estimate, large_reductions, margin
from ecgjax.plans.records import Collective, Compiled
from ecgjax.plans.topologies import Topology

MIB, GIB = 2**20, 2**30

NOT_MEASURED = "A model, not measured: nothing of this was run."

_ABSENT = "-"


class Case(NamedTuple):
    """One compilation; `fsdp` devices share a model, `projection` is the width of contrastive embeddings, if any."""

    topology: Topology
    compiled: Compiled
    largest: Largest | None = None
    fsdp: int = 1
    projection: int | None = None

    @property
    def estimate(self) -> Estimate | None:
        """None where the step does not fit, or nothing is known of the chips."""
        known = self.topology.chip is not None and self.compiled.program is not None
        return estimate(self.compiled, self.topology) if known else None

    @property
    def scaling(self) -> list[scaling.Prediction]:
        """Empty where larger slices cannot be told from this compilation."""
        if self.estimate is None or self.topology.slices > 1 or self.topology.devices == 1:
            return []
        targets = scaling.larger(self.topology)
        return scaling.weak_scaling(self.compiled, self.topology, targets, fsdp=self.fsdp)


def report(case: Case) -> str:
    """Everything about one topology; all numbers are of a chip and a step, unless they say otherwise."""
    return "\n\n".join(_parts(case)) + "\n"


def overview(cases: Sequence[Case]) -> str:
    """One line for each compilation, and the weak scaling that those of small slices predict."""
    parts = [_table(_SUMMARY, [_summary(case) for case in cases])]
    rows = [row for case in cases for row in _scaled(case)]
    if rows:
        parts.append(_table(_SCALED, rows))
    parts.append(NOT_MEASURED)
    return "\n\n".join(parts) + "\n"


def _parts(case: Case) -> Iterator[str]:
    topology, compiled, found = case.topology, case.compiled, case.estimate
    unit = "chip" if topology.chip else "device"
    sizes = {
        "slice": topology.slices,
        "host": topology.hosts,
        "chip": topology.chips,
        "device": topology.devices,
    }
    told = ", ".join(_plural(n, noun) for noun, n in sizes.items() if topology.chip or noun == "device")
    share = f"{compiled.batch_size / topology.chips:g} a {unit}"
    yield f"## {topology.name}: {told}; batch {compiled.batch_size:,}, {share}"
    yield "\n".join([NOT_MEASURED, *(f"The step takes longer than told here: {c}." for c in _caveats(found))])
    if compiled.error is not None:
        yield f"It {compiled.error}."
    yield _table((f"memory of a {unit}", "MiB", ""), list(_memory(case)))
    if case.largest is not None:
        yield f"Largest batch that fits: {case.largest.batch:,}; {_above(case.largest)}."
    if compiled.program is not None:
        yield _table((f"work of a {unit} and step", "", ""), list(_work(case)))
        yield _collectives(case)
    if found is not None:
        yield _table(("time of a step", "", ""), list(_times(case, found)))
        if len(case.scaling) > 1:
            yield _table(_SCALED, list(_scaled(case)))
        yield _table(
            ("what a choice costs", "ms a step", "MB sent", "MiB a device"), list(_prices(case, found))
        )
    yield "\n".join(_notes(case))


def _memory(case: Case) -> Iterator[tuple[str, ...]]:
    compiled, devices = case.compiled, case.topology.devices_per_chip
    for name, size in compiled.state_bytes.items():
        if name != "batch":
            yield name, _mib(devices * size), ""
    memory = compiled.memory
    if memory is not None:
        of = ""
        if memory.available is not None:
            of = f"{memory.peak / memory.available:.0%} of the {_mib(devices * memory.available)} that XLA may use"
        yield "peak", _mib(devices * memory.peak), of
        yield "upper bound", _mib(devices * memory.upper_bound), "arguments, outputs and temporaries at once"
        yield "code", _mib(devices * memory.code), "beside the peak"
    yield "next batch", _mib(devices * compiled.state_bytes["batch"]), "beside the peak"
    free = margin(compiled)
    if free is not None:
        yield "margin", _mib(devices * free), f"{free / memory.available:.0%}"


def _work(case: Case) -> Iterator[tuple[str, ...]]:
    compiled, devices, chips = case.compiled, case.topology.devices_per_chip, case.topology.chips
    yield "model", f"{compiled.model_flops / chips / 1e12:.3f} TF", "loss and gradient, nothing repeated"
    yield (
        "hardware",
        f"{devices * compiled.program.flops / 1e12:.3f} TF",
        "products and convolutions as compiled",
    )
    if compiled.effort == "fast":
        yield "HBM", _ABSENT, "a low-effort compilation keeps all in HBM"
    else:
        yield "HBM", f"{devices * compiled.program.hbm_bytes / 1e9:.2f} GB", "read and written, as scheduled"
    sums = [
        f"{dtypes} {_mb(devices * size)} MB" for dtypes, size in large_reductions(compiled.program).items()
    ]
    yield "large sums over devices", "; ".join(sums) or "none", "gradients among them"


def _collectives(case: Case) -> str:
    """Alike ones together; sums that wait for their way apart from those that wait for their bytes."""
    program, chip = case.compiled.program, case.topology.chip
    if not program.collectives:
        return "No collectives."
    groups: dict[tuple, list[Collective]] = {}
    for one in program.collectives:
        small = chip is not None and communication.leg(one, case.topology).latency_bound
        key = (
            one.kind,
            "+".join(sorted(set(one.dtypes))),
            one.group,
            one.network.upper(),
            one.blocking,
            small,
        )
        groups.setdefault(key, []).append(one)
    rows = []
    for (kind, dtypes, group, network, blocking, small), ones in groups.items():
        legs = [communication.leg(one, case.topology) for one in ones] if chip else []
        rows.append(
            (
                f"{kind} {dtypes}",
                f"{sum(one.times for one in ones):,}",
                _mb(sum(one.times * one.bytes for one in ones)),
                f"{group}",
                network if chip else _ABSENT,
                "blocking" if blocking else "hidden",
                *_sent(legs, small),
            )
        )
    header = ("collectives", "times", "MB of buffers", "group", "network", "", "MB sent", "ms", "waits for")
    return _table(header, rows)


def _sent(legs: list[Leg], small: bool) -> tuple[str, ...]:
    if not legs:
        return (_ABSENT,) * 3
    sent, seconds = sum(one.wire_bytes for one in legs), sum(one.seconds for one in legs)
    return _mb(sent), _ms(seconds), "latency" if small else "bytes"


def _times(case: Case, found: Estimate) -> Iterator[tuple[str, ...]]:
    chip = case.topology.chip
    yield "FLOP roof", f"{_ms(found.flop_s)} ms", f"{chip.flops / 1e12:g} TF/s"
    if found.hbm_s is not None:
        yield "HBM roof", f"{_ms(found.hbm_s)} ms", f"90% of {chip.hbm_bandwidth / 1e9:,.0f} GB/s"
    if found.cycles_s is not None:
        yield (
            "compiler model",
            f"{_ms(found.cycles_s)} ms",
            f"cycles of its kernels at {chip.clock_hz / 1e9:g} GHz",
        )
    yield (
        "exposed communication",
        f"{_ms(found.exposed_s)} ms",
        f"of {_ms(found.blocking_s + found.hidden_s)} ms",
    )
    yield "step", f"{_over(found)}{_ms(found.step_s)} ms", f"bound by {found.limit}"
    yield "MFU, at most", f"{found.mfu:.1%}", f"{found.hfu:.1%} with what is repeated"
    rate, input_s, host_s = found.samples_per_s_chip, found.input_bytes_per_s, found.input_bytes_per_s_host
    yield "samples", f"{_under(found)}{found.samples_per_s:,.0f}/s", f"{rate:,.0f}/s a chip"
    yield "input", f"{_under(found)}{input_s / 1e6:,.0f} MB/s", f"a chip; {host_s / 1e6:,.0f} MB/s a host"


_SCALED = (
    "weak scaling, predicted",
    "chips",
    "batch",
    "ms a step",
    "ms exposed",
    "samples/s",
    "against compiled",
    "against no communication",
)


def _scaled(case: Case) -> Iterator[tuple[str, ...]]:
    for one in case.scaling:
        found = one.estimate
        yield (
            one.topology + (" (compiled)" if one.topology == case.topology.name else ""),
            f"{found.chips:,}",
            f"{found.batch_size:,}",
            _over(found) + _ms(found.step_s),
            _ms(found.exposed_s),
            f"{_under(found)}{found.samples_per_s:,.0f}",
            f"{_over(found)}{one.to_compiled:.0%}",
            f"{_over(found)}{one.to_one_chip:.0%}",
        )


def _prices(case: Case, found: Estimate) -> Iterator[tuple[str, ...]]:
    if case.compiled.state_bytes["statistics"]:  # No batch norm without.
        for price in prices.batch_norm(found, case.topology):
            yield f"batch norm: {price.choice}", _ms(price.seconds), _mb(price.wire_bytes), _ABSENT
    if case.projection is None:
        return
    choices = prices.contrastive_loss(
        case.topology, batch_size=case.compiled.batch_size, projection=case.projection
    )
    best = prices.advised(choices)
    for price in choices:
        name = f"contrastive loss: {price.choice}" + (" (advised)" if price is best else "")
        yield name, _ms(price.seconds), _mb(price.wire_bytes), _mib(price.memory_bytes)


_SUMMARY = (
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


def _summary(case: Case) -> tuple[str, ...]:
    compiled, found = case.compiled, case.estimate
    head = (case.topology.name, f"{compiled.batch_size:,}", *_peak(case))
    last = _ABSENT if case.largest is None else f"{case.largest.batch:,}"
    if found is None:
        middle = (_ABSENT,) * 8
        return (*head, *middle, last, compiled.error or "unknown: no facts of these chips")
    return (
        *head,
        f"{found.model_flops / 1e12:.2f}",
        f"{found.flops / 1e12:.2f}",
        _ABSENT if found.hbm_bytes is None else f"{found.hbm_bytes / 1e9:.1f}",
        _over(found) + _ms(found.step_s),
        _ms(found.exposed_s),
        f"{found.mfu:.1%}",
        f"{_under(found)}{found.samples_per_s_chip:,.0f}",
        f"{_under(found)}{found.samples_per_s:,.0f}",
        last,
        found.limit + (" (low effort)" if compiled.effort == "fast" else ""),
    )


def _peak(case: Case) -> tuple[str, str]:
    memory, devices = case.compiled.memory, case.topology.devices_per_chip
    if memory is None:
        return _ABSENT, _ABSENT
    available = _ABSENT if memory.available is None else f"{devices * memory.available / GIB:.2f}"
    return f"{devices * memory.peak / GIB:.2f}", available


def _notes(case: Case) -> Iterator[str]:
    compiled, chip = case.compiled, case.topology.chip
    accessed = compiled.cost_analysis.get("bytes accessed")
    if accessed is not None:
        yield (
            f"XLA's cost analysis counts {accessed / 1e9:.1f} GB accessed by a device: on-chip memory too, and bodies of "
            f"loops once. That is not HBM traffic."
        )
    if chip is not None and chip.assumed:
        yield f"No published figure of {chip.name}: {', '.join(chip.assumed)}."
    effort = "with low effort, " if compiled.effort == "fast" else ""
    when = "earlier" if compiled.cached else f"in {compiled.seconds:.0f} s"
    versions = ", ".join(f"{name} {version}" for name, version in sorted(compiled.versions.items()))
    yield f"Compiled {effort}{when}: {versions}."


def _caveats(found: Estimate | None) -> tuple[str, ...]:
    return () if found is None else found.caveats


def _above(largest: Largest) -> str:
    return "none found that does not fit" if largest.above is None else f"{largest.above:,} does not fit"


def _over(found: Estimate) -> str:
    """Stands before what is a bound from below where the step takes longer than told."""
    return "over " if found.caveats else ""


def _under(found: Estimate) -> str:
    return "under " if found.caveats else ""


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _ms(seconds: float | None) -> str:
    return _ABSENT if seconds is None else f"{1e3 * seconds:,.2f}"


def _mb(size: float) -> str:
    return f"{size / 1e6:,.2f}"


def _mib(size: float) -> str:
    return f"{size / MIB:,.1f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column to the left, numbers to the right, as wide as their longest cell."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    numbers = [all(_is_number(line[i]) for line in lines[1:]) for i in range(len(header))]

    def written(line):
        cells = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(line, widths, numbers, strict=True))
        return f"| {' | '.join(cells)} |"

    rule = (f"{'-' * (w + 1)}:" if n else f"{'-' * (w + 2)}" for w, n in zip(widths, numbers, strict=True))
    return "\n".join([written(lines[0]), f"|{'|'.join(rule)}|", *(written(line) for line in lines[1:])])


def _is_number(cell: str) -> bool:
    return cell == _ABSENT or cell.removeprefix("over ").removeprefix("under ")[:1].isdigit()
