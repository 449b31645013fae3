"""PTB-XL: 21,799 labelled ten-second 12-lead ECGs, by the benchmark protocol of Strodthoff et al. 2021."""

import ast
import collections
import csv
import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Literal

from ecgjax.data.cohorts.base import Acquisition, Item, RejectedError, Split, Target
from ecgjax.formats import wfdb
from ecgjax.formats.recording import LEADS

Labels = Literal["all", "diagnostic", "subdiagnostic", "superdiagnostic", "form", "rhythm"]

SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")

_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_FILENAME = {100: "filename_lr", 500: "filename_hr"}
_COLUMNS = ("ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold", *_FILENAME.values())


@dataclasses.dataclass(frozen=True)
class _Statement:
    """One row of scp_statements.csv."""

    diagnostic: bool
    form: bool
    rhythm: bool
    superclass: str
    subclass: str


@dataclasses.dataclass(frozen=True)
class _Record:
    """Only what is set, so that the whole table pickles small."""

    subject: str
    path: str
    split: Split
    labels: frozenset[str]
    controls: Mapping[str, float]


class PtbxlCohort:
    """PTB-XL from a directory that holds `ptbxl_database.csv`, `scp_statements.csv` and the records it names.

    `labels` is the benchmark's task; the label set comes from `scp_statements.csv`, whatever the records at
    hand. A statement counts whatever its likelihood, as in the benchmark; with `min_likelihood` (0 to 100) a
    diagnostic statement below it does not (form and rhythm statements carry none). A record without a label
    in the task has its labels missing, not 0: the benchmark drops it, here it still serves pre-training.
    Controls beside the labels: `age` (missing where coded 300, which stands for above 89) and `female`.

    `split` "strat_fold" follows `folds`, the folds of train, val and test; "patient" draws patients by a hash
    of `seed` in the `fractions`, for subsets whose folds are uneven. A record whose file is missing or
    damaged is listed and rejected when loaded.
    """

    name = "ptbxl"

    def __init__(
        self,
        directory: str,
        *,
        rate_hz: int = 100,
        labels: Labels = "superdiagnostic",
        min_likelihood: float = 0.0,
        split: Literal["strat_fold", "patient"] = "strat_fold",
        folds: Sequence[Sequence[int]] = ((1, 2, 3, 4, 5, 6, 7, 8), (9,), (10,)),
        fractions: Sequence[float] = (0.7, 0.1, 0.2),
        seed: int = 0,
    ):
        if rate_hz not in _FILENAME:
            raise ValueError(
                f"PTB-XL has {sorted(_FILENAME)} Hz, not {rate_hz}; resample in the prepare job."
            )
        if not 0 <= min_likelihood <= 100:
            raise ValueError(f"min_likelihood is {min_likelihood}, must be a percentage from 0 to 100.")
        self._directory = pathlib.Path(directory)
        self._rate_hz = rate_hz
        statements = _statements(self._directory / "scp_statements.csv")
        self._labels = _label_names(statements, labels)
        self.targets = (
            *(Target(name, "binary") for name in self._labels),
            Target("age", "regression", "year", control=True),
            Target("female", "binary", control=True),
        )
        path = self._directory / "ptbxl_database.csv"
        rows = _rows(path, _COLUMNS)
        _forbid_shared_patients(path, rows)
        if split == "strat_fold":
            split_of = _fold_splits(folds)
        else:
            bounds = _bounds(fractions)
        self._records = {}
        for row in rows:
            where = f"{path}: ecg_id {row['ecg_id']}"
            subject, fold = _whole(row["patient_id"], where), int(_whole(row["strat_fold"], where))
            if split == "strat_fold" and fold not in split_of:
                raise ValueError(
                    f"{where} is in strat_fold {fold}, which no split of folds {folds} has; add it."
                )
            if row["ecg_id"] in self._records:
                raise ValueError(f"{where} occurs twice; restore the file.")
            self._records[row["ecg_id"]] = _Record(
                subject=subject,
                path=_inside(row[_FILENAME[rate_hz]], where),
                split=split_of[fold] if split == "strat_fold" else _drawn_split(subject, bounds, seed),
                labels=_labels(row["scp_codes"], statements, labels, min_likelihood, where),
                controls=_controls(row, where),
            )

    def items(self) -> Sequence[Item]:
        """All records in the order of the table."""
        return [Item(record.subject, key, record.split) for key, record in self._records.items()]

    def load(self, item: Item) -> Acquisition:
        """Reads one record, leads in the order of `LEADS`."""
        record = self._records.get(item.record)
        if record is None:
            raise ValueError(f"PTB-XL record {item.record!r} is not in the table; take items from items().")
        try:
            recording = wfdb.read(self._directory / record.path, leads=LEADS)
        except ValueError as error:
            raise RejectedError(str(error)) from error
        if recording.rate_hz != self._rate_hz:
            raise RejectedError(f"{record.path}: is at {recording.rate_hz} Hz, must be {self._rate_hz} Hz")
        present = {name: float(name in record.labels) for name in self._labels} if record.labels else {}
        return Acquisition(ecg=recording, cmr=None, targets=present | dict(record.controls))


def _rows(path: pathlib.Path, columns: Sequence[str]) -> list[dict[str, str]]:
    if not path.is_file():
        raise ValueError(f"{path} is missing; set the directory to that of PTB-XL 1.0.3.")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        absent = [column for column in columns if column not in (reader.fieldnames or ())]
        if absent:
            raise ValueError(f"{path}: columns {absent} are absent; use the table of PTB-XL 1.0.3.")
        return list(reader)


def _statements(path: pathlib.Path) -> dict[str, _Statement]:
    """Statement by its code, the first column, which has no name."""
    columns = ("diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass")
    return {
        row[""]: _Statement(
            diagnostic=_is_set(row["diagnostic"]),
            form=_is_set(row["form"]),
            rhythm=_is_set(row["rhythm"]),
            superclass=row["diagnostic_class"],
            subclass=row["diagnostic_subclass"],
        )
        for row in _rows(path, ("", *columns))
    }


def _is_set(text: str) -> bool:
    return text not in ("", "0", "0.0")


def _label_names(statements: Mapping[str, _Statement], labels: Labels) -> tuple[str, ...]:
    names = {_label(code, statement, labels) for code, statement in statements.items()} - {None}
    if labels == "superdiagnostic":
        return tuple(name for name in SUPERCLASSES if name in names)
    return tuple(sorted(names))


def _label(code: str, statement: _Statement, labels: Labels) -> str | None:
    """The label that a statement sets in a task, None for none."""
    if labels == "all":
        return code
    if labels == "form":
        return code if statement.form else None
    if labels == "rhythm":
        return code if statement.rhythm else None
    if not statement.diagnostic:
        return None
    return {"diagnostic": code, "subdiagnostic": statement.subclass, "superdiagnostic": statement.superclass}[
        labels
    ]


def _labels(
    text: str, statements: Mapping[str, _Statement], labels: Labels, min_likelihood: float, where: str
) -> frozenset[str]:
    present = set()
    for code, likelihood in _codes(text, where).items():
        if code not in statements:
            raise ValueError(
                f"{where}: statement {code!r} is not in scp_statements.csv; use the files of one release."
            )
        if not (statements[code].diagnostic and likelihood < min_likelihood):
            present.add(_label(code, statements[code], labels))
    return frozenset(present - {None})


def _controls(row: Mapping[str, str], where: str) -> dict[str, float]:
    age, female = _optional(row["age"], where), _optional(row["sex"], where)
    if female not in (None, 0, 1):
        raise ValueError(
            f"{where}: sex is {female}, must be 0 (male), 1 (female) or empty; restore the file."
        )
    known_age = {"age": age} if age is not None and age < 300 else {}
    return known_age | ({"female": female} if female is not None else {})


def _codes(text: str, where: str) -> dict[str, float]:
    try:
        codes = ast.literal_eval(text)
        return {str(code): float(likelihood) for code, likelihood in codes.items()}
    except (ValueError, SyntaxError, AttributeError, TypeError):
        raise ValueError(f"{where}: scp_codes {text!r} is no dict of numbers; restore the file.") from None


def _optional(text: str, where: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise ValueError(f"{where}: {text!r} must be a number or empty; restore the file.") from None


def _whole(text: str, where: str) -> str:
    """An integer that the table may write as 13243.0."""
    number = _optional(text, where)
    if number is None or number != int(number):
        raise ValueError(f"{where}: patient and fold must be whole numbers, not {text!r}; restore the file.")
    return str(int(number))


def _inside(path: str, where: str) -> str:
    pure = pathlib.PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"{where}: file {path!r} must lie inside the directory; restore the file.")
    return path


def _forbid_shared_patients(path: pathlib.Path, rows: Sequence[Mapping[str, str]]) -> None:
    folds = collections.defaultdict(set)
    for row in rows:
        folds[row["patient_id"]].add(row["strat_fold"])
    shared = {patient: sorted(seen) for patient, seen in folds.items() if len(seen) > 1}
    if shared:
        some = dict(list(shared.items())[:3])
        raise ValueError(
            f"{path}: {len(shared)} patients are in several folds, such as {some}; restore the table, "
            "or test patients are trained on."
        )


def _fold_splits(folds: Sequence[Sequence[int]]) -> dict[int, Split]:
    if len(folds) != len(_SPLITS):
        raise ValueError(f"folds {folds} must be three lists: those of {', '.join(_SPLITS)}.")
    listed = [fold for group in folds for fold in group]
    if len(set(listed)) != len(listed):
        raise ValueError(f"folds {folds} name a fold twice; every fold belongs to one split.")
    return {fold: split for split, group in zip(_SPLITS, folds, strict=True) for fold in group}


def _bounds(fractions: Sequence[float]) -> tuple[float, float]:
    if len(fractions) != len(_SPLITS) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions {fractions} must be three shares that sum to 1: {', '.join(_SPLITS)}.")
    return fractions[0], fractions[0] + fractions[1]


def _drawn_split(subject: str, bounds: tuple[float, float], seed: int) -> Split:
    """The same patient always falls into the same split, whatever else is in the table."""
    digest = hashlib.blake2b(f"{seed}/{subject}".encode(), digest_size=8).digest()
    drawn = int.from_bytes(digest, "little") / 2**64
    return _SPLITS[sum(drawn >= bound for bound in bounds)]
