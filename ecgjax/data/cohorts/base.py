"""What every cohort provides: a cheap listing, then one acquisition pair at a time."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

from ecgjax.formats.recording import Recording, Volume

Split = Literal["train", "val", "test"]


@dataclasses.dataclass(frozen=True)
class Target:
    """One label column. `kind` decides the probe: ridge and R2, or logistic and AUROC.

    `control` marks a positive control, kept out of headline means.
    """

    name: str
    kind: Literal["regression", "binary"]
    unit: str = ""
    control: bool = False


@dataclasses.dataclass(frozen=True)
class Item:
    """One acquisition to load. Every item of a subject is in one split; identifiers never reach a shard."""

    subject: str
    record: str
    split: Split


@dataclasses.dataclass(frozen=True, eq=False)
class Acquisition:
    """What `Cohort.load` returns; `targets` may leave names out, which marks them missing.

    Where an item is one beat, `ecg` is the whole recording (the same object for all its beats, so that it is
    conditioned once), `beat` the sample of the R peak in it, and `rr_s` the seconds from the beat before, to the beat
    after, and between beats on average nearby and in the whole recording; NaN where there is none.
    """

    ecg: Recording | None
    cmr: Volume | None
    targets: Mapping[str, float]
    beat: int | None = None
    rr_s: tuple[float, float, float, float] | None = None


class RejectedError(ValueError):
    """The item cannot be used; the message says which value broke which rule."""


@runtime_checkable
class Cohort(Protocol):
    """Picklable, cheap to build; numpy only, so that `prepare` may run it in many processes.

    `notes`, where a cohort has them, are sentences about what its items leave out; log and manifest repeat them.
    """

    name: str
    targets: tuple[Target, ...]

    def items(self) -> Sequence[Item]:
        """Lists every item in a fixed order, without reading signals."""

    def load(self, item: Item) -> Acquisition:
        """Reads or generates one item. Raises RejectedError where it is damaged."""
