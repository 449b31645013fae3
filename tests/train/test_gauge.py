import dataclasses

import jax
import pytest

from ecgjax.train.gauge import Gauge, count_chips, memory

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Device:
    """What a TPU or GPU tells of itself."""

    id: int = 0
    stats: dict | None = None
    coords: tuple = (0, 0, 0)
    slice_index: int = 0

    def memory_stats(self):
        return self.stats


def test_mfu_is_model_flops_over_what_the_chips_could_do():
    # 4 chips of 100 FLOP/s could do 200 in half a second; the step needs 50.
    read = Gauge(chips=4, flops=50, peak=100.0).read(step_s=0.5, examples_per_s=32.0)
    assert (read["mfu"], read["examples_per_s_per_chip"]) == (0.25, 8.0)


@pytest.mark.parametrize("known", [{"flops": 1}, {"peak": 1.0}, {}])
def test_without_flops_or_peak_there_is_no_mfu(known):
    assert "mfu" not in Gauge(chips=1, **known).read(step_s=1.0, examples_per_s=1.0)


def test_a_cpu_tells_nothing_of_its_memory_and_nothing_is_made_up():
    assert memory(jax.local_devices()) == {}


def test_memory_is_that_of_the_fullest_device():
    devices = [
        Device(stats={"bytes_in_use": n * GIB, "peak_bytes_in_use": m * GIB}) for n, m in ((1, 9), (3, 5))
    ]
    assert memory(devices) == {"hbm_gib": 3.0, "hbm_peak_gib": 9.0}


def test_two_cores_of_one_chip_are_one_chip():
    cores = [
        Device(id=i, coords=(x, 0, 0), slice_index=s)
        for i, (s, x) in enumerate([(0, 0), (0, 0), (0, 1), (0, 1), (1, 0), (1, 0)])
    ]
    assert count_chips(cores) == 3


def test_devices_without_coordinates_are_chips():
    assert count_chips(jax.devices()) == 8
