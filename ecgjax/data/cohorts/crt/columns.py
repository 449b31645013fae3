"""The columns of cardiac resynchronisation data: those of the user's table, and the label columns made of it."""

import dataclasses
from collections.abc import Mapping

from ecgjax.data.cohorts.base import Target


def _control(name: str, unit: str) -> Target:
    return Target(name, "regression", unit, control=True)


def _flag(name: str) -> Target:
    return Target(name, "binary", control=True)


RESPONSE = Target("response", "binary")

CLINICAL = (
    _control("age", "year"),
    _flag("female"),
    _control("nyha", "class"),
    _flag("ischaemic"),
    _flag("sinus_rhythm"),
    _flag("atrial_fibrillation"),
    _flag("paced"),
    _control("lvef_pre", "%"),
    _control("lvesv_pre", "ml"),
    _control("qrs_ms", "ms"),
    _flag("lbbb"),
    _flag("died_before_followup"),
    _control("followup_months", "month"),
)
"""What the table says of a patient; `qrs_ms` and `lbbb` as read in the clinic, whatever the recording shows."""

MEASURES = (
    _control("ecg_qrs_ms", "ms"),
    _control("ecg_qrs_area_uvs", "uV s"),
    _control("ecg_axis_deg", "degree"),
    _control("ecg_pr_ms", "ms"),
    _control("ecg_rate_bpm", "1/min"),
    _control("ecg_r_peak_time_v5_ms", "ms"),
    _control("ecg_r_peak_time_v6_ms", "ms"),
    _control("ecg_notched_leads", "lead"),
    _flag("ecg_lbbb_strauss"),
    _flag("ecg_lbbb_aha"),
    _flag("ecg_lbbb_esc"),
)
"""What `signals.measures.measure` makes of the recording before any conditioning."""

TARGETS = (RESPONSE, *CLINICAL, *MEASURES)
"""The label columns of a CRT data directory, in their order. NaN is missing."""


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A number in the table: its unit, the ends of what a patient can have, and the other unit it is found in.

    `slip` is that unit's name and the factor that leads from it to `unit`.
    """

    unit: str
    low: float
    high: float
    slip: tuple[str, float] | None = None

    def holds(self, value: float) -> bool:
        """Whether a patient can have `value`."""
        return self.low <= value <= self.high

    def slipped(self, value: float) -> bool:
        """Whether `value` is implausible as it is, and plausible in the other unit."""
        return self.slip is not None and not self.holds(value) and self.holds(value * self.slip[1])


_LVEF = Quantity("%", 5.0, 85.0, slip=("a fraction of 1", 100.0))
_LVESV = Quantity("ml", 10.0, 800.0, slip=("litre", 1000.0))

QUANTITIES: Mapping[str, Quantity] = {
    "lvef_pre": _LVEF,
    "lvef_post": _LVEF,
    "lvesv_pre": _LVESV,
    "lvesv_post": _LVESV,
    "age": Quantity("year", 1.0, 110.0),
    "nyha": Quantity("class", 1.0, 4.0),
    "qrs_ms": Quantity("ms", 50.0, 300.0, slip=("second", 1000.0)),
    "followup_months": Quantity("month", 0.0, 240.0),
}

FLAGS = ("response", "lbbb", "died_before_followup", "hf_admission")
"""Columns of 0 and 1."""

WORDS: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "sex": {
        "f": {"female": 1.0},
        "female": {"female": 1.0},
        "m": {"female": 0.0},
        "male": {"female": 0.0},
    },
    "aetiology": {
        "ischaemic": {"ischaemic": 1.0},
        "ischemic": {"ischaemic": 1.0},
        "non": {"ischaemic": 0.0},
        "non-ischaemic": {"ischaemic": 0.0},
        "non-ischemic": {"ischaemic": 0.0},
    },
    "rhythm": {
        "sr": {"sinus_rhythm": 1.0, "atrial_fibrillation": 0.0, "paced": 0.0},
        "af": {"sinus_rhythm": 0.0, "atrial_fibrillation": 1.0, "paced": 0.0},
        "paced": {"sinus_rhythm": 0.0, "atrial_fibrillation": 0.0, "paced": 1.0},
        "other": {"sinus_rhythm": 0.0, "atrial_fibrillation": 0.0, "paced": 0.0},
    },
}
"""Columns of words, in lower case, and the label columns that a word sets."""

REQUIRED = ("patient_id", "record")

KNOWN = (*REQUIRED, "split", *FLAGS, *QUANTITIES, *WORDS)
"""Every column that a table may have."""
