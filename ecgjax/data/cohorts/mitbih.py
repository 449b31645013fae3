"""MIT-BIH Arrhythmia Database (PhysioNet mitdb 1.0.0): one item a beat, split by people."""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from ecgjax.data.cohorts.base import Acquisition, Item, RejectedError, Split, Target
from ecgjax.data.cohorts.mitbih_beats import CLASSES, DS1, DS2, PACED, Beats, read_beats
from ecgjax.formats import wfdb
from ecgjax.formats.recording import Recording

_LEAKY = "lab2020-leaky"
_SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class MitbihCohort:
    """Beats of the records in `directory`, each with its class as one-hot binary targets.

    Only records that are there are listed; `notes` says which are not, and which beats have no class. The signal is
    that of `lead`, chosen by its name: in 114 it is the second. Records without it are left out, with a note.

    `labels`: "aami" has N, S, V, F of AAMI EC57 (e and j are N; Q is left out), "aami5" has Q as well, "bbb" keeps L
    and R apart from N, "lab2020" has N, L, R, V and P, the paced beats, of Hua et al. 2020 (Multimedia Systems).

    `protocol`: "ds1ds2" trains on DS1 without the records of `validation` and tests on DS2. Records 201 (DS1) and 202
    (DS2) are one person, which the published split passes over. By default 201 is dropped: the test
    set is that of the literature, and nobody in it has been seen. "drop_202" keeps all of DS1 instead, and
    "as_published" both records, as if of two people. "folds" tests on fold `fold` of `folds`, validates on the next one
    and trains on the others; a person is in one fold, and classes are spread evenly. "lab2020-leaky" draws beats, not
    people, in the shares of `fractions`: its test beats have neighbours in train, and its scores (99 % in the
    literature) say little about a new person. The cohort is then named mitbih-leaky and every beat is a subject.

    `paced` adds the four paced records, except for "ds1ds2", which has no place for them. `records`, where it is not
    empty, lists the only ones to use.

    An acquisition's `rr_s` is that of `mitbih_beats.Beats`: NaN at either end of a record (a tenth of a per mille of
    windows that fit), and many seconds in the few places where flutter, which has no beats, lies between two.
    """

    directory: str
    lead: str = "MLII"
    labels: Literal["aami", "aami5", "bbb", "lab2020"] = "aami"
    protocol: Literal["ds1ds2", "folds", "lab2020-leaky"] = "ds1ds2"
    validation: tuple[str, ...] = ("203", "220", "223")
    same_person: Literal["drop_201", "drop_202", "as_published"] = "drop_201"
    folds: int = 5
    fold: int = 0
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    seed: int = 0
    paced: bool = False
    records: tuple[str, ...] = ()
    _last: dict[str, Recording | str] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self):
        self._check_settings()
        self._check_records()

    @property
    def name(self) -> str:
        """Says where the split leaks: manifests, results and reports repeat it."""
        return "mitbih-leaky" if self.protocol == _LEAKY else "mitbih"

    @property
    def targets(self) -> tuple[Target, ...]:
        """One binary column a class."""
        return tuple(Target(name, "binary") for name in CLASSES[self.labels])

    @property
    def notes(self) -> tuple[str, ...]:
        """What the items leave out, in sentences for the log and the manifest."""
        absent = [record for record in self._wanted if record not in self._beats]
        without_lead = [record for record in self._beats if record not in self._used]
        symbols = collections.Counter(s for record in self._used for s in self._beats[record].symbols)
        classless = ", ".join(f"{s} {n}" for s, n in sorted(symbols.items()) if s not in self._class_of)
        empty = [c for c, of_class in CLASSES[self.labels].items() if not symbols.keys() & set(of_class)]
        notes = {
            f"{len(absent)} of {len(self._wanted)} records are absent: {', '.join(absent)}": absent,
            f"records without lead {self.lead} are left out: {', '.join(without_lead)}": without_lead,
            f"record {self._dropped} is left out, its person is in the other half": self._dropped,
            "records 201 and 202 are one person and both used, in different halves": self._leaks_one_person,
            f"beats without a class in {self.labels} are left out: {classless}": classless,
            f"no beat is of class {', '.join(empty)}": empty,
            "LEAKY: train, val and test share people": self.protocol == _LEAKY,
        }
        return tuple(note for note, holds in notes.items() if holds)

    def items(self) -> Sequence[Item]:
        """Beats with a class, in the order of records and time."""
        beats = [
            (record, f"{record}/{sample}")
            for record in self._used
            for sample, symbol in zip(
                self._beats[record].samples.tolist(), self._beats[record].symbols, strict=True
            )
            if symbol in self._class_of
        ]
        if self.protocol == _LEAKY:
            drawn = np.random.default_rng(self.seed).random(len(beats))
            splits = np.searchsorted(np.cumsum(self.fractions)[:2], drawn, side="right")
            return [Item(beat, beat, _SPLITS[i]) for (_, beat), i in zip(beats, splits, strict=True)]
        splits = self._split_of_record()
        return [Item(self._person(record), beat, splits[record]) for record, beat in beats]

    def load(self, item: Item) -> Acquisition:
        """The whole record, read once for beats that follow one another, and the place of the beat in it."""
        record, _, sample = item.record.partition("/")
        place = self._place.get(record, {}).get(sample)
        if place is None:
            raise ValueError(f"{item.record!r} is no beat of these records; take items from items().")
        beats = self._beats[record]
        label = self._class_of[beats.symbols[place]]
        return Acquisition(
            ecg=self._recording(record),
            cmr=None,
            targets={name: float(name == label) for name in CLASSES[self.labels]},
            beat=int(beats.samples[place]),
            rr_s=tuple(beats.rr_s[place].tolist()),
        )

    def _recording(self, record: str) -> Recording:
        if record not in self._last:
            self._last.clear()
            try:
                self._last[record] = wfdb.read(pathlib.Path(self.directory) / record, leads=(self.lead,))
            except ValueError as error:
                self._last[record] = str(error)
        found = self._last[record]
        if isinstance(found, str):
            raise RejectedError(found)
        return found

    @functools.cached_property
    def _class_of(self) -> Mapping[str, str]:
        return {symbol: name for name, symbols in CLASSES[self.labels].items() for symbol in symbols}

    @functools.cached_property
    def _wanted(self) -> tuple[str, ...]:
        """The records that the settings ask for, whether they are there or not."""
        every = (*DS1, *DS2, *(PACED if self.paced else ()))
        return self.records or tuple(record for record in sorted(every) if record != self._dropped)

    @functools.cached_property
    def _beats(self) -> Mapping[str, Beats]:
        """Of the records that are there."""
        paths = {record: pathlib.Path(self.directory) / record for record in self._wanted}
        return {
            record: read_beats(path) for record, path in paths.items() if path.with_suffix(".hea").is_file()
        }

    @functools.cached_property
    def _used(self) -> tuple[str, ...]:
        return tuple(record for record, beats in self._beats.items() if self.lead in beats.leads)

    @functools.cached_property
    def _place(self) -> Mapping[str, Mapping[str, int]]:
        """Number of a beat that has a class, by record and sample."""
        return {
            record: {
                str(sample): i
                for i, sample in enumerate(self._beats[record].samples.tolist())
                if self._beats[record].symbols[i] in self._class_of
            }
            for record in self._used
        }

    @property
    def _dropped(self) -> str:
        """The record left out because its person is in the other half."""
        return self.same_person.removeprefix("drop_") if self._drops else ""

    @property
    def _drops(self) -> bool:
        return self.protocol == "ds1ds2" and self.same_person != "as_published"

    @property
    def _leaks_one_person(self) -> bool:
        both = {"201", "202"} <= set(self._used)
        return both and self.protocol == "ds1ds2" and self.same_person == "as_published"

    def _person(self, record: str) -> str:
        return "201" if record == "202" and not self._leaks_one_person else record

    def _split_of_record(self) -> Mapping[str, Split]:
        if self.protocol == "ds1ds2":
            halves = {record: "train" for record in DS1} | {record: "test" for record in DS2}
            return halves | {record: "val" for record in self.validation}
        fold_of = self._fold_of_person()
        split_of_fold = {self.fold: "test", (self.fold + 1) % self.folds: "val"}
        return {record: split_of_fold.get(fold_of[self._person(record)], "train") for record in self._used}

    def _fold_of_person(self) -> Mapping[str, int]:
        """Person by person, who holds most of a class first, into the fold that evens the classes out best."""
        names = list(CLASSES[self.labels])
        counts: dict[str, np.ndarray] = {}
        for record in self._used:
            classes = [self._class_of.get(symbol) for symbol in self._beats[record].symbols]
            mine = counts.setdefault(self._person(record), np.zeros(len(names)))
            mine += [classes.count(name) for name in names]
        total = np.maximum(sum(counts.values()), 1)
        shares = {person: count / total for person, count in counts.items()}
        load = np.zeros((self.folds, len(names)))
        fold_of = {}
        for person in sorted(shares, key=lambda person: (-shares[person].max(), person)):
            grown = np.square(load + shares[person]).sum(axis=1) - np.square(load).sum(axis=1)
            fold_of[person] = int(grown.argmin())
            load[fold_of[person]] += shares[person]
        return fold_of

    def _check_settings(self) -> None:
        if self.labels == "lab2020" and not self.paced:
            raise ValueError(
                "config.cohort.labels is 'lab2020', which has a class of paced beats; set config.cohort.paced to True."
            )
        if self.protocol == "ds1ds2" and self.paced:
            raise ValueError(
                "config.cohort.paced is True, but the paced records are in neither DS1 nor DS2; set it to False, or "
                "config.cohort.protocol to 'folds'."
            )
        if not (self.folds >= 3 and 0 <= self.fold < self.folds):
            raise ValueError(
                f"config.cohort.fold is {self.fold} of {self.folds} folds; there must be at least 3, and their numbers "
                f"start at 0."
            )
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(
                f"config.cohort.fractions is {self.fractions}; train, val and test must be shares that sum to 1."
            )

    def _check_records(self) -> None:
        """Every record that the settings name must be of the database, in use, and there."""
        named = {"records": self.records}
        if self.protocol == "ds1ds2":
            named["validation"] = self.validation
        for field, records in named.items():
            for record in records:
                where = f"config.cohort.{field} names {record!r}"
                known = DS1 if field == "validation" else (*DS1, *DS2, *PACED)
                if record not in known:
                    raise ValueError(f"{where}; choose from {', '.join(known)}.")
                if record in PACED and not self.paced:
                    raise ValueError(f"{where}, a paced record, but config.cohort.paced is False; set it.")
                if record == self._dropped:
                    raise ValueError(
                        f"{where}, which config.cohort.same_person drops; choose another record or another rule."
                    )
                if record not in self._wanted:
                    raise ValueError(f"{where}, which config.cohort.records leaves out; add it there.")
                if record not in self._used:
                    what = f"has no lead {self.lead}" if record in self._beats else "is not there"
                    raise ValueError(
                        f"{where}, but it {what}; fetch it into {self.directory}, or leave it out."
                    )
        if not self._used:
            raise ValueError(
                f"config.cohort.directory: {self.directory} holds none of the {len(self._wanted)} records with lead "
                f"{self.lead}; give the directory of the WFDB files (100.hea, 100.dat, 100.atr, ...)."
            )
        if self.protocol == "folds" and len({self._person(r) for r in self._used}) < self.folds:
            raise ValueError(
                f"config.cohort.folds is {self.folds}, the records at hand are of fewer people; give fewer folds."
            )
