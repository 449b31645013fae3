"""The search for the largest batch against devices whose limit is known."""

import pytest

from ecgjax.plans.batch_search import Probe, largest


def device(needs, available):
    """A compiler for a device, and the batches it was asked for."""
    asked = []

    def probe(batch):
        asked.append(batch)
        return Probe(batch, needs(batch) <= available, needs(batch))

    return probe, asked


@pytest.mark.parametrize("start", [1, 128, 4000])
def test_an_affine_need_takes_few_compilations(start):
    probe, asked = device(lambda batch: 300 + 7 * batch, 16_000)  # 2242 fits, 2243 does not.
    found = largest(probe, available=16_000, start=start, step=32)
    assert (found.batch, found.above) == (2240, 2272)
    assert len(asked) == len(set(asked)) <= 6
    assert [p.batch for p in found.probes] == asked


def test_a_need_that_bends_is_found_by_halving():
    probe, asked = device(lambda batch: 100 + batch + batch**3 // 10**4, 50_000)
    found = largest(probe, available=50_000, start=8, step=8)
    assert found.above == found.batch + 8
    assert probe(found.batch).fits
    assert not probe(found.above).fits
    assert len(asked) < 16


def test_a_device_that_says_no_numbers_is_halved():
    def probe(batch):
        return Probe(batch, batch <= 100, None)

    assert largest(probe, available=0, start=64, step=4).batch == 100


def test_a_larger_batch_that_takes_less_does_not_slow_the_search():
    """As where the scheduler begins to compute again what it kept."""
    needs = {8: 700, 16: 690}
    probe, asked = device(lambda batch: needs.get(batch, 300 + batch), 1000)
    assert largest(probe, available=1000, start=8, step=8).batch == 696
    assert asked[:3] == [8, 16, 32]
    assert len(asked) < 16  # By single steps it would be eighty.


def test_nothing_fits():
    probe, _ = device(lambda batch: 10**6, 10**3)
    found = largest(probe, available=10**3, start=64, step=8)
    assert (found.batch, found.above) == (0, 8)


def test_the_search_ends_where_everything_fits():
    probe, _ = device(lambda batch: batch, 10**12)
    found = largest(probe, available=10**12, start=8, step=8)
    assert (found.batch, found.above) == (8 * 2**13, None)
