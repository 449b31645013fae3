"""The synthetic beats cohort: one item a beat, in the label sets of MIT-BIH, split by person."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ecgjax.data.cohorts.base import Acquisition, Item, Split, Target
from ecgjax.data.cohorts.mitbih_beats import intervals
from ecgjax.data.cohorts.synthetic_beats.holter import CONDUCTION, Holter, draw_holter, draw_person
from ecgjax.formats.recording import Recording

LABELS: Mapping[str, Mapping[str, str]] = {
    "aami": {"N": "N", "L": "N", "R": "N", "S": "S", "V": "V", "F": "F"},
    "bbb": {symbol: symbol for symbol in ("N", "L", "R", "S", "V", "F")},
}
"""Class of each beat symbol, by label set; columns in order of first mention, as in the MIT-BIH cohort."""

BLOCK_EVERY, LEFT, RIGHT = 8, 2, 5
"""Of every eight persons the third has left and the sixth right bundle branch block, in every split."""

SPLIT_KEY: Mapping[str, int] = {"train": 0, "val": 1, "test": 2}
PERSON, RECORDING = 0, 1
"""Last part of a seed key: what the stream draws."""


@dataclasses.dataclass(frozen=True)
class SyntheticBeatsCohort:
    """Holter recordings ("MLII") of `train` + `val` + `test` persons, `beats` items of each.

    Beats are N, L, R, S, V or F in shares like those of MIT-BIH (about two thirds N, a hundredth F); persons differ
    in shape, rate, ectopic burden and noise. `labels` "bbb" keeps bundle branch block as classes of its own, "aami"
    counts it as N. Person i of a split is the same whatever the counts; `beats` lengthens the recording.
    """

    train: int = 40
    val: int = 8
    test: int = 16
    beats: int = 100
    seed: int = 0
    labels: Literal["aami", "bbb"] = "bbb"
    rate_hz: float = 360.0
    _last: dict[str, Any] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self):
        for name, low in {"train": 0, "val": 0, "test": 0, "beats": 1, "seed": 0}.items():
            if getattr(self, name) < low:
                raise ValueError(f"config.cohort.{name} is {getattr(self, name)}; give {low} or more.")
        if not self.rate_hz >= 100:
            raise ValueError(
                f"config.cohort.rate_hz is {self.rate_hz}; a QRS needs 100 Hz at least, MIT-BIH has 360."
            )

    @property
    def name(self) -> str:
        """Name of the cohort in manifests."""
        return "synthetic_beats"

    @property
    def targets(self) -> tuple[Target, ...]:
        """One binary column a class; exactly one is 1."""
        return tuple(Target(name, "binary") for name in dict.fromkeys(LABELS[self.labels].values()))

    def items(self) -> Sequence[Item]:
        """Beats in time, person after person: train, then val, then test."""
        counts: dict[Split, int] = {"train": self.train, "val": self.val, "test": self.test}
        return [
            Item(subject=subject, record=f"{subject}-{beat}", split=split)
            for split, count in counts.items()
            for subject in (f"{self.seed}-{split}-{index}" for index in range(count))
            for beat in range(self.beats)
        ]

    def load(self, item: Item) -> Acquisition:
        """One beat of its person's recording. Raises ValueError where the item is none of this cohort's."""
        person, _, beat = item.record.rpartition("-")
        prefix, _, index = item.subject.rpartition("-")
        known = person == item.subject and prefix == f"{self.seed}-{item.split}"
        if not (known and index.isdecimal() and beat.isdecimal()) or not (
            int(index) < getattr(self, item.split) and int(beat) < self.beats
        ):
            raise ValueError(f"{item} is no item of this cohort; take items from its own items().")
        if self._last.get("subject") != item.subject:  # A person's beats follow one another.
            holter = self.holter(item.split, int(index))
            recording = Recording(holter.signal_mv[None].astype(np.float32), self.rate_hz, ("MLII",))
            self._last.update(
                subject=item.subject,
                holter=holter,
                recording=recording,
                rr_s=intervals(holter.peak, self.rate_hz),
            )
        holter, at = self._last["holter"], self._last["holter"].first + int(beat)
        label = LABELS[self.labels][holter.symbols[at]]
        return Acquisition(
            ecg=self._last["recording"],
            cmr=None,
            targets={target.name: float(target.name == label) for target in self.targets},
            beat=int(holter.peak[at]),
            rr_s=tuple(float(value) for value in self._last["rr_s"][at]),
        )

    def holter(self, split: Split, index: int) -> Holter:
        """The recording of one person, with every beat in it."""
        key = (self.seed, SPLIT_KEY[split], index)
        conduction = CONDUCTION[{LEFT: 1, RIGHT: 2}.get(index % BLOCK_EVERY, 0)]
        person = draw_person(np.random.default_rng((*key, PERSON)), conduction)
        rng = np.random.default_rng((*key, RECORDING))
        return draw_holter(person, rng, beats=self.beats, rate_hz=self.rate_hz)
