"""What the speed of a step means on its devices: per chip, against the peak, and the memory it takes."""

import dataclasses
from collections.abc import Sequence

import jax

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Gauge:
    """Reads the devices of a run.

    `flops` are the model FLOPs of one step, recomputation left out, and `peak` is the FLOP/s that one chip is sold
    with; where either is unknown there is no MFU.
    """

    chips: int
    flops: int | None = None
    peak: float | None = None

    def read(self, *, step_s: float, examples_per_s: float) -> dict[str, float]:
        """What is known at this speed; what these devices do not tell is left out."""
        readings = {"examples_per_s_per_chip": examples_per_s / self.chips}
        if self.flops is not None and self.peak is not None:
            readings["mfu"] = self.flops / (self.peak * self.chips * step_s)
        return readings | memory(jax.local_devices())


def memory(devices: Sequence) -> dict[str, float]:
    """GiB in use now, and at most so far, on the fullest of the devices; nothing where they do not say (CPUs)."""
    stats = [found for device in devices if (found := device.memory_stats())]
    fields = {"hbm_gib": "bytes_in_use", "hbm_peak_gib": "peak_bytes_in_use"}
    return {
        name: max(found[field] for found in stats) / _GIB
        for name, field in fields.items()
        if stats and all(field in found for found in stats)
    }


def count_chips(devices: Sequence) -> int:
    """Chips of these devices: of TPUs some generations show two cores of one chip as two devices."""
    places = {
        (getattr(device, "slice_index", 0), *device.coords) if hasattr(device, "coords") else device.id
        for device in devices
    }
    return len(places)
