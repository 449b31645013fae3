import dataclasses

import pytest
from compiled_step import compiled, program, reduction

from ecgjax.plans.estimate import estimate, large_reductions, margin
from ecgjax.plans.topologies import parse

V5E = parse("v5e:4x4")


def test_the_three_times_of_the_contrastive_step():
    """plan.md's own numbers: 5.5, 10.2 and 21.4 ms, and 24.2 ms with the communication."""
    found = estimate(compiled(), V5E)
    times = (found.flop_s, found.hbm_s, found.cycles_s, found.exposed_s, found.step_s)
    # Gradients 2 x 0.665, 98 x 15 us of batch norm, two small sums more.
    expected = (1.0905e12 / 197e12, 7.51e9 / (0.9 * 819e9), 32.1e6 / 1.5e9, 2.829e-3, 24.229e-3)
    assert times == pytest.approx(expected, rel=1e-3)
    assert found.latency_count == 100
    assert found.latency_s == pytest.approx(100 * 15e-6)
    assert found.mfu == pytest.approx(1e12 / (197e12 * found.step_s))
    assert found.hfu / found.mfu == pytest.approx(1.0905)
    assert found.samples_per_s == pytest.approx(512 / found.step_s)
    assert found.samples_per_s_chip == pytest.approx(32 / found.step_s)
    assert found.limit == "kernels (compiler model) and the latency of 100 small collectives"
    assert found.caveats == ()


def test_input_bandwidth():
    """176 MB/s a chip at 24 ms, for bytes; 4 chips a host here."""
    found = estimate(compiled(), V5E)
    assert found.input_bytes_per_s == pytest.approx(4_233_600 / found.step_s)
    assert found.input_bytes_per_s_host == pytest.approx(4 * found.input_bytes_per_s)


def hiding(*, cover, cycles):
    """Two sums of 11.2 ms each that run behind so many cycles each."""
    hidden = reduction(2, 2**29, blocking=False, cover_cycles=cover)
    return estimate(compiled(program=program(collectives=(hidden,), cycles=cycles)), V5E)


def test_communication_hides_behind_the_work_between_its_start_and_end():
    found = hiding(cover=30e6, cycles=60e6)
    assert found.exposed_s == 0
    assert found.hidden_s == pytest.approx(22.37e-3, rel=1e-3)
    half = hiding(cover=7.5e6, cycles=60e6)  # 5 ms.
    assert half.exposed_s == pytest.approx(half.hidden_s - 2 * 5e-3)


def test_communication_hides_behind_no_more_than_the_whole_step():
    """The cycles between start and end may be counted for several at once."""
    found = hiding(cover=30e6, cycles=18e6)
    assert found.exposed_s == pytest.approx(found.hidden_s - 12e-3)
    assert found.step_s == pytest.approx(found.hidden_s)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"hbm_bytes": 20e9}, "HBM"),
        ({"cycles": 1.0, "hbm_bytes": 1, "flops": 5e12}, "FLOP roof"),
        ({"collectives": (reduction(2, 2**30),)}, "communication"),
        ({"collectives": (reduction(5000, 512),)}, "the latency of 5000 small collectives"),
        ({"collectives": ()}, "kernels (compiler model)"),
    ],
)
def test_what_holds_the_step_up(changes, limit):
    changes = {name: int(x) if name == "hbm_bytes" else x for name, x in changes.items()}
    assert estimate(compiled(program=program(**{"collectives": (), **changes})), V5E).limit == limit


def test_a_low_effort_compilation_gives_a_bound_without_cycles_and_hbm():
    found = estimate(compiled(effort="fast"), V5E)
    assert (found.cycles_s, found.hbm_s, found.hbm_bytes) == (None, None, None)
    assert found.step_s == pytest.approx(found.flop_s + found.exposed_s)
    assert "low-effort" in found.caveats[0]


def test_what_the_compiler_leaves_out_is_said():
    found = estimate(compiled(program=program(cycles=None, kernels=("flash", "flash"), unknown_loops=1)), V5E)
    assert len(found.caveats) == 3
    assert found.step_s == pytest.approx(found.hbm_s + found.exposed_s)


def test_two_devices_make_a_chip():
    topology = parse("tpu7x:2x2x4")
    once = reduction(1, 2**26, group=32, span=(2, 2, 4))
    record = compiled(devices=32, batch_size=1024, program=program(collectives=(once,)))
    found = estimate(record, topology)
    assert found.chips == 16
    assert found.flops == 2 * 1.0905e12
    assert found.flop_s == pytest.approx(2 * 1.0905e12 / 2307e12)
    assert found.hbm_s == pytest.approx(2 * 7.51e9 / (0.9 * 7380e9))
    assert found.cycles_s == pytest.approx(32.1e6 / 2.2e9)  # Both cores at once.
    assert found.samples_per_s_chip == pytest.approx(64 / found.step_s)


def test_a_step_that_does_not_fit_has_no_speed():
    with pytest.raises(ValueError, match=r"v5e:4x4: does not fit"):
        estimate(compiled(program=None, memory=None, error="does not fit: 18 of 15 GiB"), V5E)
    with pytest.raises(ValueError, match=r"local:8: nothing is known"):
        estimate(compiled(), parse("local:8"))


def test_large_sums_are_told_by_dtype():
    mixed = reduction(1, 2**21, kind="reduce-scatter", dtypes=("f32", "bf16", "f32"))
    found = large_reductions(program(collectives=(*program().collectives, mixed)))
    assert found == {"bf16": 63_800_000, "bf16+f32": 2**21}


def test_of_small_sums_the_largest_is_told():
    small = (reduction(3, 600_000), reduction(1, 4, dtype="f32"))
    assert large_reductions(program(collectives=small)) == {"bf16": 1_800_000}
    assert large_reductions(program(collectives=())) == {}


def test_margin_counts_code_and_the_next_batch():
    assert margin(compiled()) == (16128 - 1981 - 118) * 2**20 - 32 * 210 * 210 * 3
    unlimited = dataclasses.replace(compiled().memory, available=None)
    assert margin(compiled(memory=unlimited)) is None
