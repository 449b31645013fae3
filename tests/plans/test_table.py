import dataclasses
import json
import pathlib

import pytest
from compiled_step import COLLECTIVES, MIB, compiled, program, reduction

from ecgjax.plans import markdown, table
from ecgjax.plans.batch_search import Largest
from ecgjax.plans.case import Case
from ecgjax.plans.case_json import case_to_json
from ecgjax.plans.estimate import margin
from ecgjax.plans.prices import Contrast
from ecgjax.plans.topologies import parse

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "plan.md"
V5E = parse("v5e:4x4")
REFUSED = "does not fit: needs 18.14 GiB of the 15.75 GiB that XLA may use of a device"


def whole():
    return Case(V5E, compiled(), Largest(4096, 4224, ()), contrast=Contrast(128))


def fast():
    return Case(V5E, compiled(effort="fast"))


def refused():
    return Case(V5E, compiled(program=None, memory=None, cost_analysis={}, error=REFUSED))


def local():
    memory = dataclasses.replace(compiled().memory, available=None)
    return Case(parse("local:16"), compiled(topology="local:16", memory=memory))


def test_the_text_of_reports_and_overview():
    """Every number of the first report stands in test_estimate, test_scaling or plan.md. Read what changes it."""
    found = table.report(whole()) + "\n" + table.overview([whole(), fast(), refused(), local()])
    assert found == GOLDEN.read_text()


def test_columns_line_up_in_a_terminal():
    blocks = [block.splitlines() for block in table.report(whole()).split("\n\n") if block.startswith("|")]
    assert len(blocks) == 6
    assert all(len({len(line) for line in block}) == 1 for block in blocks)


def test_microseconds_of_a_small_model_are_not_rounded_away():
    assert [markdown.ms(s) for s in (0.0, 2.2e-6, 1.5e-5, 24.229e-3, None)] == [
        "0.00",
        "0.0022",
        "0.02",
        "24.23",
        "-",
    ]


@pytest.mark.parametrize("case", [whole, fast, refused, local])
def test_every_report_says_that_it_is_a_model_and_of_which_versions(case):
    text = table.report(case())
    assert "model, not measured" in text
    assert "jax 0.10.2, libtpu 0.0.42.1" in text


def test_low_effort_is_marked_and_shows_neither_cycles_nor_hbm():
    text, summary = table.report(fast()), table.overview([fast()])
    assert "with low effort" in text
    assert "low effort" in summary
    for absent in ("7.51 GB", "21.40", "10.19"):
        assert absent in table.report(whole())
        assert absent not in text
    assert "over 8.36" in summary


def test_a_step_that_does_not_fit_is_a_short_report():
    text = table.report(refused())
    assert f"It {REFUSED}." in text
    assert "time of a step" not in text
    assert REFUSED in table.overview([refused()])


def test_local_devices_have_bytes_and_no_times():
    text = table.report(local())
    assert "peak" in text
    assert "all-reduce" in text
    assert "time of a step" not in text


def test_numbers_are_of_a_chip_where_it_is_two_devices():
    topology = parse("tpu7x:2x2x4")
    record = compiled(devices=32, batch_size=1024, program=program(collectives=()))
    text = table.report(Case(topology, record))
    assert " 3,962.0 |" in text  # Peak, MiB.
    assert "2.181 TF" in text
    assert "15.02 GB" in text
    assert "64 a chip" in text
    assert "No published figure of tpu7x: " in text


def test_batch_norm_has_a_price_only_where_it_communicates():
    """Not where a target network is all that follows the parameters, nor where a chip normalises its own examples."""
    alone = program(collectives=(COLLECTIVES[0], *COLLECTIVES[2:]))
    note = "Batch norm sums nothing over chips here"
    priced, without, on_a_chip = (
        table.report(Case(V5E, record))
        for record in (compiled(), compiled(batch_norms=0), compiled(program=alone))
    )
    assert "batch norm: statistics of the global batch" in priced
    assert note not in priced
    assert "batch norm" not in without.lower()
    assert "batch norm: statistics" not in on_a_chip
    assert note in on_a_chip


def test_memory_beyond_what_xla_counts_is_said():
    """Peak and upper bound against 16,128 MiB; beside the peak lie 118 MiB of code and 4 of the next batch."""
    memory = dataclasses.replace(compiled().memory, peak=16_100 * MIB, temporaries=18_000 * MIB)
    text = table.report(Case(V5E, compiled(memory=memory)))
    assert "with its code and the next batch it is 94.0 MiB of a device too large" in text
    assert "add up to more than XLA may use" in text
    (margin,) = [line for line in text.splitlines() if line.startswith("| margin")]
    assert margin.split("|")[2:4] == ["    -94.0 ", " does not fit                               "]
    assert "activations" in text
    assert " 15,739.0 |" in text  # The peak without 361 MiB of arguments.
    fits = table.report(whole())
    assert "too large" not in fits
    assert "add up to more" not in fits


def test_predictions_that_logits_break_are_named():
    """2,048 examples a chip: 3 x 4 GiB of logits on 256 chips, of which 16 chips had 0.75."""
    record = compiled(batch_size=32_768)
    text = table.report(Case(V5E, record, contrast=Contrast(128)))
    (line,) = [line for line in text.splitlines() if line.startswith("Predicted steps")]
    assert "plain logits do not fit the 15.75 GiB" in line
    assert "2xv5e:16x16" in line
    assert "v5e:8x8" not in line
    assert "set config.objective.tile" in line
    assert "Predicted steps whose" not in table.report(whole())
    tiled = table.report(Case(V5E, record, contrast=Contrast(128, tile=512)))
    assert "Predicted steps leave out that tiles multiply with the devices" in tiled
    assert "plain logits do not fit" not in tiled


def test_sums_of_a_small_model_are_told_too():
    small = program(collectives=(reduction(1, 680_000, dtype="f32"), reduction(1, 4, dtype="f32")))
    assert "f32 0.68 MB" in table.report(Case(V5E, compiled(program=small)))


def test_what_a_local_program_hides_is_said():
    hiding = program(kernels=("__cublas$gemm: dot",), unknown_loops=2)
    text = table.report(local()._replace(compiled=dataclasses.replace(local().compiled, program=hiding)))
    assert "Not all is told here: 1 custom kernels" in text
    assert "2 loops of unknown length" in text
    assert "Not all is told" not in table.report(local())


def test_json_holds_what_the_tables_say():
    found = json.loads(json.dumps(case_to_json(whole()), allow_nan=False))
    estimate = whole().estimate
    assert found["topology"]["chips"] == 16
    assert found["upper_bound"] == 2100 * MIB
    assert found["margin"] == margin(compiled())
    assert found["large_sums"] == {"bf16": 63_800_000}
    assert found["estimate"]["samples_per_s"] == estimate.samples_per_s
    assert found["estimate"]["limit"] == estimate.limit
    assert [one["topology"] for one in found["scaling"]] == ["v5e:4x4", "v5e:8x8", "v5e:16x16", "2xv5e:16x16"]
    assert found["scaling"][2]["estimate"]["samples_per_s_chip"] > 1000
    assert [round(1e6 * one["seconds"]) for one in found["prices"]["batch_norm"]["v5e:16x16"]] == [
        3500,
        1100,
        700,
        0,
    ]
    assert [one["choice"] for one in found["prices"]["contrast"]["v5e:4x4"]] == [
        "plain logits",
        "ring of tiles",
    ]
    for case in (fast(), refused(), local()):
        assert "not measured" in json.loads(json.dumps(case_to_json(case), allow_nan=False))["note"]


def test_seconds_that_xla_would_promise_are_never_told():
    case = whole()._replace(
        compiled=compiled(cost_analysis={"optimal_seconds": -170.0, "bytes accessed": 1e9})
    )
    assert "170" not in table.report(case).replace("1,701", "")
    assert "optimal" not in table.report(case)
