import pytest
from compiled_step import EMBEDDINGS, compiled, program, reduction

from ecgjax.plans.estimate import estimate
from ecgjax.plans.prices import Contrast, advised, batch_norm, box, contrastive_loss, sums_statistics
from ecgjax.plans.scaling import larger, rescaled, weak_scaling
from ecgjax.plans.topologies import parse

PAIRS = Contrast(projection=128)
SMALL, LARGE = parse("v5e:4x4"), parse("v5e:16x16")


def by_kind(record):
    return [(c.kind, c.times, c.bytes, c.group, c.span) for c in record.program.collectives]


def test_a_full_pod_from_sixteen_chips():
    """24.2 ms become 25.7, an efficiency of 94 %: gradients get wrapped links, batch norm a longer way."""
    here, there = weak_scaling(compiled(), SMALL, [LARGE])
    assert here.estimate.step_s == pytest.approx(24.2e-3, rel=5e-3)
    assert there.estimate.step_s == pytest.approx(25.7e-3, rel=2e-3)
    assert there.to_compiled == pytest.approx(0.942, abs=5e-3)
    assert here.to_one_chip == pytest.approx(21.4 / 24.2, abs=5e-3)
    assert there.to_one_chip == pytest.approx(21.4 / 25.7, abs=5e-3)
    assert there.estimate.batch_size == 16 * 512
    assert there.estimate.model_flops == here.estimate.model_flops  # Of a chip.
    assert there.estimate.latency_s == pytest.approx(99 * 35e-6)
    assert there.estimate.hidden_s == 0  # Padded sums of embeddings block.


def test_embeddings_grow_with_the_batch_and_become_padded_sums():
    everything = (256, (16, 16))
    assert by_kind(rescaled(compiled(), SMALL, LARGE)) == [
        ("all-reduce", 2, 31_900_000, *everything),
        ("all-reduce", 98, 6_000, *everything),
        ("all-reduce", 1, 16 * EMBEDDINGS, *everything),  # The gradient of what was gathered.
        ("all-reduce", 1, 4, *everything),
        ("all-reduce", 2, 16 * EMBEDDINGS, *everything),
    ]


def test_a_gradient_of_embeddings_is_told_by_its_bytes_and_dtype():
    """It may have merged with a few others; subjects that are gathered are no statistics of 512 channels."""
    given = (
        reduction(1, 2**17, dtype="f32", kind="all-gather"),
        reduction(1, 2**17 + 1280, dtype="f32"),
        reduction(1, 2048, dtype="u32", kind="all-gather"),
        reduction(1, 2048, dtype="f32"),
    )
    record = rescaled(compiled(program=program(collectives=given)), SMALL, parse("v5e:8x8"))
    assert [c.bytes for c in record.program.collectives] == [2**19, 4 * (2**17 + 1280), 2**13, 2048]


def test_a_pod_sends_the_bytes_that_a_compilation_for_it_sends():
    """153.9 MB a chip in all; 120.9 in sums on sixteen."""
    sums = estimate(compiled(), SMALL).legs
    assert sum(x.wire_bytes for x in sums if x.collective.kind == "all-reduce") / 1e6 == pytest.approx(
        120.9, rel=0.01
    )
    assert sum(x.wire_bytes for x in estimate(rescaled(compiled(), SMALL, LARGE), LARGE).legs) / 1e6 == (
        pytest.approx(153.9, rel=0.01)
    )


def test_groups_that_share_a_model_and_groups_of_batch_norm_stay():
    given = (
        reduction(3, 2**20, group=2, span=(1, 2), kind="all-gather"),  # Of fsdp=2.
        reduction(5, 2**20, group=8, span=(4, 2)),  # Over the data.
        reduction(7, 512, group=4, span=(2, 2)),
        reduction(32, 512, kind="permute", group=16, span=(), hops=1.0),  # A ring, there and back.
        reduction(3, 512, kind="permute", group=16, span=(), hops=1.0),
    )
    record = rescaled(compiled(program=program(collectives=given)), SMALL, parse("v5e:8x8"), fsdp=2)
    assert by_kind(record) == [
        ("all-gather", 3, 2**20, 2, (1, 2)),
        ("all-reduce", 5, 2**20, 32, (8, 4)),
        ("all-reduce", 7, 512, 4, (2, 2)),
        ("permute", 128, 512, 16, ()),
        ("permute", 3, 512, 16, ()),
    ]


def test_where_both_groups_are_equal_gathers_are_of_the_model():
    given = (
        reduction(1, 64, group=4, span=(1, 4), kind="all-gather"),
        reduction(1, 64, group=4, span=(4, 1)),
    )
    record = rescaled(compiled(program=program(collectives=given)), SMALL, LARGE, fsdp=4)
    assert by_kind(record) == [("all-gather", 1, 64, 4, (1, 4)), ("all-reduce", 1, 64, 64, (16, 4))]


def test_between_slices_a_chip_sends_its_share():
    """A sum of 4 MiB over two slices of 16 chips sends 256 KiB from each."""
    given = compiled(program=program(collectives=(reduction(1, 2**22),)))
    inside, across = rescaled(given, SMALL, parse("2xv5e:4x4")).program.collectives
    assert (inside.group, inside.network, inside.bytes) == (16, "ici", 2**22)
    assert (across.kind, across.group, across.network, across.bytes) == ("send", 2, "dcn", 2**18)
    four = rescaled(given, SMALL, parse("4xv5e:4x4")).program.collectives[1]
    assert four.bytes == 2**18 * 3 // 2


def test_a_ring_over_slices_waits_for_the_network_between_them():
    ring = reduction(32, 512, kind="permute", group=16, span=(), hops=1.0)
    (longer,) = rescaled(
        compiled(program=program(collectives=(ring,))), SMALL, parse("2xv5e:4x4")
    ).program.collectives
    assert (longer.times, longer.network) == (64, "dcn")


@pytest.mark.parametrize(
    ("here", "there", "fsdp"),
    [
        ("v5e:4x4", "v5p:4x8x8", 1),
        ("v5e:4x4", "v5e:2x2", 1),
        ("v5e:1x1", "v5e:4x4", 1),
        ("2xv5e:4x4", "2xv5e:8x8", 1),
        ("v5e:4x4", "v5e:8x8", 16),
    ],
)
def test_what_holds_no_sums_over_copies_in_one_slice_predicts_nothing(here, there, fsdp):
    with pytest.raises(ValueError, match=f"says nothing of {there}"):
        rescaled(compiled(), parse(here), parse(there), fsdp=fsdp)


def test_larger_slices():
    assert [t.name for t in larger(SMALL)] == ["v5e:8x8", "v5e:16x16", "2xv5e:16x16"]
    assert [t.name for t in larger(parse("v5p:4x4x4"))] == ["v5p:4x8x8", "2xv5p:4x8x8"]


def test_batch_norm_costs_its_latency():
    """100 small sums: 15 us each on sixteen chips, 35 on 256; 7 within four neighbours, 11 within eight."""
    small, large = (batch_norm(estimate(compiled(), SMALL), topology) for topology in (SMALL, LARGE))
    assert [round(1e6 * price.seconds) for price in small] == [1500, 1100, 700, 0]
    assert [round(1e6 * price.seconds) for price in large] == [3500, 1100, 700, 0]
    assert small[-1].choice == "statistics of each chip alone"


def test_batch_norm_over_slices_waits_for_the_network_between_them():
    prices = batch_norm(estimate(compiled(), SMALL), parse("2xv5e:16x16"))
    assert prices[0].seconds == pytest.approx(100 * (35e-6 + 75e-6))
    assert prices[1].seconds == pytest.approx(100 * 11e-6)
    assert len(batch_norm(estimate(compiled(), SMALL), parse("3xv5e:2x2"))) == 3  # Eight are in no slice.


def test_layers_that_wait_for_nobody_have_no_price():
    found = estimate(compiled(), SMALL)
    assert sums_statistics(found, layers=53)
    assert not sums_statistics(found, layers=0)
    assert not sums_statistics(found, layers=101)


def test_neighbours_are_compact():
    assert box((16, 16), 4) == (2, 2)
    assert box((4, 8, 8), 8) == (2, 2, 2)
    assert box((2, 2), 1) == (1, 1)


def test_plain_logits_are_right_at_32_a_chip_and_the_ring_where_they_do_not_fit():
    plain, ring = contrastive_loss(LARGE, batch_size=8192, contrast=PAIRS)
    assert plain.wire_bytes / 1e6 == pytest.approx(17.0, rel=0.02)
    assert ring.wire_bytes / 1e6 == pytest.approx(6.4, rel=0.02)
    assert plain.seconds == pytest.approx(0.1e-3, rel=0.15)
    assert 6.5e-3 < ring.seconds < 7.8e-3  # 5.2 ms of kernels, 1.3 to 2.6 of permutes.
    assert advised([plain, ring]) is plain
    many = contrastive_loss(LARGE, batch_size=262_144, contrast=PAIRS)
    assert advised(many).choice == "ring of tiles"
    assert many[0].memory_bytes > 2**30 > 10 * many[1].memory_bytes


def test_views_and_microbatches_count():
    """NT-Xent has both views on either side: as InfoNCE of twice the batch. Microbatches are compared one by one."""
    whole = contrastive_loss(LARGE, batch_size=8192, contrast=PAIRS)
    twice = contrastive_loss(LARGE, batch_size=2 * 8192, contrast=PAIRS)
    assert contrastive_loss(LARGE, batch_size=8192, contrast=Contrast(128, views=2)) == twice
    four = contrastive_loss(LARGE, batch_size=4 * 8192, contrast=Contrast(128, parts=4))
    for one, many in zip(whole, four, strict=True):
        assert many.memory_bytes == one.memory_bytes
        assert many.seconds == pytest.approx(4 * one.seconds)
        assert many.wire_bytes == pytest.approx(4 * one.wire_bytes)
    _, narrow = contrastive_loss(LARGE, batch_size=2048 * 256, contrast=Contrast(128, tile=512))
    assert narrow.memory_bytes == 3 * 2048 * 512 * 4 + 4 * 2048 * 128 * 4
