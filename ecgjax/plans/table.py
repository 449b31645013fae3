"""What is known of a compiled step, as Markdown whose columns also line up in a terminal."""

from collections.abc import Callable, Iterator, Sequence

from ecgjax.plans import communication, prices
from ecgjax.plans import markdown as md
from ecgjax.plans.batch_search import Largest
from ecgjax.plans.case import NOT_MEASURED, Case
from ecgjax.plans.communication import Leg
from ecgjax.plans.estimate import Estimate, large_reductions, margin, uncounted
from ecgjax.plans.markdown import ABSENT
from ecgjax.plans.prices import Price
from ecgjax.plans.records import Collective
from ecgjax.plans.summary import COMPILED, SCALED, compiled_row, over, scaled_rows, under


def report(case: Case) -> str:
    """Everything about one topology; numbers are of a chip and a step, unless they say otherwise."""
    return "\n\n".join(_parts(case)) + "\n"


def overview(cases: Sequence[Case]) -> str:
    """One line for each compilation, and the weak scaling that those of small slices predict."""
    parts = [md.table(COMPILED, [compiled_row(case) for case in cases])]
    rows = [row for case in cases for row in scaled_rows(case)]
    if rows:
        parts.append(md.table(SCALED, rows))
    parts.append(NOT_MEASURED)
    return "\n\n".join(parts) + "\n"


def _parts(case: Case) -> Iterator[str]:
    topology, compiled, found = case.topology, case.compiled, case.estimate
    unit = "chip" if topology.chip else "device"
    sizes = {"slice": topology.slices, "host": topology.hosts, "chip": topology.chips}
    known = sizes if topology.chip else {}
    told = ", ".join(md.plural(n, noun) for noun, n in {**known, "device": topology.devices}.items())
    share = f"{compiled.batch_size / topology.chips:g} a {unit}"
    yield f"## {topology.name}: {told}; batch {compiled.batch_size:,}, {share}"
    yield "\n".join([NOT_MEASURED, *(f"The step takes longer than told here: {c}." for c in _caveats(found))])
    if found is None and compiled.program is not None:
        yield from (f"Not all is told here: {c}." for c in uncounted(compiled.program))
    if compiled.error is not None:
        yield f"It {compiled.error}."
    yield md.table((f"memory of a {unit}", "MiB", ""), list(_memory(case)))
    free = margin(compiled)
    if free is not None and free < 0:
        yield f"It compiles, but with its code and the next batch it is {md.mib(-free)} MiB of a device too large."
    memory = compiled.memory
    if memory is not None and memory.available is not None and memory.upper_bound > memory.available:
        yield (
            "Arguments, outputs and temporaries add up to more than XLA may use. It compiles, since they are never "
            "there at once; on a chip that was not tried."
        )
    if case.largest is not None:
        found_it = f"{case.largest.batch:,}; {_above(case.largest)}"
        yield (
            f"Largest batch that fits, with its code and the next batch: {found_it}. Searched with low effort, which "
            "takes a little more memory."
        )
    if compiled.program is not None:
        yield md.table((f"work of a {unit} and step", "", ""), list(_work(case)))
        yield _collectives(case)
    if found is not None:
        yield md.table(("time of a step", "", ""), list(_times(case, found)))
        if len(case.scaling) > 1:
            yield md.table(SCALED, list(scaled_rows(case)))
        if costs := _prices(case, found):
            yield costs
    yield "\n".join(_notes(case))


def _memory(case: Case) -> Iterator[tuple[str, ...]]:
    compiled, devices = case.compiled, case.topology.devices_per_chip
    for name in ("parameters", "optimiser", "statistics"):
        yield name, md.mib(devices * compiled.state_bytes[name]), ""
    memory = compiled.memory
    if memory is not None:
        of = ""
        if memory.available is not None:
            of = f"{memory.peak / memory.available:.0%} of the {md.mib(devices * memory.available)} that XLA may use"
        beyond = memory.peak - memory.arguments
        yield "activations", md.mib(devices * max(0, beyond)), "and what else the step adds at its peak"
        yield "peak", md.mib(devices * memory.peak), of
        yield (
            "upper bound",
            md.mib(devices * memory.upper_bound),
            "arguments, outputs and temporaries at once",
        )
        yield "code", md.mib(devices * memory.code), "beside the peak"
    yield "next batch", md.mib(devices * compiled.state_bytes["batch"]), "beside the peak"
    free = margin(compiled)
    if free is not None:
        yield (
            "margin",
            md.mib(devices * free),
            f"{free / memory.available:.0%}" if free >= 0 else "does not fit",
        )


def _work(case: Case) -> Iterator[tuple[str, ...]]:
    compiled, devices, chips = case.compiled, case.topology.devices_per_chip, case.topology.chips
    yield "model", md.flops(compiled.model_flops / chips), "loss and gradient, nothing repeated"
    yield (
        "hardware",
        md.flops(devices * compiled.program.flops),
        "products and convolutions as compiled",
    )
    memory = "HBM" if case.topology.chip else "memory"
    if compiled.effort == "fast":
        yield memory, ABSENT, "a low-effort compilation keeps all in HBM"
    else:
        yield memory, f"{devices * compiled.program.hbm_bytes / 1e9:.2f} GB", "read and written, as scheduled"
    sums = [
        f"{dtypes} {md.mb(devices * size)} MB" for dtypes, size in large_reductions(compiled.program).items()
    ]
    yield (
        "large sums over devices",
        "; ".join(sums) or ABSENT,
        "gradients among them, and in what they are added",
    )


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
                md.mb(sum(one.times * one.bytes for one in ones)),
                f"{group}",
                network if chip else ABSENT,
                "blocking" if blocking else "hidden",
                *_sent(legs, small),
            )
        )
    header = ("collectives", "times", "MB of buffers", "group", "network", "", "MB sent", "ms", "waits for")
    return md.table(header, rows)


def _sent(legs: list[Leg], small: bool) -> tuple[str, ...]:
    if not legs:
        return (ABSENT,) * 3
    sent, seconds = sum(one.wire_bytes for one in legs), sum(one.seconds for one in legs)
    return md.mb(sent), md.ms(seconds), "latency" if small else "bytes"


def _times(case: Case, found: Estimate) -> Iterator[tuple[str, ...]]:
    chip = case.topology.chip
    yield "FLOP roof", f"{md.ms(found.flop_s)} ms", f"{chip.flops / 1e12:g} TF/s"
    if found.hbm_s is not None:
        yield "HBM roof", f"{md.ms(found.hbm_s)} ms", f"90% of {chip.hbm_bandwidth / 1e9:,.0f} GB/s"
    if found.cycles_s is not None:
        yield (
            "compiler model",
            f"{md.ms(found.cycles_s)} ms",
            f"cycles of its kernels at {chip.clock_hz / 1e9:g} GHz",
        )
    yield (
        "exposed communication",
        f"{md.ms(found.exposed_s)} ms",
        f"of {md.ms(found.blocking_s + found.hidden_s)} ms",
    )
    yield "step", f"{over(found)}{md.ms(found.step_s)} ms", f"bound by {found.limit}"
    yield "MFU, at most", f"{found.mfu:.1%}", f"{found.hfu:.1%} with what is repeated"
    rate, input_s, host_s = found.samples_per_s_chip, found.input_bytes_per_s, found.input_bytes_per_s_host
    yield "samples", f"{under(found)}{found.samples_per_s:,.0f}/s", f"{rate:,.0f}/s a chip"
    yield "input", f"{under(found)}{input_s / 1e6:,.0f} MB/s", f"a chip; {host_s / 1e6:,.0f} MB/s a host"


def _prices(case: Case, found: Estimate) -> str | None:
    """What each choice adds to the step here and on the larger slices that are predicted."""
    places = case.places
    rows = []
    if prices.sums_statistics(found, layers=case.compiled.batch_norms):
        offers = [prices.batch_norm(found, topology) for topology, _ in places]
        rows += _compared("batch norm", offers, "ms", lambda price: md.ms(price.seconds))
    if case.contrast is not None:
        offers = [
            prices.contrastive_loss(topology, batch_size=batch_size, contrast=case.contrast)
            for topology, batch_size in places
        ]
        rows += _compared("contrast", offers, "ms", lambda price: md.ms(price.seconds))
        rows += _compared("contrast", offers, "MiB a device", lambda price: md.mib(price.memory_bytes))
    header = ("what a choice costs a step", *(topology.name for topology, _ in places))
    return md.table(header, rows) if rows else None


def _advice(case: Case) -> str:
    advised: dict[str, list[str]] = {}
    for topology, batch_size in case.places:
        offer = prices.contrastive_loss(topology, batch_size=batch_size, contrast=case.contrast)
        advised.setdefault(prices.advised(offer).choice, []).append(topology.name)
    return "; ".join(f"{choice} for {', '.join(names)}" for choice, names in advised.items())


def _growth(case: Case) -> Iterator[str]:
    """What the predictions of larger slices leave out, where it is no trifle."""
    contrast, memory = case.contrast, case.compiled.memory
    if contrast.tile is not None and case.scaling[1:]:
        yield "Predicted steps leave out that tiles multiply with the devices; their price above does not."
    if contrast.tile is not None or memory is None:
        return
    (_, here), *larger = (
        (
            topology,
            prices.contrastive_loss(topology, batch_size=batch_size, contrast=contrast)[0].memory_bytes,
        )
        for topology, batch_size in case.places
    )
    needed = {topology.name: memory.peak + logits - here for topology, logits in larger}
    too_large = [
        f"{name} ({size / 2**30:.1f} GiB)" for name, size in needed.items() if size > memory.available
    ]
    if too_large:
        yield (
            f"Predicted steps whose plain logits do not fit the {memory.available / 2**30:.2f} GiB that XLA may use of "
            f"a device: {', '.join(too_large)}; there set config.objective.tile."
        )


def _compared(
    title: str, offers: list[list[Price]], unit: str, written: Callable[[Price], str]
) -> list[tuple[str, ...]]:
    """A row for every choice that is offered on the largest slice, a cell for every slice."""
    by_choice = [{price.choice: written(price) for price in offer} for offer in offers]
    return [
        (f"{title}: {choice}, {unit}", *(cells.get(choice, ABSENT) for cells in by_choice))
        for choice in by_choice[-1]
    ]


def _notes(case: Case) -> Iterator[str]:
    compiled, chip = case.compiled, case.topology.chip
    if chip is not None and case.contrast is not None:
        yield f"Advised for the contrast: {_advice(case)}."
        yield from _growth(case)
    if (
        case.estimate
        and compiled.batch_norms
        and not prices.sums_statistics(case.estimate, layers=compiled.batch_norms)
    ):
        yield (
            "Batch norm sums nothing over chips here (one chip, groups on one, or frozen): to price its groups, plan "
            "several chips with norm_group=None."
        )
    accessed = compiled.cost_analysis.get("bytes accessed")
    if chip is not None and accessed is not None:
        yield (
            f"XLA's cost analysis counts {accessed / 1e9:.1f} GB accessed by a device, on-chip memory included and "
            f"bodies of loops once: that is not HBM traffic."
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
