"""What a choice of semantics costs in communication and memory, on chips that need not exist: formulas alone."""

import dataclasses
import itertools
import math

from ecgjax.plans.communication import DCN_LATENCY_S, LINK_EFFICIENCY, leg
from ecgjax.plans.estimate import Estimate
from ecgjax.plans.records import Collective
from ecgjax.plans.scaling import PADDED_FROM, between_slices
from ecgjax.plans.topologies import Topology

LIVE_LOGITS = 3
"""Copies of the logits at once: forward, softmax, gradient."""

WORTH_A_RING = 2**30
"""Bytes of logits on a device from which the ring is the better choice; below, its small kernels cost more."""

_TILE_CYCLES = 31e3
"""Of all kernels of one hop of the ring, however small the tile: 0.50 M cycles on 16 chips of v5e, 7.8 M on 256."""

_PERMUTES, _PERMUTE_S = 5, 1.5e-6
"""Of one hop, forward and backward; chained in a loop each takes 1 to 2 us."""

_HOP_EMBEDDINGS = 1.5
"""Bytes of one hop over those of a device's embeddings: 25 kB at 32 x 128 float32 in the compiled program."""

_FLOAT32 = 4


@dataclasses.dataclass(frozen=True)
class Contrast:
    """A loss that compares every example of a batch with every other, by embeddings of the width `projection`.

    An example is so many `views` on either side of the logits: one of each tower, or both views of NT-Xent. The batch
    is compared in `parts`, one after the other (microbatches). `tile` is how many columns were compiled at a time,
    None for whole logits.
    """

    projection: int
    views: int = 1
    parts: int = 1
    tile: int | None = None


@dataclasses.dataclass(frozen=True)
class Price:
    """Seconds that a choice adds to a step, and bytes it takes on a device."""

    choice: str
    seconds: float
    memory_bytes: float
    wire_bytes: float


def sums_statistics(found: Estimate, *, layers: int) -> bool:
    """Whether so many layers of batch norm communicate: not those of frozen towers, or of groups on one chip."""
    return 0 < layers <= sum(one.times for one in _small_sums(found))


def batch_norm(found: Estimate, topology: Topology) -> list[Price]:
    """Statistics of the global batch against those of groups of 1, 4 and 8 neighbouring chips of `topology`.

    `found` says how many sums there are, and may be of another slice. The small blocking sums of a step are those of
    batch norm, but for a handful; each waits for the one before it, so that nothing hides them. Between slices each
    also waits for the data-centre network.
    """
    small = _small_sums(found)
    slice_chips = math.prod(topology.shape)
    groups = [chips for chips in (8, 4, 1) if chips <= slice_chips and chips < topology.chips]
    return [_batch_norm(small, chips, topology) for chips in (topology.chips, *groups)]


def _small_sums(found: Estimate) -> list[Collective]:
    return [
        one.collective
        for one in found.legs
        if one.latency_bound and one.collective.blocking and one.collective.kind == "all-reduce"
    ]


def _batch_norm(small: list[Collective], chips: int, topology: Topology) -> Price:
    everywhere = chips == topology.chips
    span = topology.shape if everywhere else box(topology.shape, chips)
    group = math.prod(span) * topology.devices_per_chip
    legs = []
    for one in small if chips > 1 else ():
        inside = dataclasses.replace(one, group=group, span=span)
        legs += [
            leg(c, topology) for c in (inside, *(between_slices(inside, topology) if everywhere else ()))
        ]
    own = "each chip alone" if chips == 1 else f"groups of {chips} chips"
    name = f"statistics of {'the global batch' if everywhere else own}"
    return Price(name, sum((x.seconds for x in legs), 0.0), 0.0, sum((x.wire_bytes for x in legs), 0.0))


def box(shape: tuple[int, ...], chips: int) -> tuple[int, ...]:
    """The most compact block of so many neighbouring chips of a slice."""
    sides = (
        sides
        for sides in itertools.product(*(range(1, side + 1) for side in shape))
        if math.prod(sides) == chips
    )
    return min(sides, key=lambda sides: (sum(sides), sides))


def contrastive_loss(topology: Topology, *, batch_size: int, contrast: Contrast) -> list[Price]:
    """Logits of the whole batch against a ring of tiles.

    Plain: all embeddings gathered and their gradient summed (from 64 chips two sums of padded buffers), and
    `LIVE_LOGITS` copies of a device's rows of the logits. Ring: a hop for every device, each of small kernels and
    permutes; tiles are computed twice. Elementwise work on the logits, the same for both, is left out.
    """
    devices, chip, parts = topology.devices, topology.chip, contrast.parts
    rows = contrast.views * batch_size / parts
    share = rows / devices
    embeddings = share * contrast.projection * _FLOAT32
    kinds = ("all-reduce" if topology.chips >= PADDED_FROM else "all-gather", "all-reduce")
    legs = [
        leg(one, topology)
        for kind in kinds
        for one in _everywhere(kind, round(devices * embeddings), topology)
    ]
    product_s = 2 * share * rows * contrast.projection / chip.device_flops
    plain = Price(
        "plain logits",
        parts * (sum(one.seconds for one in legs) + 3 * product_s),
        LIVE_LOGITS * share * rows * _FLOAT32 + 2 * devices * embeddings,
        parts * sum(one.wire_bytes for one in legs),
    )
    moving_s = _HOP_EMBEDDINGS * embeddings / (LINK_EFFICIENCY * chip.link_bandwidth)
    waiting_s = _PERMUTES * (DCN_LATENCY_S if topology.slices > 1 else _PERMUTE_S)
    ring = Price(
        "ring of tiles",
        parts * (devices * (max(waiting_s, moving_s) + _TILE_CYCLES / chip.clock_hz) + 4 * product_s),
        LIVE_LOGITS * share * min(share, contrast.tile or share) * _FLOAT32 + 4 * embeddings,
        parts * topology.devices_per_chip * devices * _HOP_EMBEDDINGS * embeddings,
    )
    return [plain, ring]


def advised(prices: list[Price]) -> Price:
    """The plain form unless its logits are a real share of the memory."""
    plain, ring = prices
    return ring if plain.memory_bytes >= WORTH_A_RING else plain


def _everywhere(kind, size: int, topology: Topology) -> list[Collective]:
    """Over all devices: within the slices, then a device's share between them."""
    group = topology.devices // topology.slices
    shared = {"times": 1, "blocking": True, "dtypes": ("f32",), "hops": 0.0, "name": "embeddings"}
    inside = Collective(kind=kind, bytes=size, group=group, network="ici", span=topology.shape, **shared)
    return [inside, *between_slices(inside, topology)]
