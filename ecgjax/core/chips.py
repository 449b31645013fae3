"""Accelerators as their vendors describe them: what planning predicts with and what training measures MFU against."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

GIB = 2**30
_ASSUMED = "assumed: "


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """Facts of one chip, in FLOP/s, bytes and seconds; None where the field means nothing or nobody says.

    `kinds` are the strings of `jax.Device.device_kind`. A chip is one device or several (`devices_per_chip`): `flops`,
    `hbm_bytes`, `hbm_bandwidth` and `dcn_bandwidth` are of the chip, `usable_bytes` of a device, since that is what
    XLA refuses to exceed. `link_bandwidth` is one way over one link. `wrap` says which axes of a slice close to a
    ring: those of 16 chips, or all of a slice made of whole cubes of 4. `sources` has a line for every number; one
    that begins with "assumed" is no published figure.
    """

    name: str
    kinds: tuple[str, ...]
    flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    usable_bytes: int | None = None
    devices_per_chip: int = 1
    clock_hz: float | None = None
    link_bandwidth: float | None = None
    torus: Literal[2, 3] | None = None
    wrap: Literal["axis of 16", "whole cubes"] | None = None
    dcn_bandwidth: float | None = None
    sources: Mapping[str, str]

    @property
    def device_flops(self) -> float:
        """Peak bfloat16 FLOP/s of one device."""
        return self.flops / self.devices_per_chip

    @property
    def assumed(self) -> tuple[str, ...]:
        """Fields that no publication confirms."""
        return tuple(name for name, source in self.sources.items() if source.startswith(_ASSUMED))


_GOOGLE = "https://docs.cloud.google.com/tpu/docs/"
_BOOK = "https://jax-ml.github.io/scaling-book (How To Scale Your Model, parts 2 and 3)"
_USABLE = "limit in the out-of-memory message of libtpu 0.0.42.1, found by compiling"
_CLOCK = "derived: peak / FLOP per cycle of the matrix units"
_WRAP = f"{_BOOK}; MaxText's accelerator map"


def _sources(page: str, **own: str) -> dict[str, str]:
    """Sources of a TPU: the vendor's page unless `own` says otherwise."""
    published = ("flops", "hbm_bytes", "hbm_bandwidth", "torus", "dcn_bandwidth")
    lines = dict.fromkeys(published, _GOOGLE + page)
    lines |= {"link_bandwidth": _BOOK, "wrap": _WRAP, "usable_bytes": _USABLE, "clock_hz": _CLOCK}
    return lines | {"devices_per_chip": "jax.experimental.topologies of libtpu 0.0.42.1"} | own


TPUS: Mapping[str, Chip] = {
    "v4": Chip(
        name="v4",
        kinds=("TPU v4",),
        flops=275e12,
        hbm_bytes=32 * GIB,
        usable_bytes=int(30.75 * GIB),
        hbm_bandwidth=1200e9,
        clock_hz=1.05e9,
        link_bandwidth=50e9,
        torus=3,
        wrap="whole cubes",
        dcn_bandwidth=25e9 / 4,
        sources=_sources(
            "v4",
            devices_per_chip="both cores as one device (chip_config_name megacore), JAX's default on v4",
            link_bandwidth=f"{_ASSUMED}as v5e: {_GOOGLE}v4 says 300 GB/s over 6 links both ways, the book 45 a link",
            dcn_bandwidth=f"{_ASSUMED}25 GB/s a host of 4 chips; {_BOOK}",
        ),
    ),
    "v5e": Chip(
        name="v5e",
        kinds=("TPU v5 lite", "TPU v5e"),
        flops=197e12,
        hbm_bytes=16 * GIB,
        usable_bytes=int(15.75 * GIB),
        hbm_bandwidth=819e9,
        clock_hz=1.5e9,
        link_bandwidth=50e9,
        torus=2,
        wrap="axis of 16",
        dcn_bandwidth=200e9 / 8 / 8,
        sources=_sources(
            "v5e",
            link_bandwidth=f"{_GOOGLE}v5e: 400 GB/s over 4 links both ways; {_BOOK} observed 45",
            dcn_bandwidth=f"{_GOOGLE}v5e: 2 x 100 Gbit/s a host of 8 chips",
        ),
    ),
    "v5p": Chip(
        name="v5p",
        kinds=("TPU v5", "TPU v5p"),
        flops=459e12,
        hbm_bytes=95 * GIB,  # The vendor's "95 GB" is less than XLA uses: it must be GiB, or 96.
        usable_bytes=int(95.74 * GIB),
        hbm_bandwidth=2765e9,
        clock_hz=1.75e9,
        link_bandwidth=100e9,
        torus=3,
        wrap="whole cubes",
        dcn_bandwidth=50e9 / 8,
        sources=_sources("v5p", link_bandwidth=f"{_GOOGLE}v5p: 1200 GB/s over 6 links both ways"),
    ),
    "v6e": Chip(
        name="v6e",
        kinds=("TPU v6 lite", "TPU v6e"),
        flops=918e12,
        hbm_bytes=32 * GIB,
        usable_bytes=int(31.25 * GIB),
        hbm_bandwidth=1638e9,
        clock_hz=1.75e9,
        link_bandwidth=100e9,
        torus=2,
        wrap="axis of 16",
        dcn_bandwidth=100e9 / 8,
        sources=_sources("v6e", link_bandwidth=f"{_GOOGLE}v6e: 800 GB/s over 4 links both ways"),
    ),
    "tpu7x": Chip(
        name="tpu7x",
        kinds=("TPU7x",),
        flops=2307e12,
        hbm_bytes=192 * GIB,
        usable_bytes=int(94.75 * GIB),
        hbm_bandwidth=7380e9,
        devices_per_chip=2,
        clock_hz=2.2e9,
        link_bandwidth=100e9,
        torus=3,
        wrap="whole cubes",
        dcn_bandwidth=100e9 / 8,
        sources=_sources(
            "tpu7x",
            link_bandwidth=f"{_GOOGLE}tpu7x: 1200 GB/s over 6 links both ways",
            clock_hz=f"{_ASSUMED}a matrix unit of 524288 FLOP per cycle and core",
            wrap=f"{_ASSUMED}as v5p",
        ),
    ),
}
"""By the name that libtpu's topologies begin with."""

_NVIDIA = "https://www.nvidia.com/en-us/data-center/"


def _gpu(name: str, kinds: tuple[str, ...], flops: float, gb: int, bandwidth: float, page: str) -> Chip:
    fields = ("flops", "hbm_bytes", "hbm_bandwidth")
    return Chip(
        name=name,
        kinds=kinds,
        flops=flops,
        hbm_bytes=gb * 10**9,
        hbm_bandwidth=bandwidth,
        sources=dict.fromkeys(
            fields, f"{_NVIDIA}{page} (data sheet; dense bfloat16, half the figure with sparsity)"
        ),
    )


GPUS: Mapping[str, Chip] = {
    chip.name: chip
    for chip in (
        _gpu("A100 40GB", ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"), 312e12, 40, 1555e9, "a100"),
        _gpu("A100 80GB SXM", ("NVIDIA A100-SXM4-80GB",), 312e12, 80, 2039e9, "a100"),
        _gpu("A100 80GB PCIe", ("NVIDIA A100 80GB PCIe",), 312e12, 80, 1935e9, "a100"),
        _gpu("H100 SXM", ("NVIDIA H100 80GB HBM3",), 989.5e12, 80, 3350e9, "h100"),
        _gpu("H100 PCIe", ("NVIDIA H100 PCIe",), 756.5e12, 80, 2000e9, "h100"),
        _gpu("H200", ("NVIDIA H200",), 989.5e12, 141, 4800e9, "h200"),
    )
}
"""Those of which a run can state its MFU; nothing is planned for them."""


def of_kind(device_kind: str) -> Chip | None:
    """The chip that JAX calls `device_kind`; None where the table has none, such as a CPU."""
    for chip in (*TPUS.values(), *GPUS.values()):
        if device_kind in chip.kinds:
            return chip
    return None
