"""A synthetic CRT cohort as a user would bring his own: WFDB records and cohort.csv."""

import csv
import os
import pathlib
from collections.abc import Callable, Mapping

import crt_files
import numpy as np

from ecgjax.data.cohorts.synthetic_crt.cohort import SyntheticCrtCohort

TABLE = "cohort.csv"


def _number(name: str) -> Callable[[Mapping[str, float]], str]:
    return lambda columns: "" if np.isnan(columns[name]) else f"{columns[name]:g}"


def _word(name: str, yes: str, no: str) -> Callable[[Mapping[str, float]], str]:
    return lambda columns: "" if np.isnan(columns[name]) else (yes if columns[name] else no)


COLUMNS: Mapping[str, Callable[[Mapping[str, float]], str]] = {
    **{name: _number(name) for name in ("response", "lvef_pre", "lvef_post", "lvesv_pre", "lvesv_post")},
    "sex": _word("female", "F", "M"),
    "age": _number("age"),
    "nyha": _number("nyha"),
    "aetiology": _word("ischaemic", "ischaemic", "non"),
    "rhythm": _word("atrial_fibrillation", "AF", "SR"),
    **{name: _number(name) for name in ("qrs_ms", "lbbb", "followup_months", "died_before_followup")},
}
"""Columns of the table after patient_id and record; blank is missing."""


def write_raw(cohort: SyntheticCrtCohort, directory: str | os.PathLike) -> pathlib.Path:
    """Writes a record an item, and a line an item in the table; returns the table's path."""
    directory = pathlib.Path(directory)
    (directory / "records").mkdir(parents=True, exist_ok=True)
    with open(directory / TABLE, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("patient_id", "record", *COLUMNS))
        for index in range(cohort.patients):
            columns = cohort.patient(index).columns
            for record in range(cohort.records):
                path = f"records/p{index:04d}_{record}"
                crt_files.write_record(directory / path, cohort.recording(index, record).signal_mv)
                cells = (write(columns) for write in COLUMNS.values())
                writer.writerow((f"p{index:04d}", path, *cells))
    return directory / TABLE
