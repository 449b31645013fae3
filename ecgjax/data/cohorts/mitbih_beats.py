"""The beats of MIT-BIH records: which halves the records make, which class a symbol has, when beats come."""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64, Int64

from ecgjax.formats import wfdb
from ecgjax.formats.wfdb_annotations import BEATS, read_annotations

DS1 = (
    *("101", "106", "108", "109", "112", "114", "115", "116", "118", "119", "122"),
    *("124", "201", "203", "205", "207", "208", "209", "215", "220", "223", "230"),
)
DS2 = (
    *("100", "103", "105", "111", "113", "117", "121", "123", "200", "202", "210"),
    *("212", "213", "214", "219", "221", "222", "228", "231", "232", "233", "234"),
)
PACED = ("102", "104", "107", "217")
"""The records that AAMI EC57 leaves out; DS1 and DS2 are the halves of the rest (de Chazal et al. 2004)."""

RATE_HZ = 360.0

_AAMI = {"N": "NLRej", "S": "AaJS", "V": "VE", "F": "F"}
CLASSES: Mapping[str, Mapping[str, str]] = {
    "aami": _AAMI,
    "aami5": {**_AAMI, "Q": "/fQ"},
    "bbb": {"N": "Nej", "L": "L", "R": "R", "S": _AAMI["S"], "V": _AAMI["V"], "F": _AAMI["F"]},
    "lab2020": {"N": "N", "L": "L", "R": "R", "V": "V", "P": "/"},
}
"""Symbols of every class, by label set; a class of paced beats is P, as / divides names."""

_LOCAL_INTERVALS = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Beats:
    """All beats of one record, whatever their class, and the record's leads.

    `rr_s` are, in seconds, the intervals from the beat before and to the beat after, the mean of up to ten intervals
    that end at the beat before, and the mean of the record; NaN where there is none.
    """

    samples: Int64[np.ndarray, "n"]
    symbols: tuple[str, ...]
    rr_s: Float64[np.ndarray, "n 4"]
    leads: tuple[str, ...]


def read_beats(path: pathlib.Path) -> Beats:
    """Reads the header and the reference annotations (.atr) of the record at `path`, given without suffix."""
    header = wfdb.read_header(path)
    if header.rate_hz != RATE_HZ:
        raise wfdb.WfdbError(f"{path}.hea: is at {header.rate_hz:g} Hz, MIT-BIH is at {RATE_HZ:g} Hz.")
    source = path.with_name(f"{path.name}.atr")
    annotations = read_annotations(source, length=header.length)
    is_beat = np.array([symbol in BEATS for symbol in annotations.symbols], bool)
    samples = annotations.samples[is_beat]
    twice = samples[1:][np.diff(samples) == 0]
    if twice.size:
        raise wfdb.WfdbError(
            f"{source}: two beats are at sample {twice[0]}, each must have its own; fetch it again."
        )
    symbols = tuple(symbol for symbol in annotations.symbols if symbol in BEATS)
    return Beats(samples, symbols, intervals(samples), tuple(signal.lead for signal in header.signals))


def intervals(samples: Int64[np.ndarray, "n"], rate_hz: float = RATE_HZ) -> Float64[np.ndarray, "n 4"]:
    """`Beats.rr_s` of beats at `samples`."""
    rr = np.diff(samples) / rate_hz
    table = np.full((len(samples), 4), np.nan)
    if not rr.size:
        return table
    table[1:, 0] = rr
    table[:-1, 1] = rr
    total = np.concatenate([[0.0], np.cumsum(rr)])
    stop = np.arange(1, len(rr))  # Intervals before number `stop` end at the beat before beat stop + 1.
    start = np.maximum(stop - _LOCAL_INTERVALS, 0)
    table[2:, 2] = (total[stop] - total[start]) / (stop - start)
    table[:, 3] = rr.mean()
    return table
