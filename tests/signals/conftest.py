"""The records of LUDB with what cardiologists marked on them."""

import dataclasses

import numpy as np
import pytest

from ecgjax.formats import wfdb, wfdb_annotations
from ecgjax.formats.recording import LEADS, Recording


@dataclasses.dataclass(frozen=True)
class Marked:
    """One record; the manual durations are medians over its beats."""

    name: str
    recording: Recording
    qrs_ms: float
    """From the earliest fifth to the latest fifth of the leads' marks, so that one odd mark does not count."""
    pr_ms: float
    """From the earliest fifth of the P onsets to that of the QRS; NaN without P waves."""


@pytest.fixture(scope="session")
def ludb(shared_data) -> dict[str, Marked]:
    headers = sorted((shared_data / "ludb" / "data").glob("*.hea"), key=lambda path: int(path.stem))
    if not headers:
        pytest.skip(f"no ludb under {shared_data}")
    return {path.stem: marked(path) for path in headers}


def marked(path) -> Marked:
    recording = wfdb.read(path, leads=LEADS)
    qrs, p = [], []
    for lead in recording.leads:
        found = wfdb_annotations.read_annotations(path.with_suffix(f".{lead.lower()}"))
        for i in range(1, len(found.symbols) - 1):
            middle = found.symbols[i - 1 : i + 2]
            if middle[0] == "(" and middle[2] == ")" and middle[1] in "Np":
                (qrs if middle[1] == "N" else p).append(found.samples[i - 1 : i + 2])
    onsets, offsets = limits(qrs)
    starts = limits(p)[0] if p else np.zeros(0)
    pr = [(onsets - start)[onsets > start].min() for start in starts if onsets[-1] > start]
    pr = [value for value in pr if value < 200]  # A P wave whose QRS is not marked, at the ends.
    ms = 1000 / recording.rate_hz
    return Marked(
        path.stem,
        recording,
        float(np.median(offsets - onsets)) * ms,
        float(np.median(pr)) * ms if pr else float("nan"),
    )


def limits(marks):
    """Onset and offset of every wave that most leads have."""
    marks = np.array(sorted(marks, key=lambda mark: mark[1]))
    groups = np.split(marks, np.flatnonzero(np.diff(marks[:, 1]) > 75) + 1)
    groups = [group for group in groups if len(group) >= 6]
    return (
        np.array([np.percentile(group[:, 0], 20) for group in groups]),
        np.array([np.percentile(group[:, 2], 80) for group in groups]),
    )
