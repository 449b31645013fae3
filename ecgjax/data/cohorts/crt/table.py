"""The user's table of patients: read strictly, its units checked, every complaint with its line.

Messages name lines, never patients: they end up in logs.
"""

import collections
import csv
import dataclasses
import difflib
import hashlib
import io
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from ecgjax.data.cohorts.base import Split
from ecgjax.data.cohorts.crt.columns import FLAGS, KNOWN, QUANTITIES, REQUIRED, WORDS

_SPLITS = ("train", "val", "test")
_BLANK = ("", "na", "nan")
_SHOWN = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Patients in the order of the table. `values` has a number a patient by column, words turned into flags.

    `records` are (patient's position, path of the recording); `lines` where each patient comes first. A column that
    the file lacks is absent; a blank cell takes the value of the patient's other lines, and is NaN where none has one.
    """

    path: pathlib.Path
    digest: str
    patients: tuple[str, ...]
    lines: tuple[int, ...]
    splits: tuple[Split, ...]
    records: tuple[tuple[int, str], ...]
    values: Mapping[str, Float64[np.ndarray, "n"]]


@dataclasses.dataclass(frozen=True)
class _Row:
    line: int
    patient: str
    record: str
    split: str
    values: Mapping[str, float]


def read_table(path: pathlib.Path, *, ignore: Sequence[str]) -> Table:
    """Reads a CSV with the columns of `columns.KNOWN`; those of `ignore` are passed over, any other is refused."""
    content, cells = _cells(path, ignore)
    complaints: list[str] = []
    rows = [_row(line, named, complaints) for line, named in cells]
    complaints += _units(rows)
    refuse(path, complaints)
    return _by_patient(path, hashlib.sha256(content).hexdigest()[:16], rows)


def refuse(path: pathlib.Path, complaints: Sequence[str]) -> None:
    """Raises with the first of `complaints`, if there are any."""
    if complaints:
        more = [f"and {len(complaints) - _SHOWN} more"] if len(complaints) > _SHOWN else []
        raise ValueError(f"{path}: " + "; ".join([*complaints[:_SHOWN], *more]) + ".")


def _cells(path: pathlib.Path, ignore: Sequence[str]) -> tuple[bytes, list[tuple[int, dict[str, str]]]]:
    """The file, and (line, cell by column) of every row; all rules about columns are checked here."""
    if not path.is_file():
        raise ValueError(f"config.cohort.table: {path} does not exist; give the path of the CSV of patients.")
    content = path.read_bytes()
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV in UTF-8 ({error}); save it as one.") from None
    if not rows:
        raise ValueError(f"{path} is empty; the first line names the columns.")
    (_, header), *body = rows
    if len(header) == 1 and ";" in header[0]:
        raise ValueError(f"{path} separates its columns by semicolons; save it with commas.")
    _check_header(path, header, ignore)
    if not body:
        raise ValueError(f"{path} has no line but that of the column names; add a line for each patient.")
    uneven = [
        f"line {line} has {len(row)} cells under {len(header)} column names"
        for line, row in body
        if len(row) != len(header)
    ]
    refuse(path, uneven)
    kept = [(i, name) for i, name in enumerate(header) if name not in ignore]
    return content, [(line, {name: row[i] for i, name in kept}) for line, row in body]


def _check_header(path: pathlib.Path, header: Sequence[str], ignore: Sequence[str]) -> None:
    twice = [name for name, count in collections.Counter(header).items() if count > 1]
    unknown = [name for name in header if name not in (*KNOWN, *ignore)]
    absent = [name for name in REQUIRED if name not in header or name in ignore]
    complaints = [f"column {name!r} occurs twice" for name in twice]
    for name in unknown:
        close = difflib.get_close_matches(
            name.lower(), [known for known in KNOWN if known not in header], n=1
        )
        meant = f"did you mean {close[0]!r}? If not, " if close else ""
        complaints.append(
            f"column {name!r} is unknown; {meant}leave it out, or list it in config.cohort.ignore"
        )
    complaints += [
        f"column {name!r} is missing; every line needs a {name}: the file has {', '.join(header)}"
        for name in absent
    ]
    complaints += [
        f"config.cohort.ignore names {name!r}, which the file does not have"
        for name in ignore
        if name not in header
    ]
    refuse(path, complaints)


def _row(line: int, cells: Mapping[str, str], complaints: list[str]) -> _Row:
    values: dict[str, float] = {}
    for name, text in cells.items():
        if name in WORDS:
            values |= _word(line, name, text, complaints)
        elif name in FLAGS or name in QUANTITIES:
            values[name] = _number(line, name, text, complaints)
    for name in REQUIRED:
        if not cells[name]:
            complaints.append(f"line {line}: {name} is blank")
    split = cells.get("split", "train")
    if split not in _SPLITS:
        complaints.append(
            f"line {line}: split is {split!r}; write {', '.join(_SPLITS)}, or leave the column out"
        )
    for name in ("lvef_post", "lvesv_post"):
        if values.get("died_before_followup") == 1 and not math.isnan(values.get(name, math.nan)):
            complaints.append(
                f"line {line}: died_before_followup is 1, but {name} is {values[name]:g}; leave one of them blank"
            )
    return _Row(line, cells["patient_id"], _inside(line, cells["record"], complaints), split, values)


def _word(line: int, name: str, text: str, complaints: list[str]) -> Mapping[str, float]:
    known = WORDS[name]
    missing = dict.fromkeys(next(iter(known.values())), math.nan)
    word = text.lower()
    if word in _BLANK:
        return missing
    if word not in known:
        complaints.append(f"line {line}: {name} is {text!r}; write {', '.join(known)}, or leave it blank")
    return known.get(word, missing)


def _number(line: int, name: str, text: str, complaints: list[str]) -> float:
    if text.lower() in _BLANK:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        complaints.append(f"line {line}: {name} is {text!r}; write a number, or leave it blank")
    elif name in FLAGS and value not in (0, 1):
        complaints.append(f"line {line}: {name} is {text}; write 0 or 1, or leave it blank")
    elif name == "nyha" and not value.is_integer():
        complaints.append(f"line {line}: nyha is {text}; write 1, 2, 3 or 4, or leave it blank")
    else:
        return value
    return math.nan


def _inside(line: int, record: str, complaints: list[str]) -> str:
    """The record's path without suffix and detours, so that one record has one name."""
    pure = pathlib.PurePosixPath(record.removesuffix(".hea"))
    if pure.is_absolute() or ".." in pure.parts or "\\" in record or "\0" in record:
        complaints.append(
            f"line {line}: record {record!r} must lie inside the directory; write its path from there, with /"
        )
    return str(pure)


def _units(rows: Sequence[_Row]) -> list[str]:
    """Complaints about values that no patient has: of a column where all are in another unit, else of each line."""
    complaints = []
    for name, quantity in QUANTITIES.items():
        known = [
            (row.line, row.values[name])
            for row in rows
            if name in row.values and not math.isnan(row.values[name])
        ]
        wrong = [(line, value) for line, value in known if not quantity.holds(value)]
        if wrong and len(known) > 1 and all(quantity.slipped(value) for _, value in known):
            unit, factor = quantity.slip
            line, value = wrong[0]
            complaints.append(
                f"every {name} seems to be in {unit}, such as {value:g} in line {line}; it must be in "
                f"{quantity.unit}: multiply the column by {factor:g}"
            )
            continue
        for line, value in wrong:
            way = "correct it, or leave it blank"
            if quantity.slipped(value):
                unit, factor = quantity.slip
                way = f"if it is in {unit}, write {value * factor:g}"
            complaints.append(
                f"line {line}: {name} is {value:g}, outside {quantity.low:g} to {quantity.high:g} "
                f"{quantity.unit}; {way}"
            )
    return complaints


def _by_patient(path: pathlib.Path, digest: str, rows: Sequence[_Row]) -> Table:
    of_patient: dict[str, list[_Row]] = {}
    of_record: dict[str, int] = {}
    complaints = []
    for row in rows:
        of_patient.setdefault(row.patient, []).append(row)
        first = of_record.setdefault(row.record, row.line)
        if first != row.line:
            complaints.append(f"lines {first} and {row.line} name one record; each recording has one line")
    for mine in of_patient.values():
        complaints += _contradictions(mine)
    refuse(path, complaints)
    names = rows[0].values
    values = {name: np.array([_known(mine, name) for mine in of_patient.values()]) for name in names}
    position = {patient: i for i, patient in enumerate(of_patient)}
    return Table(
        path=path,
        digest=digest,
        patients=tuple(of_patient),
        lines=tuple(mine[0].line for mine in of_patient.values()),
        splits=tuple(mine[0].split for mine in of_patient.values()),
        records=tuple((position[row.patient], row.record) for row in rows),
        values=values,
    )


def _contradictions(rows: Sequence[_Row]) -> list[str]:
    """What one patient's lines disagree in."""
    first, *others = rows
    complaints = [
        f"lines {first.line} and {row.line} are of one patient, but of splits {first.split} and {row.split}"
        for row in others
        if row.split != first.split
    ]
    for name in first.values:
        known = [(row.line, row.values[name]) for row in rows if not math.isnan(row.values[name])]
        if len({value for _, value in known}) > 1:
            lines, values = (" and ".join(f"{x:g}" for x in column) for column in zip(*known, strict=True))
            complaints.append(f"lines {lines} are of one patient, but {name} is {values}")
    return complaints


def _known(rows: Sequence[_Row], name: str) -> float:
    return next((row.values[name] for row in rows if not math.isnan(row.values[name])), math.nan)
