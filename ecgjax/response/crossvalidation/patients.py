"""The patients of a cross-validation: everything a contender may look at, and never the truth."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True, eq=False)
class Patients:
    """Patients in the order of their first recording, so that another key of the hashes changes no fold.

    `columns` are numbers by name (clinical and measured, NaN missing) and `features` matrices by name (embeddings);
    a patient with several recordings has the median of each. `patient` says whose each recording is, -1 for those
    of patients left out because their truth is unknown.
    """

    subject: np.ndarray
    patient: Int[np.ndarray, " r"]
    columns: Mapping[str, Float[np.ndarray, " n"]]
    features: Mapping[str, Float[np.ndarray, "n d"]]

    def __len__(self) -> int:
        return len(self.subject)

    def records(self, patient: int) -> Int[np.ndarray, " k"]:
        """Positions of the recordings of one patient."""
        return np.flatnonzero(self.patient == patient)


def by_patient(
    subject: np.ndarray,
    truth: Float[np.ndarray, " r"],
    *,
    columns: Mapping[str, Float[np.ndarray, " r"]],
    features: Mapping[str, Float[np.ndarray, "r _"]],
) -> tuple[Patients, Float[np.ndarray, " n"]]:
    """Patients and their truths from recordings; a patient whose truth is missing everywhere is left out.

    Raises where two recordings of a patient have different truths, or where two patients share features or measures
    of the ECG (columns `ecg_...`). Whoever has the ECGs themselves checks them too: `refuse_duplicates`.
    """
    strange = truth[~np.isnan(truth) & (truth != 0) & (truth != 1)]
    if len(strange):
        raise ValueError(f"a truth is {strange[0]}; give 0, 1, or NaN where it is unknown.")
    for name, values in features.items():
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise ValueError(f"features {name!r} of recording {row} are not finite; leave the recording out.")
        refuse_duplicates(subject, values, what=f"features {name!r}")
    measured = [values for name, values in columns.items() if name.startswith("ecg_")]
    if measured:
        refuse_duplicates(subject, np.stack(measured, axis=1), what="ECG measures")
    names, first, index = np.unique(subject, return_index=True, return_inverse=True)
    order = np.argsort(first)
    index = np.argsort(order)[index]  # Patients by first appearance.
    highest, lowest = _grouped(np.fmax, truth, index, len(names)), _grouped(np.fmin, truth, index, len(names))
    for number in np.flatnonzero(highest != lowest):
        if not np.isnan(highest[number]):
            rows = np.flatnonzero((index == number) & ~np.isnan(truth))
            raise ValueError(
                f"the patient of recordings {', '.join(map(str, rows))} has two truths, 0 and 1; a patient has one: "
                "correct the cohort table."
            )
    known = np.flatnonzero(~np.isnan(highest))
    number = np.full(len(names), -1)
    number[known] = np.arange(len(known))
    patient = number[index]
    patients = Patients(
        subject=names[order][known],
        patient=patient,
        columns={
            name: _medians(values[:, None], patient, len(known))[:, 0] for name, values in columns.items()
        },
        features={name: _medians(values, patient, len(known)) for name, values in features.items()},
    )
    return patients, highest[known].astype(np.float64)


def refuse_duplicates(subject: np.ndarray, values: np.ndarray, *, what: str) -> None:
    """Raises where two patients share exactly the same recording or vector: one person under two names.

    `values` has the recordings first, such as ECGs [r l t] or measures [r d]. Rows that hold fewer than four distinct
    known numbers are too plain to prove anything and are not compared.
    """
    flat = np.ascontiguousarray(values.reshape(len(values), -1).astype(np.float32)) + np.float32(
        0
    )  # -0 is 0.
    seen: dict[bytes, int] = {}
    for row, vector in enumerate(flat):
        if len(np.unique(vector[np.isfinite(vector)])) < 4:
            continue
        first = seen.setdefault(vector.tobytes(), row)
        if subject[first] != subject[row]:
            raise ValueError(
                f"{what} of recordings {first} and {row} are identical under two patients; across folds that is a "
                "leak: give one person one patient_id, or leave one recording out."
            )


def _grouped(ufunc: np.ufunc, values: np.ndarray, index: np.ndarray, groups: int) -> np.ndarray:
    found = np.full(groups, np.nan)
    ufunc.at(found, index, values)
    return found


def _medians(values: np.ndarray, patient: np.ndarray, patients: int) -> np.ndarray:
    """The median of the known values of each patient's rows [n d]; NaN where none is known."""
    found = np.full((patients, values.shape[1]), np.nan)
    single = np.bincount(patient[patient >= 0], minlength=patients) == 1
    rows = (patient >= 0) & single[patient]
    found[patient[rows]] = values[rows]
    for number in np.flatnonzero(~single):
        rows = values[patient == number].astype(np.float64)
        known = ~np.isnan(rows).all(axis=0)
        found[number, known] = np.nanmedian(rows[:, known], axis=0)
    return found
