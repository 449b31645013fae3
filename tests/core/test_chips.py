import dataclasses

import pytest

from ecgjax.core import chips

ALL = {**chips.TPUS, **chips.GPUS}


@pytest.mark.parametrize("chip", ALL.values(), ids=ALL)
def test_every_number_has_a_source(chip):
    told = {
        field.name
        for field in dataclasses.fields(chip)
        if field.name not in ("name", "kinds", "sources") and getattr(chip, field.name) is not None
    }
    if chip.name in chips.GPUS:
        told -= {"devices_per_chip"}
    assert told == set(chip.sources)


def test_what_nobody_publishes_is_marked():
    assert {name: chip.assumed for name, chip in ALL.items() if chip.assumed} == {
        "v4": ("dcn_bandwidth", "link_bandwidth"),
        "tpu7x": ("wrap", "clock_hz"),
    }


def test_a_chip_is_found_by_what_jax_calls_it():
    assert chips.of_kind("TPU v5 lite").flops == 197e12
    assert chips.of_kind("NVIDIA H200").hbm_bandwidth == 4.8e12
    assert chips.of_kind("cpu") is None


def test_the_chip_is_shared_by_its_devices():
    assert chips.TPUS["tpu7x"].device_flops == 2307e12 / 2
    assert chips.TPUS["v4"].device_flops == 275e12


@pytest.mark.parametrize("chip", chips.TPUS.values(), ids=chips.TPUS)
def test_the_clock_makes_the_peak(chip):
    """Matrix units of 128 x 128, 256 x 256 from v6e on, so a power of two of FLOP per cycle."""
    per_cycle = chip.device_flops / chip.clock_hz
    nearest = min((2**n for n in range(15, 21)), key=lambda n: abs(n - per_cycle))
    assert per_cycle == pytest.approx(nearest, rel=0.01)
