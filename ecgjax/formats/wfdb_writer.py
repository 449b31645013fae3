"""A Recording to a WFDB record: one header, one signal file of 16-bit samples."""

import os
import pathlib

import numpy as np

from ecgjax.formats.recording import Recording

_LIMIT = 32767
_INVALID = -32768


def write(path: str | os.PathLike, recording: Recording, *, gain: float = 1000.0) -> None:
    """Writes `path`.hea and `path`.dat in format 16, `gain` units a mV; NaN is the format's invalid sample.

    Raises ValueError where a sample does not fit into 16 bits, or the name is none a header can hold.
    """
    path = pathlib.Path(path)
    if not path.name.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"{path}: a record's name has letters, digits, - and _ only.")
    units = np.round(recording.signal_mv.astype(np.float64) * gain)
    missing = np.isnan(units)
    if (np.abs(units[~missing]) > _LIMIT).any():
        raise ValueError(
            f"{path}: {np.nanmax(np.abs(recording.signal_mv)):g} mV at {gain:g} units a mV is beyond 16 bits; "
            f"give a smaller gain."
        )
    samples = np.where(missing, _INVALID, units).astype(np.int64)
    lines = [f"{path.name} {len(samples)} {recording.rate_hz:g} {samples.shape[1]}"]
    for lead, row in zip(recording.leads, samples, strict=True):
        checksum = (int(row.sum()) + 32768) % 65536 - 32768
        lines.append(f"{path.name}.dat 16 {gain:g}(0)/mV 16 0 {row[0]} {checksum} 0 {lead}")
    samples.T.astype("<i2").tofile(path.with_name(f"{path.name}.dat"))
    path.with_name(f"{path.name}.hea").write_text("\n".join(lines) + "\n")
