"""A cohort of a few deterministic heart-like signals, with every way to be rejected on request."""

import dataclasses
import time

import numpy as np

from ecgjax.data.cohorts.base import Acquisition, Item, RejectedError, Target
from ecgjax.formats.recording import LEADS, Recording, Volume

RATE_HZ = 100.0
SAMPLES = 400
SIDE = 16


@dataclasses.dataclass(frozen=True)
class TinyCohort:
    """Subject i has one record, two where i is a multiple of five; `faults` maps a position to a fault."""

    subjects: int = 30
    seed: int = 0
    with_ecg: bool = True
    with_cmr: bool = True
    faults: tuple[tuple[int, str], ...] = ()
    seconds_per_item: float = 0.0
    name: str = "tiny"
    targets: tuple[Target, ...] = (
        Target("lvef", "regression", "%"),
        Target("infarct", "binary"),
        Target("index", "regression", control=True),
    )

    def items(self) -> list[Item]:
        items = []
        for i in range(self.subjects):
            split = "test" if i % 10 == 8 else "val" if i % 10 == 9 else "train"
            for visit in range(2 if i % 5 == 0 else 1):
                items.append(Item(f"subject-{i:04d}", f"visits/subject-{i:04d}_{visit}.dat", split))
        return items

    def load(self, item: Item) -> Acquisition:
        time.sleep(self.seconds_per_item)
        subject, visit = int(item.subject[-4:]), int(item.record[-5])
        rng = np.random.default_rng((self.seed, subject, visit))
        fault = dict(self.faults).get(subject)
        if fault == "damaged":
            raise RejectedError(f"/somewhere/{item.record}: checksum 1 against 2 of {item.subject}")
        if fault == "bug":
            raise KeyError(f"no column in {item.record}")
        samples = SAMPLES // 2 if fault == "short" else SAMPLES
        t = np.arange(samples) / RATE_HZ
        phase = rng.uniform(0, 6, (12, 1))
        signal = np.sin(2 * np.pi * 1.3 * t + phase) ** 9 + 0.05 * rng.normal(size=(12, samples))
        if fault == "nan":
            signal[3, 7] = np.nan
        if fault == "flat":
            signal[2] = 0.1
        volume = Volume(rng.random((6, 9, SIDE, SIDE)) * 900, (10.0, 1.8, 1.8), ed=0, es=2)
        targets = {"lvef": 60.0 - subject, "index": float(subject), "infarct": float(subject % 2)}
        if subject % 7 == 3:
            del targets["lvef"]
        if fault == "label":
            targets["infarct"] = 3.0
        return Acquisition(
            Recording(signal, RATE_HZ, LEADS) if self.with_ecg and fault != "no ecg" else None,
            volume if self.with_cmr and fault != "no cmr" else None,
            targets,
        )


KEY = b"0123456789abcdef"
SETTINGS = {
    "conditioning_ecg": {},
    "conditioning_cmr": {},
    "ecg_length": SAMPLES,
    "rate_hz": RATE_HZ,
    "cmr_height": SIDE,
    "cmr_width": SIDE,
    "pixel_mm": 1.8,
    "examples_per_shard": 5,
    "key": KEY,
    "progress": False,
}
