"""The synthetic CRT cohort: 12-lead recordings and clinical columns of patients, and who responded."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ecgjax.data.cohorts.base import Acquisition, Item, RejectedError, Target
from ecgjax.data.cohorts.crt.columns import CLINICAL, TARGETS
from ecgjax.data.cohorts.synthetic.dipole import draw_rhythm
from ecgjax.data.cohorts.synthetic.waveform import recorded
from ecgjax.data.cohorts.synthetic_crt.latent import Response, response_of
from ecgjax.data.cohorts.synthetic_crt.patients import Patient, draw_patient
from ecgjax.formats.recording import Recording
from ecgjax.signals.quality import QualityError

HEART, COURSE, RECORDING = range(3)
"""Last part of a seed key: what the stream draws."""


@dataclasses.dataclass(frozen=True)
class SyntheticCrtCohort:
    """`patients` with `records` ECGs each (12 leads, 10 s), all in split "train": cross-validation makes the folds.

    A latent dyssynchrony, standard normal, is all that ECG and response share. It drives the share of left bundle
    branch block (V1, axis, T), notches, QRS width and so the QRS area; a patient responds with probability
    sigmoid(a + b dyssynchrony), a and b such that the response has this `prevalence` and that the best possible
    classifier has this `auc`: that of the latent itself, which nothing made of an ECG can beat in expectation and which
    the noise-free parameters of the ECG hold unchanged. `null` leaves everything but the response as it is and draws
    that by itself. `missing` is the share of missing clinical values, `deaths` that of non-responders who die before
    follow-up.
    """

    patients: int = 200
    records: int = 1
    auc: float = 0.80
    prevalence: float = 0.55
    null: bool = False
    missing: float = 0.03
    deaths: float = 0.06
    seed: int = 0
    rate_hz: float = 500.0
    seconds: float = 10.0

    def __post_init__(self):
        for name, low in {"patients": 2, "records": 1, "seed": 0}.items():
            if getattr(self, name) < low:
                raise ValueError(f"config.cohort.{name} is {getattr(self, name)}; give {low} or more.")
        for name in ("missing", "deaths"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"config.cohort.{name} is {getattr(self, name)}; give a share from 0 to below 1."
                )
        if not (self.rate_hz >= 250 and self.seconds >= 5):
            raise ValueError(
                f"config.cohort: {self.seconds} s at {self.rate_hz} Hz; measures need 5 s at 250 Hz at least."
            )
        self.response()

    @property
    def name(self) -> str:
        """Name of the cohort in manifests."""
        return "synthetic_crt_null" if self.null else "synthetic_crt"

    @property
    def targets(self) -> tuple[Target, ...]:
        """Response, clinical columns and measures, as of a real CRT cohort."""
        return TARGETS

    def response(self) -> Response:
        """What dyssynchrony has to do with response."""
        return response_of(0.5 if self.null else self.auc, self.prevalence)

    def items(self) -> Sequence[Item]:
        """The records of every patient."""
        return [
            Item(subject=subject, record=f"{subject}-{record}", split="train")
            for subject in (f"{self.seed}-{index}" for index in range(self.patients))
            for record in range(self.records)
        ]

    def load(self, item: Item) -> Acquisition:
        """One recording with its measures. Raises ValueError where the item is none of this cohort's."""
        from ecgjax.signals.measures import measure  # Its scipy.signal costs most of a second.

        index, record = self._places(item)
        patient, recording = self.patient(index), self.recording(index, record)
        targets = {target.name: patient.columns[target.name] for target in CLINICAL}
        targets |= {"response": patient.columns["response"]}
        try:
            targets |= measure(recording.signal_mv, recording.rate_hz, female=bool(patient.columns["female"]))
        except QualityError as error:
            raise RejectedError(str(error)) from error
        return Acquisition(ecg=recording, cmr=None, targets=targets)

    def patient(self, index: int) -> Patient:
        """One patient, the same however many there are."""
        return draw_patient(
            self._rng(index, HEART),
            self._rng(index, COURSE),
            self.response(),
            deaths=self.deaths,
            missing=self.missing,
        )

    def recording(self, index: int, record: int) -> Recording:
        """One of a patient's ECGs: rhythm, breath and noise are its own."""
        patient, rng = self.patient(index), self._rng(index, RECORDING + record)
        rhythm = draw_rhythm(patient.e, rng, seconds=self.seconds)
        rhythm = dataclasses.replace(rhythm, pr_ms=patient.pr_ms)
        signal = recorded(patient.e, rhythm, rng, rate_hz=self.rate_hz, seconds=self.seconds)
        return Recording(signal, self.rate_hz)

    def _places(self, item: Item) -> tuple[int, int]:
        subject, _, record = item.record.rpartition("-")
        prefix, _, index = item.subject.rpartition("-")
        known = (
            subject == item.subject and prefix == str(self.seed) and index.isdecimal() and record.isdecimal()
        )
        if not (known and int(index) < self.patients and int(record) < self.records):
            raise ValueError(f"{item} is no item of this cohort; take items from its own items().")
        return int(index), int(record)

    def _rng(self, index: int, stream: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, index, stream))
