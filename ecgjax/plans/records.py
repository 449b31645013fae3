"""What is known of a compiled step: numbers of one device and one step, as JSON holds them."""

import dataclasses
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Collective:
    """One communication of the scheduled program.

    `bytes` is the full buffer S of one execution (what is reduced, what is gathered, what a permute or a send moves);
    `span` counts the distinct coordinates that a group has along each axis of the torus, empty across the DCN; `hops`
    is the mean distance of a permute's pairs on it. `cover_cycles` is the work that the schedule has between start
    and end, behind which it may hide; a blocking one has none.
    """

    kind: Literal["all-reduce", "all-gather", "reduce-scatter", "all-to-all", "permute", "send"]
    times: int
    bytes: int
    group: int
    network: Literal["ici", "dcn"]
    blocking: bool
    dtypes: tuple[str, ...]
    span: tuple[int, ...]
    hops: float
    name: str
    cover_cycles: float = 0.0


@dataclasses.dataclass(frozen=True)
class Program:
    """What the scheduled text of a program says, loops multiplied out.

    `flops` counts products and convolutions alone; `cycles` is the compiler's own estimate, None where it gives none.
    `unknown_loops` are loops whose trip count depends on data: their bodies were counted once. `kernels` are custom
    calls, whose cost nobody knows; `unpriced` are gathers, scatters and sorts that `cycles` leave out.
    """

    collectives: tuple[Collective, ...]
    hbm_bytes: int
    flops: float
    cycles: float | None
    unknown_loops: int
    kernels: tuple[str, ...]
    unpriced: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes as `memory_analysis` gives them, and what XLA may use of the device (None where nobody says)."""

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int
    peak: int
    available: int | None

    @property
    def upper_bound(self) -> int:
        """Arguments, outputs and temporaries together: what a straight-line program needs, more than a loop does."""
        return self.arguments + self.outputs - self.aliased + self.temporaries


@dataclasses.dataclass(frozen=True)
class Compiled:
    """One compilation of the step for one topology; where it did not fit no program, but `error` in words.

    `needed` are the bytes of a device that were asked for then. `model_flops` are those of loss and gradient on the
    whole batch of `batch_size` examples, without what is repeated to save memory. `state_bytes` holds what
    `parameters`, `optimiser`, `statistics` and `batch` take on a device; `host_bytes` what the compiler took here.
    `batch_norms` counts the layers that have batch statistics.
    """

    topology: str
    devices: int
    batch_size: int
    model_flops: int
    effort: Literal["full", "fast"]
    seconds: float
    state_bytes: dict[str, int]
    memory: Memory | None
    program: Program | None
    cost_analysis: dict[str, float]
    versions: dict[str, str]
    error: str | None = None
    needed: int | None = None
    host_bytes: int = 0
    batch_norms: int = 0
    cached: bool = False


def to_json(record: Any) -> dict[str, Any]:
    """A record as plain JSON."""
    return dataclasses.asdict(record)


def compiled_from_json(tree: dict[str, Any]) -> Compiled:
    """Reverses `to_json` of a `Compiled`."""
    memory = None if tree["memory"] is None else Memory(**tree["memory"])
    program = tree["program"]
    if program is not None:
        collectives = tuple(
            Collective(**{**c, "dtypes": tuple(c["dtypes"]), "span": tuple(c["span"])})
            for c in program["collectives"]
        )
        program = Program(
            **{
                **program,
                "collectives": collectives,
                "kernels": tuple(program["kernels"]),
                "unpriced": tuple(program["unpriced"]),
            }
        )
    return Compiled(**{**tree, "memory": memory, "program": program})
