import dataclasses
import pathlib

import pytest
from compiled_step import compiled, program

from ecgjax.plans import table
from ecgjax.plans.batch_search import Largest
from ecgjax.plans.case import Case
from ecgjax.plans.topologies import parse

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "plan.md"
V5E = parse("v5e:4x4")
REFUSED = "does not fit: needs 18.14 GiB of the 15.75 GiB that XLA may use of a device"


def whole():
    return Case(V5E, compiled(), Largest(4096, 4224, ()), projection=128)


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


def test_batch_norm_has_a_price_only_where_there_are_statistics():
    without = compiled(state_bytes={**compiled().state_bytes, "statistics": 0})
    assert "batch norm" in table.report(whole())
    assert "batch norm" not in table.report(Case(V5E, without))


def test_seconds_that_xla_would_promise_are_never_told():
    case = whole()._replace(
        compiled=compiled(cost_analysis={"optimal_seconds": -170.0, "bytes accessed": 1e9})
    )
    assert "170" not in table.report(case).replace("1,701", "")
    assert "optimal" not in table.report(case)
