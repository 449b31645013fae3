import pytest

from ecgjax.plans.communication import latency, leg, wire_bytes
from ecgjax.plans.records import Collective
from ecgjax.plans.topologies import parse


def collective(kind="all-reduce", size=2**22, *, group=16, span=(4, 4), times=1, hops=0.0, network="ici"):
    return Collective(
        kind=kind,
        times=times,
        bytes=size,
        group=group,
        network=network,
        blocking=True,
        dtypes=("f32",),
        span=span,
        hops=hops,
        name="",
    )


MB = pytest.approx


@pytest.mark.parametrize(
    ("given", "megabytes"),
    [
        (collective(), 7.864),  # A sum of 2^20 float32 over 4 x 4.
        (collective(size=2**21), 3.932),  # The same in bfloat16.
        (collective(group=4, span=(1, 4)), 6.291),
        (collective("all-gather", 2**26), 62.915),
        (collective("reduce-scatter", 2**26), 62.915),
        (collective("all-to-all", 2**26), 62.915),
        (collective("permute", hops=1.0, times=15), 62.915),
        (collective("permute", hops=3.0), 12.583),
        (collective("send", 2**18, network="dcn", span=(), group=2), 0.262),
    ],
)
def test_bytes_that_leave_a_chip(given, megabytes):
    assert leg(given, parse("v5e:4x4")).wire_bytes / 1e6 == MB(megabytes, abs=5e-4)


@pytest.mark.parametrize(
    ("group", "span", "expected"),
    [
        (32, (2, 2, 4), 2 * 2**22 * 15 / 16),  # Both devices of 16 chips: they meet within the chip.
        (16, (2, 2, 4), 2 * 2 * 2**22 * 15 / 16),  # One of each: two such groups share the links.
        (2, (1, 1, 1), 0.0),  # Never leaves the chip.
    ],
)
def test_two_devices_of_a_chip_share_its_links(group, span, expected):
    assert wire_bytes(collective(group=group, span=span), parse("tpu7x:2x2x4")) == expected


@pytest.mark.parametrize(
    ("topology", "span", "microseconds"),
    [
        ("v5e:4x4", (4, 4), 15),  # 3 + 3 hops there and back, and 3 us.
        ("v5e:16x16", (16, 16), 35),  # Closed rings: 8 + 8.
        ("v5p:4x8x8", (4, 8, 8), 23),
        ("v5e:16x16", (1, 16), 19),
        ("v5e:16x16", (2, 2), 7),
        ("v5e:16x16", (1, 1), 3),
    ],
)
def test_latency_of_an_all_reduce(topology, span, microseconds):
    given = collective(group=span[0] * span[-1], span=span, size=512)
    assert latency(given, parse(topology)) == pytest.approx(1e-6 * microseconds)
    assert leg(given, parse(topology)).latency_bound


def test_latency_of_one_way_and_of_neighbours():
    gather = collective("all-gather", 512)
    assert latency(gather, parse("v5e:4x4")) == pytest.approx(9e-6)
    assert latency(collective("permute", 512, hops=1.0), parse("v5e:4x4")) == pytest.approx(4e-6)
    assert latency(collective("send", 512, network="dcn", span=()), parse("2xv5e:4x4")) == pytest.approx(
        75e-6
    )


@pytest.mark.parametrize(
    ("topology", "given", "milliseconds"),
    [
        # The gradients of the contrastive step, 64.5 MB: two open axes of 45 GB/s, then two closed ones.
        ("v5e:4x4", collective(size=64_480_000), 1.34),
        ("v5e:16x16", collective(size=77_250_000, group=256, span=(16, 16)), 0.855),
        ("v5p:4x8x8", collective(size=77_250_000, group=256, span=(4, 8, 8)), 0.285),
        ("v5e:16x16", collective(size=45_000_000, group=16, span=(1, 16)), 0.9375),
        ("v5e:4x4", collective("permute", 45_000_000, hops=3.0), 3.0),
        ("v5e:4x4", collective("all-to-all", 45_000_000), 1.0),  # 4 / 4 of the buffer over one open axis.
        ("v5e:16x16", collective("all-to-all", 45_000_000, group=256, span=(16, 16)), 2.0),
        ("2xv5e:4x4", collective("send", 3_125_000, network="dcn", span=(), group=2), 1.0),
    ],
)
def test_time_of_large_buffers(topology, given, milliseconds):
    found = leg(given, parse(topology))
    assert 1e3 * found.seconds == pytest.approx(milliseconds, rel=5e-3)
    assert not found.latency_bound


def test_executions_add_up():
    once, often = (leg(collective(times=times), parse("v5e:4x4")) for times in (1, 49))
    assert often.seconds == pytest.approx(49 * once.seconds)
    assert often.wire_bytes == pytest.approx(49 * once.wire_bytes)
