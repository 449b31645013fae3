"""Everything that the tables say of a compilation, unrounded, as plain JSON."""

import dataclasses
from typing import Any

from ecgjax.plans import prices
from ecgjax.plans.case import NOT_MEASURED, Case
from ecgjax.plans.estimate import Estimate, large_reductions, margin
from ecgjax.plans.prices import Price
from ecgjax.plans.records import to_json
from ecgjax.plans.topologies import Topology


def case_to_json(case: Case) -> dict[str, Any]:
    """The compilation as it is stored, and what follows from it; bytes of a device, times of a step."""
    compiled, found = case.compiled, case.estimate
    memory, program = compiled.memory, compiled.program
    return {
        "topology": _topology(case.topology),
        "compiled": to_json(compiled),
        "upper_bound": memory and memory.upper_bound,
        "margin": margin(compiled),
        "large_sums": program and large_reductions(program),
        "estimate": found and _estimate(found),
        "largest_batch": case.largest and dataclasses.asdict(case.largest),
        "scaling": [{**dataclasses.asdict(one), "estimate": _estimate(one.estimate)} for one in case.scaling],
        "prices": {} if found is None else _prices(case, found),
        "note": NOT_MEASURED,
    }


def _topology(topology: Topology) -> dict[str, Any]:
    names = ("name", "generation", "slices", "hosts", "chips", "devices", "devices_per_chip")
    return {name: getattr(topology, name) for name in names}


def _estimate(found: Estimate) -> dict[str, Any]:
    derived = ("compute_s", "samples_per_s", "samples_per_s_chip", "limit")
    return dataclasses.asdict(found) | {name: getattr(found, name) for name in derived}


def _prices(case: Case, found: Estimate) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """By choice and topology."""
    offers: dict[str, dict[str, list[Price]]] = {}
    if prices.sums_statistics(found, layers=case.compiled.batch_norms):
        offers["batch_norm"] = {t.name: prices.batch_norm(found, t) for t, _ in case.places}
    if case.contrast is not None:
        offers["contrast"] = {
            topology.name: prices.contrastive_loss(topology, batch_size=size, contrast=case.contrast)
            for topology, size in case.places
        }
    return {
        kind: {name: [dataclasses.asdict(price) for price in some] for name, some in by_name.items()}
        for kind, by_name in offers.items()
    }
