"""The training step of a config, compiled for TPU slices without a TPU: what it needs and how fast it may be."""

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from ecgjax.core import config as configs
from ecgjax.core import files, runtime
from ecgjax.objectives import OBJECTIVES
from ecgjax.plans import batch_search, environment, table, topologies
from ecgjax.plans.case import Case
from ecgjax.plans.case_json import case_to_json
from ecgjax.plans.estimate import margin
from ecgjax.plans.prices import Contrast
from ecgjax.plans.records import Compiled
from ecgjax.plans.topologies import Topology
from ecgjax.runs import planned_data
from ecgjax.runs.assemble import DATA_FIELDS, SECTIONS
from ecgjax.runs.planned_step import Request, compile_apart

_OF_PAIRS = ("cross_modal", "simclr")
"""Objectives whose loss compares every example of the batch with every other."""

_VIEWS = {"nt_xent": 2, "supcon": 2}
"""How many views of an example are on either side of the logits; of other contrasts one."""

_NAME_LENGTH = 100
"""Of a collective; one that XLA made of many has the names of all."""

_SUBLANES = 8
"""Batches are searched in multiples of so many a device: on a TPU fewer are padded to as many."""


class Planned(NamedTuple):
    """What was compiled, and one line for everything that could not be."""

    cases: list[Case]
    failures: list[str]

    def text(self, *, verbose: bool = False) -> str:
        """All reports, a table of them where there are several, and what failed."""
        parts = [table.report(case) + (_every_collective(case) if verbose else "") for case in self.cases]
        if len(self.cases) > 1:
            parts.append(table.overview(self.cases))
        return "\n".join([*parts, *(f"Not planned: {failure}" for failure in self.failures)])

    def write_json(self, path: epath.PathLike) -> None:
        """Writes everything that is known."""
        cases = [case_to_json(case) for case in self.cases]
        files.write_json(path, {"cases": cases, "failures": self.failures})


def plan(
    config: ConfigDict,
    *,
    topology: Sequence[str],
    examples_per_chip: Sequence[int] = (),
    recipe: str,
    fast: bool = False,
    largest_batch: bool = False,
    time_limit: float,
    cache: str | None,
) -> Planned:
    """Compiles for every topology and batch.

    What fails for another reason than memory is said and left out, since its successors may take an hour; that
    nothing was compiled is an error.
    """
    configs.check_sections(config, SECTIONS)
    config = configs.plain(config)
    configs.check_sections(config["data"], DATA_FIELDS, "config.data")
    configs.check_set(config, "steps")
    where = [topologies.parse(name) for name in topology]
    steps = [
        (one, _with_batch(config, one, share)) for one in where for share in examples_per_chip or (None,)
    ]
    if any(one.chip for one in where):
        environment.check_libtpu()
    data, words = planned_data.data_of(config, recipe)
    runtime.say(words)

    def compile_step(config: Mapping[str, Any], one: Topology, effort: str) -> Compiled:
        name = f"{one.name}, batch {config['data']['batch_size']}"
        runtime.say(f"{name}: compiling{' fast' if effort == 'fast' else ''}, at most {time_limit:.0f} s")
        request = Request(config, data, one.name, effort, cache)
        compiled = compile_apart(request, time_limit=time_limit, say=runtime.say)
        found = "found the report of an earlier compilation" if compiled.cached else _said(compiled)
        runtime.say(f"{name}: {found}.")
        return compiled

    cases, failures = [], []
    for one, own in steps:
        compiled = found = None
        try:
            # Other compilers than that of TPUs know no effort.
            compiled = compile_step(own, one, "fast" if fast and one.chip else "full")
            found = _largest(own, one, compiled, compile_step) if largest_batch else None
        except ValueError as error:
            if len(steps) == 1 and compiled is None:
                raise
            failures.append(str(error))
            runtime.say(failures[-1])
        if compiled is not None:
            cases.append(Case(one, compiled, found, fsdp=config["mesh"]["fsdp"], contrast=_contrast(config)))
    if not cases:
        raise ValueError(f"nothing was planned; the last of {len(steps)} said: {failures[-1]}")
    return Planned(cases, failures)


def _contrast(config: Mapping[str, Any]) -> Contrast | None:
    """What the loss compares; what a config leaves out is as the objective has it."""
    section = config["objective"]
    if section["name"] not in _OF_PAIRS:
        return None
    defaults = {field.name: field.default for field in dataclasses.fields(OBJECTIVES[section["name"]])}
    chosen = {**defaults, **section}
    return Contrast(
        chosen["projection"],
        views=_VIEWS.get(chosen["contrast"], 1),
        parts=config["accumulate"],
        tile=chosen["tile"],
    )


def _with_batch(
    config: Mapping[str, Any], topology: Topology, examples_per_chip: int | None
) -> dict[str, Any]:
    """The config for this topology, whose slices are what it has; raises where its devices do not divide the batch."""
    config = copy.deepcopy(dict(config))
    config["mesh"]["slices"] = topology.slices
    if examples_per_chip is not None:
        config["data"]["batch_size"] = examples_per_chip * topology.chips
    batch = config["data"]["batch_size"]
    if batch % topology.devices:
        even = f", a multiple of {topology.devices_per_chip}" if topology.devices_per_chip > 1 else ""
        raise ValueError(
            f"--topology={topology.name}: its {topology.devices} devices do not divide a batch of {batch}; give "
            f"--examples_per_chip=N{even}, or another config.data.batch_size."
        )
    return config


def _largest(config, topology: Topology, compiled: Compiled, compile_step) -> batch_search.Largest:
    """Searches fast, and lowers what it finds until it fits with the effort of `compiled` too.

    What fits is what compiles and leaves room for the program's code and for the next batch.
    """
    available = topology.chip.usable_bytes if topology.chip else None
    if available is None:
        raise ValueError(f"--largest_batch: nobody knows what {topology.name} can hold; give a TPU topology.")
    step = _batch_step(config, topology.devices)

    def probe(batch: int, effort: str = "fast") -> batch_search.Probe:
        changed = copy.deepcopy(dict(config))
        changed["data"]["batch_size"] = batch
        found = compile_step(changed, topology, effort)
        free = margin(found)
        if free is None:
            return batch_search.Probe(batch, False, found.needed)
        return batch_search.Probe(batch, free >= 0, available - free)

    found = batch_search.largest(probe, available=available, start=config["data"]["batch_size"], step=step)
    while compiled.effort == "full" and found.batch and not (verdict := probe(found.batch, "full")).fits:
        found = batch_search.Largest(found.batch - step, found.batch, (*found.probes, verdict))
    return found


def _batch_step(config: Mapping[str, Any], devices: int) -> int:
    """Batches of which this divides every one can be cut as the config says: in parts, tiles and groups."""
    objective, parts = config["objective"], config["accumulate"] * config["grad_cache"]
    share = math.lcm(_SUBLANES, parts, config["accumulate"] * (objective.get("tile") or 1))
    groups = [section.get("norm_group") for section in objective.values() if isinstance(section, Mapping)]
    return math.lcm(share * devices, *(parts * group for group in groups if group))


def _said(compiled: Compiled) -> str:
    if compiled.error is not None:
        return compiled.error
    return f"compiled in {compiled.seconds:.0f} s, host memory {compiled.host_bytes / 2**30:.1f} GiB"


def _every_collective(case: Case) -> str:
    found = case.compiled.program.collectives if case.compiled.program else ()
    return "".join(
        f"{one.times:,} x {one.kind} {'+'.join(one.dtypes)} {one.bytes:,} B, groups of {one.group} spanning "
        f"{'x'.join(map(str, one.span)) or '-'}, {one.network}, {'blocking' if one.blocking else 'hidden'}: "
        f"{one.name[:_NAME_LENGTH]}\n"
        for one in found
    )
