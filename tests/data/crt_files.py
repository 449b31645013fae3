"""Writes a tiny CRT cohort: WFDB records of synthetic patients and their table."""

import csv
import pathlib

import numpy as np

from ecgjax.formats.recording import LEADS

RATE_HZ = 500
_COUNTS_PER_MV = 1000
_SIZE = (0.7, 1.0, 0.4, -0.8, 0.3, 0.6, -0.9, -1.2, -0.4, 0.6, 1.1, 0.9)
"""R or S amplitude of each lead in mV."""


def ecg(*, qrs_s=0.14, seconds=10.0, spikes=False, seed=0):
    """A 12-lead ECG in mV with P, a QRS of about `qrs_s` and T at 70 a minute; `spikes` as of a pacemaker."""
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    beat = 60 / 70
    since = (time + 0.5 * beat) % beat - 0.5 * beat  # Seconds from the nearest R peak.
    shape = (
        0.12 * np.exp(-(((since + 0.2) / 0.025) ** 2) / 2),
        np.exp(-((since / (qrs_s / 5)) ** 2) / 2),
        0.25 * np.exp(-(((since - 0.3) / 0.05) ** 2) / 2),
    )
    p, qrs, t = (np.outer(np.abs(_SIZE) if wave != 1 else _SIZE, shape[wave]) for wave in range(3))
    signal = p + qrs + t + 0.01 * np.random.default_rng(seed).normal(size=(12, len(time)))
    if spikes:
        for peak in np.arange(1, int(seconds / beat)) * beat:
            signal[:, int((peak - 0.1) * RATE_HZ)] += 0.8 * np.array(_SIZE)
    return signal


def write_record(path: pathlib.Path, signal_mv, *, leads=LEADS):
    """One record in format 16 with right checksums."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.round(signal_mv * _COUNTS_PER_MV).astype(np.int64)
    lines = [f"{path.name} {len(samples)} {RATE_HZ} {samples.shape[1]}"]
    for lead, row in zip(leads, samples, strict=True):
        checksum = (int(row.sum()) + 32768) % 65536 - 32768
        lines.append(f"{path.name}.dat 16 {_COUNTS_PER_MV}(0)/mV 16 0 {row[0]} {checksum} 0 {lead}")
    path.with_suffix(".hea").write_text("\n".join(lines) + "\n")
    path.with_suffix(".dat").write_bytes(samples.T.astype("<i2").tobytes())


def write_table(path: pathlib.Path, rows):
    """`rows` are dicts with the same keys."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def patients(count=6):
    """Rows of a complete table: the first half respond by every definition, the others by none."""
    return [
        {
            "patient_id": f"patient-{i}",
            "record": f"ecg/{i:02d}",
            "response": int(i < count / 2),
            "sex": "FM"[i % 2],
            "age": 60 + i,
            "nyha": 3,
            "aetiology": ("non", "ischaemic")[i % 2],
            "rhythm": "SR",
            "lvef_pre": 30,
            "lvef_post": 50 if i < count / 2 else 31,
            "lvesv_pre": 200,
            "lvesv_post": 120 if i < count / 2 else 195,
            "qrs_ms": 150 + i,
            "lbbb": int(i % 3 == 0),
            "followup_months": 6,
            "died_before_followup": 0,
        }
        for i in range(count)
    ]
